"""Keys of documents on their way from dedup's sign to its group: which documents may be the same, partition by partition.

A key is a number that documents share, with what tells whether they are the same: a sketch of bytes. Partitions are small enough
to be compared in memory one by one, however large the corpus is.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nativealign_workloads.commit import Json
from nativealign_workloads.context import Context

Keys = NDArray[Any]
Edges = NDArray[np.uint32]
Places = NDArray[np.int64]

PARTITION_BYTES = 64 << 20
"""Keys that group holds at the same time."""

BLOCK_BYTES = 32 << 20
"""Keys that sign holds at the same time."""

COMPARED_BYTES = 16 << 20
"""Sketches that are compared at once."""

NEIGHBOURS = 16
"""Documents of a bucket that each one is compared with, besides the first."""


def layout(sketch_bytes: int) -> np.dtype[Any]:
    """One key. rank: the first 64 bits of the document's id; document: its ordinal."""
    return np.dtype([("key", "<u8"), ("rank", "<u8"), ("document", "<u4"), ("sketch", "u1", (sketch_bytes,))])


def partitions(documents: int, bytes_per_document: int, shards: int) -> int:
    """How many partitions all keys are cut into: a multiple of `shards`, each of about PARTITION_BYTES at most."""
    return shards * max(1, math.ceil(documents * bytes_per_document / (shards * PARTITION_BYTES)))


class KeyWriter:
    """A shard's keys, sorted by partition, through a file of sorted runs. Memory: BLOCK_BYTES, or one partition of the shard."""

    def __init__(self, path: Path, sketch_bytes: int, count: int) -> None:
        """`count`: number of partitions."""
        self._layout, self._count = layout(sketch_bytes), count
        self.path, self._runs_path = path, path.with_suffix(".runs")
        self._runs_path.write_bytes(b"")
        self._pending: list[Keys] = []
        self._bounds: list[NDArray[np.int64]] = []
        """Where each partition begins in each run, and the run's end; rows of the file."""
        self._rows = 0

    def add(self, key: NDArray[np.uint64], rank: NDArray[np.uint64], document: Edges, sketch: NDArray[np.uint8]) -> None:
        """Keys with their documents, shapes (n,), (n,), (n,) and (n, sketch_bytes)."""
        keys = np.empty(len(key), self._layout)
        keys["key"], keys["rank"], keys["document"], keys["sketch"] = key, rank, document, sketch
        self._pending.append(keys)
        if sum(block.nbytes for block in self._pending) >= BLOCK_BYTES:
            self._flush()

    def finish(self) -> list[int]:
        """Writes the file; returns where each partition begins in it, in rows, and the end."""
        self._flush()
        sizes, width = np.zeros(self._count, np.int64), self._layout.itemsize
        with self.path.open("wb") as file, self._runs_path.open("rb") as runs:
            for partition in range(self._count):
                for bounds in self._bounds:
                    first, end = bounds[partition : partition + 2].tolist()
                    runs.seek(first * width)
                    file.write(runs.read((end - first) * width))
                    sizes[partition] += end - first
        self._runs_path.unlink()
        return [0, *np.cumsum(sizes).tolist()]

    def _flush(self) -> None:
        if not self._pending:
            return
        keys = np.concatenate(self._pending)
        self._pending = []
        partition = keys["key"] % np.uint64(self._count)
        order = np.argsort(partition, kind="stable")
        self._bounds.append(self._rows + np.searchsorted(partition[order], np.arange(self._count + 1)))
        self._rows += len(keys)
        with self._runs_path.open("ab") as file:
            file.write(keys[order].tobytes())


def read_array(context: Context, record: Json, part: str, dtype: np.dtype[Any], first: int, end: int) -> NDArray[Any]:
    """Rows `first` to `end` of a binary part that a shard's record names."""
    with context.store.open(record["parts"][part]["key"]) as stream:
        stream.seek(first * dtype.itemsize)
        return np.frombuffer(stream.read((end - first) * dtype.itemsize), dtype)


def links(keys: Keys, agreement: float) -> Edges:
    """Pairs of documents of the same key whose sketches agree, shape (n, 2).

    By rank, each document is compared with the first of its bucket and with the NEIGHBOURS after it: with all in a bucket of up to
    NEIGHBOURS + 1. Two that both agree with the first are linked by that. agreement: share of the sketch's bits that are equal, at
    least.
    """
    order = np.lexsort((keys["rank"], keys["key"]))
    key, place = keys["key"][order], np.arange(len(order))
    opens = np.concatenate([np.ones(min(1, len(key)), bool), key[1:] != key[:-1]])
    firsts = np.maximum.accumulate(np.where(opens, place, 0))
    as_first = _agree(keys, order[firsts], order, agreement)
    linked = as_first & ~opens
    found = [_pairs(keys, order[firsts[linked]], order[linked])]
    for distance in range(1, NEIGHBOURS + 1):
        same = key[distance:] == key[:-distance]
        if not same.any():
            break
        unlinked = same & ~(as_first[distance:] & as_first[:-distance])
        left, right = order[:-distance][unlinked], order[distance:][unlinked]
        agree = _agree(keys, left, right, agreement)
        found.append(_pairs(keys, left[agree], right[agree]))
    pairs = np.unique(np.concatenate(found))
    return np.stack([pairs >> 32, pairs & 0xFFFFFFFF], axis=1).astype(np.uint32)


def _pairs(keys: Keys, left: Places, right: Places) -> NDArray[np.uint64]:
    """The documents of pairs of places, each pair as one number: the left one in its upper half."""
    numbers: NDArray[np.uint64] = keys["document"].astype(np.uint64)
    return (numbers[left] << np.uint64(32)) | numbers[right]


def _agree(keys: Keys, left: Places, right: Places, agreement: float) -> NDArray[np.bool_]:
    """Of pairs of places, whether the sketches agree."""
    sketch = keys["sketch"]
    most = np.floor((1 - agreement) * 8 * sketch.shape[1] + 1e-9)
    size = max(1, COMPARED_BYTES // sketch.shape[1])
    found = [np.empty(0, bool)]
    for start in range(0, len(left), size):
        differing = sketch[left[start : start + size]] ^ sketch[right[start : start + size]]
        found.append(np.bitwise_count(differing).sum(axis=1, dtype=np.int64) <= most)
    return np.concatenate(found)
