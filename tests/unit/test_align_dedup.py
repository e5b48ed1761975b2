"""Keys, sketches and clusters of deduplication."""

import random
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st

from nativealign_api.align import Fuzzy, HeldOut
from nativealign_workloads.align import clusters, keys
from nativealign_workloads.align.signatures import CHANCE, SKETCH_BITS, agreement, bands, exact_keys, sketches
from nativealign_workloads.text.hashes import run_hashes, word_hashes

SETTINGS = Fuzzy()


def _documents(count: int, length: int = 120) -> list[list[str]]:
    draw = random.Random(3)
    vocabulary = [f"كلمة{number}" for number in range(4000)]
    return [[draw.choice(vocabulary) for _ in range(length)] for _ in range(count)]


def _shingles(*texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    return run_hashes(*word_hashes([" ".join(text) for text in texts]), SETTINGS.shingle_words)


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
        first, second = sketches(*_shingles(*pair), SETTINGS)
        errors.append((1 - np.bitwise_count(first ^ second).sum() / SKETCH_BITS - CHANCE) / (1 - CHANCE) - truth)
        oracle = [MinHash(num_perm=112) for _ in pair]
        for sketch, side in zip(oracle, pair, strict=True):
            sketch.update_batch([value.tobytes() for value in _shingles(side)[0]])
        oracle_errors.append(oracle[0].jaccard(oracle[1]) - truth)
    assert abs(np.mean(errors)) < 0.03
    assert np.std(errors) <= np.std(oracle_errors) + 0.005


def test_sketches_do_not_depend_on_the_texts_beside_them() -> None:
    texts = [text[: 5 + number] for number, text in enumerate(_documents(9))]
    together = sketches(*_shingles(["قصير"], *texts), SETTINGS)
    for text, row in zip(texts, together, strict=True):
        assert (sketches(*_shingles(text), SETTINGS) == row).all()


def test_copies_meet_in_every_band_and_strangers_in_none() -> None:
    first, second = _documents(2)
    hashes = bands(*_shingles(first, first, second), SETTINGS)
    assert (hashes[0] == hashes[1]).all()
    assert not (hashes[0] == hashes[2]).any()


def test_spelling_variants_have_one_exact_key_and_other_words_another() -> None:
    variant, same, other, none = exact_keys(*word_hashes(["مدرسةٌ كبيـــرة", "مدرسه كبيرة", "مدرسة صغيرة", ""])).tolist()
    assert variant == same
    assert len({tuple(key) for key in (variant, other, none)}) == 3


def _keys(rows: list[tuple[int, int, int, int]]) -> np.ndarray:
    """(key, rank, document, value of the sketch's bytes)"""
    return np.array([(key, rank, document, [value] * 4) for key, rank, document, value in rows], keys.layout(4))


def test_documents_of_a_bucket_are_linked_where_they_agree() -> None:
    rows = [(7, 30, 0, 1), (7, 10, 1, 1), (7, 20, 2, 9), (7, 40, 3, 1), (8, 5, 4, 1), (9, 1, 5, 1), (9, 2, 6, 1)]
    for order in (rows, rows[::-1]):
        assert keys.links(_keys(order), 1.0).tolist() == [[1, 0], [1, 3], [5, 6]]
    assert keys.links(_keys([]), 1.0).shape == (0, 2)


@given(st.lists(st.sampled_from([1, 1, 1, 2, 3]), min_size=1, max_size=80), st.integers(1, 6))
def test_in_a_large_bucket_each_is_compared_with_the_first_and_its_neighbours(values: list[int], neighbours: int) -> None:
    """What is together in the end is what all these comparisons put together, by no more links than documents and neighbours."""
    with patch.object(keys, "NEIGHBOURS", neighbours):
        edges = keys.links(_keys([(7, number, number, value) for number, value in enumerate(values)]), 1.0).tolist()
    places = range(len(values))
    compared = [(a, b) for b in places for a in range(b) if a == 0 or b - a <= neighbours]
    together = [(a, b) for a, b in compared if values[a] == values[b]]
    assert set(map(tuple, edges)) <= set(together)
    described = _described([(0, 1, f"{number:032x}") for number in places])
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        found, expected = _stands_for(edges, described, Path(one), 10), _stands_for(together, described, Path(other), 10)
    assert found == expected


def test_copies_in_a_bucket_are_each_linked_with_the_first_alone() -> None:
    edges = keys.links(_keys([(7, number, number, 1) for number in range(1000)]), 1.0)
    assert edges.tolist() == [[0, number] for number in range(1, 1000)]


def test_sketches_agree_from_the_share_of_bits_on_that_is_asked_for() -> None:
    found = np.array([(1, 1, 0, [1, 2, 3, 4]), (1, 2, 1, [1, 2, 3, 0b11111011])], keys.layout(4))
    assert keys.links(found, 0.75).tolist() == [[0, 1]]
    assert keys.links(found, 0.76).tolist() == []


@pytest.mark.parametrize("similarity", [0.5, 0.75, 1.0])
def test_agreement_is_the_share_of_equal_bits_to_expect(similarity: float) -> None:
    draw = np.random.default_rng(1)
    first, other = draw.integers(0, 2, (2, 200_000), np.uint8)
    second = np.where(draw.random(200_000) < similarity, first, other)
    assert (first == second).mean() == pytest.approx(agreement(similarity), abs=0.003)


def test_partitions_are_small_however_many_documents_there_are_and_shared_out_evenly() -> None:
    for documents, shards in ((0, 1), (100, 7), (10**8, 64), (10**8, 1000)):
        count = keys.partitions(documents, 2000, shards)
        assert count % shards == 0
        assert documents * 2000 / count <= keys.PARTITION_BYTES


@given(st.lists(st.integers(0, 2**64 - 1), max_size=60), st.integers(1, 7), st.integers(1, 20))
def test_a_key_file_holds_every_key_in_its_partition(values: list[int], count: int, size: int) -> None:
    with TemporaryDirectory() as folder, patch.object(keys, "BLOCK_BYTES", 100):
        writer = keys.KeyWriter(Path(folder) / "keys", 2, count)
        for start in range(0, len(values), size):
            block = np.array(values[start : start + size], np.uint64)
            documents = np.arange(start, start + len(block), dtype=np.uint32)
            writer.add(block, block >> np.uint64(1), documents, np.full((len(block), 2), start % 256, np.uint8))
        bounds = writer.finish()
        found = np.fromfile(writer.path, keys.layout(2))
    assert sorted(found["document"].tolist()) == list(range(len(values)))
    assert [int(key) for key in found["key"]] == [values[number] for number in found["document"]]
    assert bounds[-1] == len(values)
    for partition, (first, end) in enumerate(pairwise(bounds)):
        assert all(int(key) % count == partition for key in found["key"][first:end])


def _described(rows: list[tuple[int, int, str]]) -> np.ndarray:
    """(corpus, words, id)"""
    found = np.empty(len(rows), clusters.DOCUMENT)
    found["corpus"], found["words"] = [row[0] for row in rows], [row[1] for row in rows]
    found["id"] = clusters.id_halves([row[2] for row in rows])
    return found


def _stands_for(edges: list[tuple[int, int]], described: np.ndarray, folder: Path, block: int) -> dict[int, str]:
    found = clusters.Clusters(len(described), folder)
    for start in range(0, len(edges), block):
        found.join(np.array(edges[start : start + block], np.uint32))
    found.close()
    for start in range(0, len(described), block):
        found.compare(start, described[start : start + block])
    result = {}
    for start in range(0, len(described), block):
        rows, of = found.stands_for(start, len(described[start : start + block]))
        result |= {start + int(row): clusters.id_text(halves) for row, halves in zip(rows, of, strict=True)}
    assert len(result) == found.duplicates
    return result


@pytest.mark.parametrize("block", [1, 2, 100])
def test_a_cluster_is_stood_for_by_the_first_corpus_then_the_longest_then_the_smallest_id(tmp_path: Path, block: int) -> None:
    ids = ["f" * 32, "a" * 32, "b" * 32, "d" * 32, "c" * 32, "e" * 32]
    described = _described(list(zip([9, 1, 0, 0, 0, 0], [9, 900, 10, 50, 50, 1], ids, strict=True)))
    assert _stands_for([(1, 2), (2, 3), (1, 4)], described, tmp_path, block) == {1: ids[4], 2: ids[4], 3: ids[4]}


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda edge: edge[0] != edge[1]), max_size=40),
    st.integers(1, 40),
)
def test_every_cluster_keeps_exactly_one_document(edges: list[tuple[int, int]], block: int) -> None:
    described = _described([(number % 3, number * 7 % 11, f"{number:032x}") for number in range(31)])
    with TemporaryDirectory() as folder:
        found = _stands_for(edges, described, Path(folder), block)
    stands_for = {number: int(identifier, 16) for number, identifier in found.items()}
    kept = set(range(31)) - set(stands_for)
    assert set(stands_for.values()) <= kept
    for low, high in edges:
        assert stands_for.get(low, low) == stands_for.get(high, high)
    assert len(kept) == 31 - len(stands_for)


def _drawn(described: np.ndarray, order: list[int], size: int, settings: HeldOut) -> set[int]:
    draw = clusters.Draw(settings, len(order))
    for start in range(0, len(order), size):
        numbers = np.array(order[start : start + size])
        draw.add(numbers, described["id"][numbers])
    return set(draw.documents().tolist())


@given(st.integers(1, 60), st.integers(0, 10), st.integers(1, 40))
def test_the_held_out_draw_does_not_depend_on_blocks_or_order(count: int, wanted: int, size: int) -> None:
    described = _described([(0, 5, f"{number * 2654435761:032x}") for number in range(count)])
    settings = HeldOut(documents=wanted, max_percent=50.0)
    drawn = _drawn(described, list(range(count)), size, settings)
    assert drawn == _drawn(described, list(range(count))[::-1], count, settings)
    assert len(drawn) == min(wanted, count // 2)


def test_another_seed_draws_others() -> None:
    described = _described([(0, 5, f"{number:032x}") for number in range(1000)])
    draws = [_drawn(described, list(range(1000)), 1000, HeldOut(documents=50, seed=seed)) for seed in range(3)]
    assert all(len(draw) == 50 for draw in draws)
    assert max(len(a & b) for a, b in pairwise(draws)) < 10


def test_cluster_sizes_are_counted_in_powers_of_two(tmp_path: Path) -> None:
    found = clusters.Clusters(8, tmp_path)
    found.join(np.array([[0, 1], [2, 3], [3, 4], [4, 5], [5, 6]], np.uint32))
    found.close()
    assert found.sizes() == {"2": 1, "8": 1}
    assert found.count == 2
