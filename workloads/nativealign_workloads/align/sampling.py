"""Which documents the expert gets. Pure; called by annotate's sample phase."""

import heapq
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Ranked(NamedTuple):
    """A document with its rank; the smallest are drawn, equal ones by id."""

    rank: float
    id: str
    shard: int
    corpus: str


def draw(documents: Iterable[Ranked], count: int) -> list[Ranked]:
    """The `count` documents of the smallest rank. Memory: `count` rows."""
    return heapq.nsmallest(count, documents)


def draw_stratified(documents: Iterable[Ranked], count: int) -> list[Ranked]:
    """As many documents of each corpus as of every other, by the smallest rank; of a corpus that has too few, all.

    Memory: `count` rows for each corpus.
    """
    drawn: dict[str, list[Ranked]] = {}
    for document in documents:
        rows = drawn.setdefault(document.corpus, [])
        rows.append(document)
        if len(rows) >= 2 * count:
            rows[:] = heapq.nsmallest(count, rows)
    wanted = shares({corpus: len(rows) for corpus, rows in drawn.items()}, count)
    return [document for corpus, rows in drawn.items() for document in heapq.nsmallest(wanted[corpus], rows)]


def shares(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """`count`, or all there is, divided as evenly as the sizes allow; the largest corpora get what is left over."""
    result: dict[str, int] = {}
    for number, name in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        result[name] = min(sizes[name], (count - sum(result.values())) // (len(sizes) - number))
    return result
