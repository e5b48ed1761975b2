"""Questions of benchmarks inside of texts, found by runs of folded words. Called by clean, and by rewrite for what came out."""

from collections.abc import Sequence

import numpy as np

from nativealign_workloads.text.hashes import U64, Counts, run_hashes, word_hashes

PHRASE_QUESTIONS = 10
"""A run that more questions have is a phrase, such as "which of the following is right" (after arXiv 2005.14165, C)."""


class Questions:
    """Finds a question in a text that holds `words` words of it in a row, or all of it where it has fewer.

    Questions of less than `min_words` words are not looked for. Memory: about 30 bytes for each word of the questions.
    """

    def __init__(self, names: Sequence[str], questions: Sequence[str], words: int, min_words: int) -> None:
        self._names, self._min_words = names, min_words
        hashes, counts = word_hashes(questions)
        heads = _all_runs(hashes, min_words)
        self._runs: dict[int, tuple[U64, Counts]] = {}
        known = [np.empty(0, np.uint64)]
        for size in range(min_words, words + 1):
            firsts, owners = _places(counts, size, at_least=size == words)
            runs, owners, chosen = _without_phrases(_all_runs(hashes, size)[firsts], owners)
            if len(runs):
                self._runs[size] = runs, owners
                known.append(heads[firsts[chosen]])
        self._heads = np.unique(np.concatenate(known))

    def held_by(self, text: str) -> str:
        """Name of the first question that the text holds; empty where it holds none."""
        hashes, _ = word_hashes([text])
        heads = _all_runs(hashes, self._min_words)
        for start in np.flatnonzero(_contains(self._heads, heads)):
            for size, (runs, owners) in self._runs.items():
                run = _all_runs(hashes[start : start + size], size)
                if _contains(runs, run).any():
                    return self._names[int(owners[np.searchsorted(runs, run[0])])]
        return ""


def _all_runs(hashes: U64, size: int) -> U64:
    return run_hashes(hashes, np.array([len(hashes)]), size)[0]


def _places(counts: Counts, size: int, *, at_least: bool) -> tuple[Counts, Counts]:
    """(first word of each run, its question) in the questions that have `size` words, or also more."""
    runs = np.where((counts >= size) if at_least else (counts == size), counts - size + 1, 0)
    owners = np.repeat(np.arange(len(counts)), runs)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(runs) - runs, runs)
    return (np.cumsum(counts) - counts)[owners] + within, owners


def _without_phrases(runs: U64, owners: Counts) -> tuple[U64, Counts, Counts]:
    """(different runs in rising order, the first question of each, where it was) of those that few questions have."""
    order = np.lexsort((owners, runs))
    again = np.zeros(len(order), bool)
    again[1:] = (np.diff(runs[order]) == 0) & (np.diff(owners[order]) == 0)  # a question that says it twice
    order = order[~again]
    different, firsts, counts = np.unique(runs[order], return_index=True, return_counts=True)
    few = counts <= PHRASE_QUESTIONS
    return different[few], owners[order][firsts[few]], order[firsts[few]]


def _contains(known: U64, values: U64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each value is one of those known, which are in rising order."""
    if not len(known):
        return np.zeros(len(values), bool)
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
    return found
