"""Clusters of duplicates, which document stands for each, and the held-out draw. Called by dedup's link phase.

Documents are dense ordinals, 0 to n-1. What grows with their number lies in files of scratch that are mapped into memory, and is
read and written in blocks.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nativealign_api.align import HeldOut
from nativealign_workloads.text.hashes import U64, scrambled

U32 = NDArray[np.uint32]

DOCUMENT = np.dtype([("corpus", "<u2"), ("words", "<u4"), ("id", "<u8", (2,))])
"""A document: the place of its corpus in the spec, its length in words, the two halves of its id."""

MOST_DOCUMENTS = 1 << 32

BLOCK = 1 << 20
"""Documents that are looked at at once."""

_BEST = np.dtype([*DOCUMENT.descr, ("document", "<u4")])


def id_halves(identifiers: list[str]) -> U64:
    """Ids in hex as two numbers each, the higher first, shape (ids, 2)."""
    return np.frombuffer(bytes.fromhex("".join(identifiers)), ">u8").reshape(-1, 2).astype(np.uint64)


def id_text(halves: NDArray[np.uint64]) -> str:
    """The id in hex."""
    return f"{int(halves[0]):016x}{int(halves[1]):016x}"


class Clusters:
    """Which documents are connected by edges. 8 bytes of scratch for each document, 26 for each cluster."""

    def __init__(self, documents: int, folder: Path) -> None:
        self._folder, self.documents = folder, documents
        self._root = self._scratch("roots", np.dtype("<u4"), documents)
        for first in range(0, documents, BLOCK):
            self._root[first : first + BLOCK] = np.arange(first, min(first + BLOCK, documents), dtype=np.uint32)

    def join(self, edges: U32) -> None:
        """Connects the two documents of each edge, shape (n, 2)."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        ends = self._find(edges.reshape(-1)).reshape(-1, 2)
        ends = ends[ends[:, 0] != ends[:, 1]]
        if not len(ends):
            return
        roots, sides = np.unique(ends, return_inverse=True)
        sides = sides.reshape(-1, 2)
        graph = coo_array((np.ones(len(sides), np.uint8), (sides[:, 0], sides[:, 1])), shape=(len(roots),) * 2)
        _, labels = connected_components(graph, directed=False)
        smallest = roots[np.unique(labels, return_index=True)[1]]
        self._root[roots] = smallest[labels]

    def close(self) -> None:
        """After the last edge: finds the clusters of at least two documents."""
        members = self._scratch("members", np.dtype("<u4"), self.documents)
        for first in range(0, self.documents, BLOCK):
            roots = self._find(np.arange(first, min(first + BLOCK, self.documents), dtype=np.uint32))
            found, counts = np.unique(roots, return_counts=True)
            members[found] += counts.astype(np.uint32)
        blocks = range(0, self.documents, BLOCK)
        self._heads = np.concatenate([np.empty(0, np.uint32), *(self._heads_of(members, first) for first in blocks)])
        self._sizes = members[self._heads]
        self._best = self._scratch("best", _BEST, len(self._heads))
        self._best["corpus"][:] = np.iinfo(np.uint16).max

    @property
    def count(self) -> int:
        """Clusters of at least two documents."""
        return len(self._heads)

    @property
    def duplicates(self) -> int:
        """Documents that another one stands for."""
        return int(self._sizes.sum(dtype=np.int64)) - self.count

    def sizes(self) -> dict[str, int]:
        """How many clusters have 2, 3-4, 5-8, … documents, keyed by the upper end."""
        sizes, counts = np.unique(self._sizes, return_counts=True)
        found: Counter[int] = Counter()
        for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
            found[1 << (size - 1).bit_length()] += count
        return {str(end): count for end, count in sorted(found.items())}

    def compare(self, first: int, described: NDArray[Any]) -> None:
        """Lets the documents `first`, `first` + 1, … stand for their clusters: first corpus, then longest, then smallest id."""
        own = np.arange(first, first + len(described), dtype=np.uint32)
        cluster = self._cluster_of(own)
        linked = cluster >= 0
        candidates = np.empty(int(linked.sum()), _BEST)
        for name in DOCUMENT.names or ():
            candidates[name] = described[name][linked]
        candidates["document"] = own[linked]
        touched = np.unique(cluster[linked])
        every = np.concatenate([candidates, self._best[touched]])
        of = np.concatenate([cluster[linked], touched])
        order = np.lexsort((every["id"][:, 1], every["id"][:, 0], -every["words"].astype(np.int64), every["corpus"], of))
        self._best[touched] = every[order[np.unique(of[order], return_index=True)[1]]]

    def stands_for(self, first: int, count: int) -> tuple[NDArray[np.int64], U64]:
        """(those of the documents `first`, … that are duplicates, from 0; the ids of those that stand for them, shape (n, 2))."""
        own = np.arange(first, first + count, dtype=np.uint32)
        cluster = self._cluster_of(own)
        linked = np.flatnonzero(cluster >= 0)
        best = self._best[cluster[linked]]
        other = best["document"] != own[linked]
        return linked[other], best["id"][other]

    def _find(self, documents: U32) -> U32:
        found = self._root[documents]
        while (above := self._root[found]).tobytes() != found.tobytes():
            found = above
        self._root[documents] = found
        return np.asarray(found)

    @staticmethod
    def _heads_of(members: U32, first: int) -> U32:
        return (np.flatnonzero(members[first : first + BLOCK] > 1) + first).astype(np.uint32)

    def _cluster_of(self, documents: U32) -> NDArray[np.int64]:
        """Numbers of the documents' clusters; -1 for a document that is like no other."""
        if not len(self._heads):
            return np.full(len(documents), -1)
        roots = self._find(documents)
        place = np.minimum(np.searchsorted(self._heads, roots), len(self._heads) - 1)
        return np.where(self._heads[place] == roots, place, -1)

    def _scratch(self, name: str, dtype: np.dtype[Any], rows: int) -> NDArray[Any]:
        return np.memmap(self._folder / f"clusters-{name}", dtype, "w+", shape=rows) if rows else np.empty(0, dtype)


class Draw:
    """The held-out documents: of those that stay, the ones whose seeded hash is smallest. Memory: the documents wanted.

    It depends on the documents' ids and the seed alone, not on shards or order.
    """

    def __init__(self, settings: HeldOut, stay: int) -> None:
        """`stay`: documents that are no duplicates, in all."""
        self._wanted = min(settings.documents, int(stay * settings.max_percent / 100))
        self._seed = settings.seed
        self._drawn = np.empty(0, [("hash", "<u8"), ("document", "<u4")])

    def add(self, documents: NDArray[np.integer[Any]], ids: U64) -> None:
        """Documents that stay, with their ids, shape (n, 2)."""
        more = np.empty(len(documents), self._drawn.dtype)
        more["hash"], more["document"] = seeded_hash(ids, self._seed), documents
        if len(self._drawn) >= self._wanted > 0:
            more = more[more["hash"] < self._drawn["hash"][-1]]
        every = np.concatenate([self._drawn, more])
        self._drawn = every[np.argsort(every["hash"], kind="stable")][: self._wanted]

    def documents(self) -> U32:
        """Ordinals, ascending."""
        return np.sort(self._drawn["document"])


def seeded_hash(ids: U64, seed: int) -> U64:
    """One well-mixed number for each id, shape (n,)."""
    return scrambled(ids[:, 0] ^ scrambled(ids[:, 1] + np.uint64(seed)))
