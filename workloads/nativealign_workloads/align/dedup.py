"""dedup: keep one document of each cluster of equal or nearly equal ones, and draw the held-out set by cluster.

    sign    each shard: keys and sketches of its documents, by the partition that will compare them
    group   each partition: which documents are linked, by equal key and sketches that agree
    link    one pod: clusters, the document that stands for each, the held-out draw
    filter  each shard: kept, held out, or a duplicate of which document

A document is an ordinal here: the documents of the shards before it, and its row. In a large bucket a document is compared with the
one of the smallest id and with its neighbours by id only: two others that resemble each other, but none of those, are linked only
where they meet in another bucket. Ids, unlike ordinals, do not depend on how the corpus is cut, so neither does what is kept.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nativealign_api.align import Dedup, HeldOut
from nativealign_api.vocabulary import Outcome
from nativealign_workloads.align import clusters
from nativealign_workloads.align.keys import Keys, KeyWriter, layout, links, partitions, read_array
from nativealign_workloads.align.signatures import SKETCH_BITS, bands, exact_keys, least_agreement, sketches
from nativealign_workloads.commit import Json, ShardCommit, commit_step, manifest, record_rows, shard_records, step_rows
from nativealign_workloads.context import Context
from nativealign_workloads.errors import DataError
from nativealign_workloads.ledger import Tally
from nativealign_workloads.text.hashes import U64, Counts, run_hashes, word_hashes

BATCH = 256
"""Documents whose signatures are computed at once."""

EDGES = 1 << 20
"""Edges that are joined at once."""

EXACT_SKETCH = 8
"""Bytes that tell equal keys from equal texts: the other half of the text's hash."""

FATES = (Outcome.OUT, Outcome.DUPLICATE, Outcome.HELD_OUT)

DUPLICATE = np.dtype([("row", "<u4"), ("of", "<u8", (2,))])
"""A duplicate: its row in its shard, and the id of the document that stands for it."""


class _Corpus:
    """The documents that clean hands over, and how their keys are cut."""

    def __init__(self, context: Context) -> None:
        self.manifest = manifest(context.store, context.job.inputs["clean"])
        self.settings = context.job.require("dedup", Dedup)
        self.counts = [_out(shard) for shard in self.manifest["shards"]]
        self.documents = sum(self.counts)
        if self.documents > clusters.MOST_DOCUMENTS:
            raise DataError("TooManyDocuments", f"{self.documents} documents; dedup compares {clusters.MOST_DOCUMENTS} at most")
        self.sketches = {"exact": EXACT_SKETCH}
        """Kinds of keys, and the bytes of their sketches."""
        keys = [layout(EXACT_SKETCH).itemsize]
        if self.settings.mode == "Fuzzy":
            self.sketches["near"] = SKETCH_BITS // 8
            keys.append(layout(self.sketches["near"]).itemsize * self.settings.fuzzy.bands)
        self.partitions = partitions(self.documents, sum(keys), len(self.counts))

    def first(self, shard: int) -> int:
        """Ordinal of the shard's first document."""
        return sum(self.counts[:shard])

    def partitions_of(self, index: int) -> range:
        """The partitions that index `index` of group compares."""
        each = self.partitions // len(self.counts)
        return range(index * each, (index + 1) * each)


def sign(context: Context) -> Json:
    """Phase `sign`: one shard."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    corpus = _Corpus(context)
    order = {given["name"]: number for number, given in enumerate(corpus.manifest["parameters"]["corpora"])}
    context.progress.begin(corpus.counts[context.index], "documents")
    writers = {kind: KeyWriter(context.scratch / kind, size, corpus.partitions) for kind, size in corpus.sketches.items()}
    ordinal = corpus.first(context.index)
    described = context.scratch / "documents"
    with described.open("wb") as file:
        for rows in _batches(step_rows(context.store, context.job.inputs["clean"], "documents", [context.index])):
            context.check_stop()
            hashes, counts = word_hashes([row["text"] for row in rows])
            documents = _describe(rows, counts, order)
            file.write(documents.tobytes())
            _add_keys(writers, hashes, counts, documents["id"][:, 0], ordinal, corpus.settings)
            ordinal += len(rows)
            context.progress.advance(len(rows))
    offsets = {kind: writer.finish() for kind, writer in writers.items()}
    shard.file("documents.bin", described, corpus.counts[context.index])
    for kind, writer in writers.items():
        shard.file(f"{kind}.bin", writer.path, offsets[kind][-1])
    shard.commit(offsets=offsets)
    return {"counts": {"signed": corpus.counts[context.index]}}


def _batches(rows: Iterator[Json]) -> Iterator[list[Json]]:
    batch: list[Json] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _describe(rows: list[Json], words: Counts, order: dict[str, int]) -> NDArray[Any]:
    described = np.empty(len(rows), clusters.DOCUMENT)
    described["corpus"] = [order[row["corpus"]] for row in rows]
    described["words"] = words
    described["id"] = clusters.id_halves([row["id"] for row in rows])
    return described


def _add_keys(
    writers: dict[str, KeyWriter], hashes: U64, counts: Counts, ranks: NDArray[np.uint64], first: int, settings: Dedup
) -> None:
    ordinals = np.arange(first, first + len(counts), dtype=np.uint32)
    exact = exact_keys(hashes, counts)
    writers["exact"].add(exact[:, 0], ranks, ordinals, exact[:, 1:].copy().view(np.uint8))
    if settings.mode == "Exact":
        return
    fuzzy = settings.fuzzy
    shingles, runs = run_hashes(hashes, counts, fuzzy.shingle_words)
    repeated = np.repeat(np.flatnonzero(runs), fuzzy.bands)
    sketch = np.repeat(sketches(shingles, runs, fuzzy), fuzzy.bands, axis=0)
    writers["near"].add(bands(shingles, runs, fuzzy).ravel(), ranks[repeated], ordinals[repeated], sketch)


def group(context: Context) -> Json:
    """Phase `group`: the partitions of one index, one after another."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    corpus = _Corpus(context)
    least = {"exact": 1.0, "near": least_agreement(corpus.settings.fuzzy.similarity)}
    records = shard_records(context, "sign", context.job.indexes)
    mine = corpus.partitions_of(context.index)
    context.progress.begin(len(mine) * len(corpus.sketches), "partitions")
    path, count, compared = context.scratch / "edges", 0, 0
    with path.open("wb") as file:
        for partition in mine:
            for kind, size in corpus.sketches.items():
                keys = np.concatenate([_partition(context, record, kind, partition, layout(size)) for record in records])
                edges = links(keys, least[kind])
                file.write(edges.tobytes())
                count, compared = count + len(edges), compared + len(keys)
                context.progress.advance()
    shard.file("edges.bin", path, count)
    shard.commit()
    return {"counts": {"keys": compared, "links": count}}


def _partition(context: Context, record: Json, kind: str, partition: int, keys: np.dtype[Any]) -> Keys:
    context.check_stop()
    first, end = record["facts"]["offsets"][kind][partition : partition + 2]
    return read_array(context, record, f"{kind}.bin", keys, first, end) if end > first else np.empty(0, keys)


def link(context: Context) -> Json:
    """Phase `link`: one pod. Memory: blocks, and 8 bytes for each cluster."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    corpus = _Corpus(context)
    signed = shard_records(context, "sign", len(corpus.counts))
    context.progress.begin(3 * len(signed), "shards")
    found = clusters.Clusters(corpus.documents, context.scratch)
    for record in shard_records(context, "group", len(corpus.counts)):
        for edges in _blocks(context, record, "edges.bin", np.dtype(("<u4", (2,))), EDGES):
            found.join(edges)
        context.progress.advance()
    found.close()
    for _, ordinal, described in _described(context, corpus, signed):
        found.compare(ordinal, described)
    facts = _write_fates(shard, corpus, found, _described(context, corpus, signed))
    shard.commit(**facts, clusters=found.count, clusterSizes=found.sizes())
    return {"counts": {name: facts[name] for name in ("duplicates", "heldOut")}}


def _write_fates(
    shard: ShardCommit, corpus: _Corpus, found: clusters.Clusters, described: Iterator[tuple[int, int, NDArray[Any]]]
) -> Json:
    """Writes which documents are duplicates, and of which, and which are held out; both by shard."""
    scratch = shard.context.scratch
    draw = clusters.Draw(shard.context.job.require("heldOut", HeldOut), corpus.documents - found.duplicates)
    duplicates = [0] * len(corpus.counts)
    with (scratch / "duplicates").open("wb") as file:
        for number, ordinal, block in described:
            rows, of = found.stands_for(ordinal, len(block))
            fates = np.empty(len(rows), DUPLICATE)
            fates["row"], fates["of"] = rows + (ordinal - corpus.first(number)), of
            file.write(fates.tobytes())
            duplicates[number] += len(rows)
            stay = np.delete(np.arange(len(block)), rows)
            draw.add(stay + ordinal, block["id"][stay])
    drawn = draw.documents()
    held_out = np.diff(np.searchsorted(drawn, np.cumsum([0, *corpus.counts]))).tolist()
    firsts = np.repeat(np.cumsum([0, *corpus.counts[:-1]]), held_out)
    (scratch / "held-out").write_bytes((drawn - firsts).astype("<u4").tobytes())
    shard.file("duplicates.bin", scratch / "duplicates", sum(duplicates))
    shard.file("held-out.bin", scratch / "held-out", len(drawn))
    return {"duplicates": sum(duplicates), "heldOut": len(drawn), "byShard": {"duplicates": duplicates, "held-out": held_out}}


def _described(context: Context, corpus: _Corpus, signed: list[Json]) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """(shard, ordinal of the first, what sign noted) of the documents, a block at a time."""
    for number, record in enumerate(signed):
        ordinal = corpus.first(number)
        for block in _blocks(context, record, "documents.bin", clusters.DOCUMENT, clusters.BLOCK):
            yield number, ordinal, block
            ordinal += len(block)
        context.progress.advance()


def _blocks(context: Context, record: Json, part: str, dtype: np.dtype[Any], rows: int) -> Iterator[NDArray[Any]]:
    count = record["parts"][part]["rows"]
    for first in range(0, count, rows):
        context.check_stop()
        yield read_array(context, record, part, dtype, first, min(first + rows, count))


def keep(context: Context) -> Json:
    """Phase `filter`: one shard."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    corpus = _Corpus(context)
    (linked,) = shard_records(context, "link", 1)
    duplicates = _fates(context, linked, "duplicates", DUPLICATE)
    fates = np.zeros(corpus.counts[context.index], np.uint8)
    fates[duplicates["row"]] = FATES.index(Outcome.DUPLICATE)
    fates[_fates(context, linked, "held-out", np.dtype("<u4"))] = FATES.index(Outcome.HELD_OUT)
    stands_for = iter(duplicates["of"])
    tally = Tally()
    context.progress.begin(len(fates), "documents")
    rows = record_rows(context.store, corpus.manifest["shards"][context.index], "documents")
    for row, fate in zip(rows, fates.tolist(), strict=True):
        context.check_stop()
        outcome = FATES[fate]
        tally.add(row["id"], outcome)
        if outcome is Outcome.DUPLICATE:
            identity = {name: row[name] for name in ("id", "corpus", "key", "ordinal")}
            shard.part("removed").add(identity | {"outcome": outcome, "of": clusters.id_text(next(stands_for))})
        else:
            shard.part("held-out" if outcome is Outcome.HELD_OUT else "documents").add(row)
        context.progress.advance()
    shard.commit(tally)
    return {"counts": tally.counts()}


def _fates(context: Context, linked: Json, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """This shard's rows of a part that link wrote."""
    counts = linked["facts"]["byShard"][name]
    first = sum(counts[: context.index])
    return read_array(context, linked, f"{name}.bin", dtype, first, first + counts[context.index])


def commit(context: Context) -> Json:
    """Phase `commit`."""
    upstream = manifest(context.store, context.job.inputs["clean"])
    (linked,) = shard_records(context, "link", 1)
    records = shard_records(context, "filter", len(upstream["shards"]))
    facts = {name: value for name, value in linked["facts"].items() if name != "byShard"}
    return commit_step(context, records, expected=Tally.load(upstream["tally"]), **facts)


def _out(shard: Json) -> int:
    count: int = shard["tally"]["outcomes"].get("out", {"count": 0})["count"]
    return count
