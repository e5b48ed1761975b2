"""Keys, signatures and clusters of deduplication."""

import random

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st

from nativealign_api.align import Fuzzy, HeldOut
from nativealign_workloads.align import clusters
from nativealign_workloads.align.signatures import bands, exact_key, shingles, signatures, similarity
from nativealign_workloads.text.fold import words

SETTINGS = Fuzzy()


def _documents(count: int, length: int = 120) -> list[list[str]]:
    draw = random.Random(3)
    vocabulary = [f"كلمة{number}" for number in range(4000)]
    return [[draw.choice(vocabulary) for _ in range(length)] for _ in range(count)]


def _edited(tokens: list[str], changes: int) -> list[str]:
    draw = random.Random(changes)
    edited = tokens.copy()
    for place in draw.sample(range(len(tokens)), changes):
        edited[place] = f"جديد{place}"
    return edited


def _jaccard(first: list[str], second: list[str]) -> float:
    sides = [set(zip(*(tokens[n:] for n in range(SETTINGS.shingle_words)), strict=False)) for tokens in (first, second)]
    return len(sides[0] & sides[1]) / len(sides[0] | sides[1])


@pytest.mark.parametrize("changes", [0, 1, 2, 4, 8, 30])
def test_estimated_similarity_is_as_near_to_the_truth_as_datasketch_is(changes: int) -> None:
    errors, oracle_errors = [], []
    for tokens in _documents(20):
        pair = [tokens, _edited(tokens, changes)]
        truth = _jaccard(*pair)
        matrix = signatures(pair, SETTINGS)
        errors.append(similarity(matrix[0], matrix[1:])[0] - truth)
        oracle = [MinHash(num_perm=112) for _ in pair]
        for sketch, side in zip(oracle, pair, strict=True):
            sketch.update_batch([value.tobytes() for value in shingles(side, SETTINGS.shingle_words)])
        oracle_errors.append(oracle[0].jaccard(oracle[1]) - truth)
    assert abs(np.mean(errors)) < 0.03
    assert np.std(errors) < np.std(oracle_errors) + 0.02


def test_copies_meet_in_every_band_and_strangers_in_none() -> None:
    first, second = _documents(2)
    hashes = bands(signatures([first, first, second], SETTINGS), SETTINGS)
    assert (hashes[0] == hashes[1]).all()
    assert not (hashes[0] == hashes[2]).any()


def test_spelling_variants_have_one_exact_key_and_other_words_another() -> None:
    assert exact_key(words("مدرسةٌ كبيـــرة")) == exact_key(words("مدرسه كبيرة"))
    assert exact_key(words("مدرسة كبيرة")) != exact_key(words("مدرسة صغيرة"))


def test_a_text_shorter_than_a_shingle_has_no_shingles() -> None:
    assert len(shingles(["قصير", "جدا"], 5)) == 0


def _described(rows: list[tuple[int, int, int, str]]) -> np.ndarray:
    return np.array(rows, clusters.DOCUMENT)


def test_a_cluster_is_stood_for_by_the_first_corpus_then_the_longest_then_the_smallest_id() -> None:
    described = _described(
        [(1, 1, 900, "a" * 32), (2, 0, 10, "b" * 32), (3, 0, 50, "d" * 32), (4, 0, 50, "c" * 32), (7, 0, 1, "e" * 32)]
    )
    edges = np.array([[1, 2], [2, 3], [1, 4]], np.uint64)
    assert clusters.representatives(edges, described) == {1: 4, 2: 4, 3: 4}


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda edge: edge[0] != edge[1]), max_size=40))
def test_every_cluster_keeps_exactly_one_document(edges: list[tuple[int, int]]) -> None:
    described = _described([(number, number % 3, number * 7 % 11, f"{number:032d}") for number in range(31)])
    stands_for = clusters.representatives(np.array(edges, np.uint64).reshape(-1, 2), described)
    kept = set(range(31)) - set(stands_for)
    assert set(stands_for.values()) <= kept
    for low, high in edges:
        assert stands_for.get(low, low) == stands_for.get(high, high)


@given(st.integers(1, 60), st.integers(0, 10), st.integers(1, 40))
def test_the_held_out_draw_does_not_depend_on_blocks_or_duplicates_order(count: int, wanted: int, size: int) -> None:
    described = _described([(number, 0, 5, f"{number:032x}") for number in range(count)])
    duplicates = np.arange(0, count, 3, dtype=np.uint64)
    settings = HeldOut(documents=wanted, max_percent=50.0)
    blocks = [described[start : start + size] for start in range(0, count, size)]
    drawn = clusters.draw(blocks, duplicates, settings)
    assert set(drawn) == set(clusters.draw([described], duplicates, settings))
    assert not set(drawn) & set(duplicates)
    assert len(drawn) == min(wanted, int((count - len(duplicates)) * 0.5))


def test_cluster_sizes_are_counted_in_powers_of_two() -> None:
    assert clusters.sizes({1: 0, 3: 2, 4: 2, 5: 2, 6: 2}) == {"2": 1, "8": 1}
