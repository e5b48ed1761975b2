"""Samples of documents. Called by annotate, assess and evaluate.

Which documents are in a sample follows from their ranks and ids alone, whatever the shards are: each shard draws its own, and the
sample is the smallest of these. Pure.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import xxhash

Row = dict[str, Any]
"""A document with its `id` and `rank`."""
MERGED = 16
"""Shards that are read side by side."""


def random_rank(identifier: str, seed: int) -> float:
    """The rank of a document in a random sample."""
    return float(xxhash.xxh3_64_intdigest(identifier, seed))


def order(row: Row) -> tuple[float, str]:
    """By rank; equal ones by id."""
    return row["rank"], row["id"]


class Drawn:
    """The `count` smallest rows of each stratum. Memory: twice as many."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._rows: dict[str, list[Row]] = defaultdict(list)
        self.documents = Counter[str]()
        """All that were there, by stratum."""

    def add(self, stratum: str, row: Row) -> None:
        rows = self._rows[stratum]
        rows.append(row)
        self.documents[stratum] += 1
        if len(rows) >= 2 * self._count:
            rows[:] = heapq.nsmallest(self._count, rows, key=order)

    def strata(self) -> dict[str, list[Row]]:
        """The rows of each stratum, ascending."""
        return {stratum: heapq.nsmallest(self._count, rows, key=order) for stratum, rows in self._rows.items()}


def smallest(shards: Iterable[Iterable[Row]], count: int) -> list[Row]:
    """The `count` smallest rows of all, ascending. Each shard's own are ascending; they are read no further than needed."""
    found: list[Row] = []
    for group in _groups(iter(shards)):
        found = list(islice(heapq.merge(found, *group, key=order), count))
    return found


def _groups(shards: Iterator[Iterable[Row]]) -> Iterator[list[Iterable[Row]]]:
    while group := list(islice(shards, MERGED)):
        yield group


def draw(rows: Iterable[Row], count: int, seed: int) -> list[Row]:
    """A random sample, ascending by id. Memory: `count` rows."""
    return sorted(
        heapq.nsmallest(count, rows, key=lambda row: (random_rank(row["id"], seed), row["id"])), key=lambda row: str(row["id"])
    )


def shares(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """`count`, or all there is, divided as evenly as the sizes allow; the largest strata get what is left over."""
    result: dict[str, int] = {}
    for number, name in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        result[name] = min(sizes[name], (count - sum(result.values())) // (len(sizes) - number))
    return result
