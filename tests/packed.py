"""Rows packed in memory, for tests of what is read from shard files otherwise."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from nativealign_workloads.training.packing import Shard, ShardWriter
from nativealign_workloads.training.sft import Pair, write_pairs


def pack(documents: Iterable[Sequence[int]], sequence_length: int, silent: int = 0) -> Shard:
    """Documents whose first `silent` tokens carry no loss, as written to a shard file and read from it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard"
        with ShardWriter(path) as writer:
            for document in documents:
                writer.add(document, silent)
        return Shard.open(path, sequence_length)


def pack_pairs(pairs: Iterable[Pair], sequence_length: int, pad_id: int = 0) -> Shard:
    """Pairs as train-worker packs them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard"
        with ShardWriter(path) as writer:
            write_pairs(pairs, sequence_length, pad_id, writer)
        return Shard.open(path, sequence_length)
