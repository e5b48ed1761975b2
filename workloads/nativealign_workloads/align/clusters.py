"""Clusters of duplicates, and what is drawn from them. Pure; called by dedup's link phase."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from nativealign_api.align import HeldOut

ROW_BITS = 32

DOCUMENT = np.dtype([("ordinal", "<u8"), ("corpus", "<u2"), ("words", "<u4"), ("id", "S32")])
"""A document: its ordinal, the place of its corpus in the spec, its length in words, its id in hex."""


def ordinals(shard: int, first: int, count: int) -> NDArray[np.uint64]:
    """Ordinals of `count` rows of a shard from row `first` on."""
    return np.arange(first, first + count, dtype=np.uint64) + (np.uint64(shard) << np.uint64(ROW_BITS))


def split(ordinal: int) -> tuple[int, int]:
    """(shard, row) of an ordinal."""
    return ordinal >> ROW_BITS, ordinal & ((1 << ROW_BITS) - 1)


def representatives(edges: NDArray[np.uint64], described: NDArray[Any]) -> dict[int, int]:
    """For every duplicate the ordinal that stands for its cluster: first corpus, then longest, then smallest id.

    edges: shape (n, 2), ordinals. described: DOCUMENT rows of every ordinal in them.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(edges):
        return {}
    described = described[np.argsort(described["ordinal"])]
    low, high = (np.searchsorted(described["ordinal"], edges[:, side]) for side in (0, 1))
    graph = coo_array((np.ones(len(edges), np.uint8), (low, high)), shape=(len(described),) * 2)
    _, labels = connected_components(graph, directed=False)
    best = np.lexsort((described["id"], -described["words"].astype(np.int64), described["corpus"], labels))
    firsts = best[np.unique(labels[best], return_index=True)[1]]
    stands = described["ordinal"][firsts][labels]
    mine = described["ordinal"]
    return {int(own): int(other) for own, other in zip(mine, stands, strict=True) if own != other}


def sizes(stands_for: dict[int, int]) -> dict[str, int]:
    """How many clusters have 2, 3-4, 5-8, … documents, keyed by the upper end."""
    members = Counter(stands_for.values())
    found = Counter(str(1 << (count + 1 - 1).bit_length()) for count in members.values())
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def draw(blocks: Iterable[NDArray[Any]], duplicates: NDArray[np.uint64], settings: HeldOut) -> NDArray[np.uint64]:
    """Ordinals of the held-out documents: of those that stay, the ones whose seeded hash is smallest.

    The draw depends on the documents' ids and the seed alone, not on shards or order. Memory: settings.documents rows.
    """
    kept, stay = np.empty((0, 2), np.uint64), 0
    for block in blocks:
        rest = block[~np.isin(block["ordinal"], duplicates)]
        stay += len(rest)
        ranks = np.array([xxhash.xxh3_64_intdigest(name, settings.seed) for name in rest["id"].tolist()], np.uint64)
        both = np.concatenate([kept, np.stack([ranks, rest["ordinal"]], axis=1)])
        kept = both[np.argsort(both[:, 0], kind="stable")][: settings.documents]
    return kept[: int(stay * settings.max_percent / 100), 1]
