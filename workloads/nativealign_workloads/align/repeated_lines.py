"""Lines that many documents of a site have: the first phases of clean, where the spec asks for them.

    lines   each shard: hashes of the different lines of each document, by the partition that will count them
    count   each partition: the hashes that enough documents have

A line is hashed with its site, as a folded key. Documents whose longest lines are the same count once: the lines of an article that
a site has many times are no furniture, and dedup will find the copies. What the phases hold does not grow with the corpus; filter
holds 8 bytes for each repeated line.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from urllib.parse import urlsplit

import numpy as np
import xxhash
from numpy.typing import NDArray

from nativealign_api.align import Clean, RepeatedLines
from nativealign_api.common import Corpus
from nativealign_workloads.align.keys import KeyWriter, layout, read_array
from nativealign_workloads.commit import Json, ShardCommit, shard_records
from nativealign_workloads.context import Context
from nativealign_workloads.documents import corpus_documents
from nativealign_workloads.records import BadRecord
from nativealign_workloads.text.fold import key

U64 = NDArray[np.uint64]
LONGEST_LINE = 400
"""Characters; longer lines are paragraphs, which dedup is for."""
PARTITIONS = 8
"""Of each shard: keys of one are held in memory."""
BATCH_LINES = 1 << 20
"""Hashes that are written together."""
LONGEST_LINES = 4
"""Lines by which a document is told from its copies, of short ones half of them: pages put lines of their own around each."""
_NO_SKETCH = 0


def site(row: Json) -> str:
    """The host of a document's address; its corpus where it has none."""
    try:
        host = urlsplit(row.get("url", "")).hostname
    except ValueError:  # no address at all
        host = None
    return host or row["corpus"]


def line_hash(site: str, line: str) -> int:
    """64 bits; equal for lines of a site that read the same after folding. 0 for what is never counted."""
    line_key = key(line) if len(line) <= LONGEST_LINE else ""
    return xxhash.xxh3_64_intdigest(f"{site}\0{line_key}") if line_key else 0


def lines(context: Context) -> Json:
    """Phase `lines`: one shard."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    writer = KeyWriter(context.scratch / "lines", _NO_SKETCH, PARTITIONS * context.job.indexes)
    context.progress.begin(0, "documents")
    found = _document_lines(context)
    while batch := list(islice(found, BATCH_LINES)):
        hashes, documents = np.array(batch, np.uint64).T
        writer.add(hashes, documents, np.zeros(len(hashes), np.uint32), np.empty((len(hashes), _NO_SKETCH), np.uint8))
    offsets = writer.finish()
    shard.file("lines.bin", writer.path, offsets[-1])
    shard.commit(offsets=offsets)
    return {"counts": {"lines": offsets[-1]}}


def longest_lines(text: str) -> int:
    """A hash of a document's longest lines, as folded."""
    lines = text.split("\n")
    longest = sorted(lines, key=lambda line: (-len(line), line))[: min(LONGEST_LINES, (len(lines) + 1) // 2)]
    return xxhash.xxh3_64_intdigest("\n".join(map(key, longest)))


def _document_lines(context: Context) -> Iterator[tuple[int, int]]:
    """Of each document its different lines, each with what tells the document from others."""
    corpora = context.job.require("corpora", list[Corpus])
    for row, found in corpus_documents(context, corpora, context.job.inputs["corpora"], context.index):
        if not isinstance(found, BadRecord):
            where, document = site(row), longest_lines(found.text)
            yield from ((line, document) for line in {line_hash(where, line) for line in found.text.split("\n")} - {0})
        context.progress.advance()


def count(context: Context) -> Json:
    """Phase `count`: the partitions of one index."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    settings = context.job.require("clean", Clean).repeated_lines or RepeatedLines()
    records = shard_records(context, "lines", context.job.indexes)
    context.progress.begin(PARTITIONS, "partitions")
    repeated = [np.empty(0, np.uint64)]
    for partition in range(context.index * PARTITIONS, (context.index + 1) * PARTITIONS):
        context.check_stop()
        repeated.append(_repeated(context, records, partition, settings.min_documents))
        context.progress.advance()
    path = context.scratch / "repeated"
    found = np.concatenate(repeated)
    path.write_bytes(found.tobytes())
    shard.file("repeated.bin", path, len(found))
    shard.commit()
    return {"counts": {"repeated": len(found)}}


def _repeated(context: Context, records: list[Json], partition: int, min_documents: int) -> U64:
    """Hashes of a partition that enough documents have."""
    bounds = [record["facts"]["offsets"][partition : partition + 2] for record in records]
    dtype = layout(_NO_SKETCH)
    parts = [read_array(context, record, "lines.bin", dtype, *places) for record, places in zip(records, bounds, strict=True)]
    keys = np.concatenate(parts)
    pairs = keys[np.lexsort((keys["rank"], keys["key"]))]
    first = np.ones(len(pairs), bool)
    first[1:] = (pairs["key"][1:] != pairs["key"][:-1]) | (pairs["rank"][1:] != pairs["rank"][:-1])
    hashes, counts = np.unique(pairs["key"][first], return_counts=True)
    return hashes[counts >= min_documents]


def repeated_finder(context: Context) -> Callable[[Json], Callable[[str], bool]] | None:
    """For a document's row, what says whether a line is repeated over its site; None where the spec does not ask."""
    if context.job.require("clean", Clean).repeated_lines is None:
        return None
    parts = [record["parts"]["repeated.bin"] for record in shard_records(context, "count", context.job.indexes)]
    known = np.sort(np.concatenate([np.frombuffer(context.store.read(part["key"]), np.uint64) for part in parts]))

    def is_repeated(where: str, line: str) -> bool:
        value = line_hash(where, line)
        place = int(np.searchsorted(known, np.uint64(value)))
        return place < len(known) and int(known[place]) == value

    return lambda row: partial(is_repeated, site(row))
