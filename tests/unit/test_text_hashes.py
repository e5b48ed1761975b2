"""Hashes of words and of runs of words."""

from hypothesis import given
from hypothesis import strategies as st

from nativealign_workloads.text.fold import words
from nativealign_workloads.text.hashes import run_hashes, word_hashes

TEXTS = st.lists(st.text(alphabet="ابتabAB _.،\n\u0650\u200c٣\U0001f600\U00010400e\u0301", max_size=30), max_size=8)


def hashed(texts: list[str]) -> list[list[int]]:
    hashes, counts = word_hashes(texts)
    each = iter(hashes.tolist())
    found = [[next(each) for _ in range(count)] for count in counts]
    assert next(each, None) is None
    return found


@given(TEXTS)
def test_equal_folded_words_have_equal_hashes_and_others_have_others(texts: list[str]) -> None:
    found = {}
    for text, hashes in zip(texts, hashed(texts), strict=True):
        for word, value in zip(words(text), hashes, strict=True):
            assert found.setdefault(word, value) == value
    assert len(set(found.values())) == len(found)


@given(TEXTS)
def test_a_text_has_the_same_hashes_alone_and_beside_others(texts: list[str]) -> None:
    assert hashed(texts) == [hashed([text])[0] for text in texts]


@given(TEXTS, st.integers(1, 5))
def test_runs_stay_within_a_text_and_depend_on_their_words_and_order_alone(texts: list[str], size: int) -> None:
    runs, counts = run_hashes(*word_hashes(texts), size)
    each, found = iter(runs.tolist()), {}
    for text, count in zip(texts, counts.tolist(), strict=True):
        tokens = words(text)
        expected = [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]
        assert count == len(expected)
        for run in expected:
            value = next(each)
            assert found.setdefault(run, value) == value
    assert len(set(found.values())) == len(found)


def test_many_words_have_as_many_hashes() -> None:
    letters = "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"
    different = [a + b + c for a in letters for b in letters for c in letters]
    hashes, counts = word_hashes([" ".join(different), " ".join(reversed(different))])
    assert len(set(hashes.tolist())) == len(different)
    assert counts.tolist() == [len(different)] * 2
