"""dedup: keep one document of each cluster of equal or nearly equal ones, and draw the held-out set by cluster.

    sign    each shard: keys and signatures of its documents, sorted by the partition that will compare them
    group   each partition: which documents are linked, by equal key or by a band and a verified signature
    link    one pod: clusters, the document that stands for each, the held-out draw
    filter  each shard: kept, held out, or a duplicate of which document

A document is an ordinal here: shard * 2**32 + row. Within a bucket every document is compared with the one of the smallest id only:
two that resemble each other but not that one are linked only where they meet in another bucket. Ids, unlike ordinals, do not depend
on how the corpus is cut, so neither does what is kept.
"""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nativealign_api.align import Dedup, HeldOut
from nativealign_api.vocabulary import Outcome
from nativealign_workloads.align import clusters
from nativealign_workloads.align.signatures import bands, exact_key, signatures, similarity
from nativealign_workloads.commit import Json, ShardCommit, commit_step, manifest, record_rows, shard_records, step_rows
from nativealign_workloads.context import Context
from nativealign_workloads.ledger import Tally
from nativealign_workloads.text.fold import words

BATCH = 256
"""Documents whose signatures are computed at once."""

BLOCK = 4096
"""Signatures that are compared at once."""

OPEN_FILES = 128
"""Shards' signature files that are open at the same time."""

KEY = np.dtype([("kind", "<u2"), ("key", "<u8", 2), ("rank", "<u8"), ("ordinal", "<u8")])
"""One key of a document. kind 0: its exact key; kind b + 1: its band b. rank: the first 64 bits of its id."""


def sign(context: Context) -> Json:
    """Phase `sign`: one shard."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    settings = context.job.require("dedup", Dedup)
    upstream = manifest(context.store, context.job.inputs["clean"])
    order = {corpus["name"]: number for number, corpus in enumerate(upstream["parameters"]["corpora"])}
    context.progress.begin(_out(upstream["shards"][context.index]), "documents")
    files = {name: context.scratch / name for name in ("documents", "signatures", "keys")}
    count, keys = 0, [np.empty(0, KEY)]
    with files["documents"].open("wb") as documents, files["signatures"].open("wb") as sketches:
        for rows in _batches(step_rows(context.store, context.job.inputs["clean"], "documents", [context.index])):
            context.check_stop()
            tokens = [words(row["text"]) for row in rows]
            ordinals = clusters.ordinals(context.index, count, len(rows))
            documents.write(_describe(rows, tokens, ordinals, order).tobytes())
            matrix = signatures(tokens, settings.fuzzy) if settings.mode == "Fuzzy" else np.empty((len(rows), 0), np.uint32)
            sketches.write(matrix.tobytes())
            ranks = np.array([int(row["id"][:16], 16) for row in rows], np.uint64)
            keys.append(_keys(tokens, matrix, ranks, ordinals, settings))
            count += len(rows)
            context.progress.advance(len(rows))
    offsets = _write_partitions(files["keys"], np.concatenate(keys), len(upstream["shards"]))
    for name, path in files.items():
        shard.file(f"{name}.bin", path, count)
    shard.commit(offsets=offsets)
    return {"counts": {"signed": count}}


def _batches(rows: Iterator[Json]) -> Iterator[list[Json]]:
    batch: list[Json] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _describe(rows: list[Json], tokens: list[list[str]], ordinals: NDArray[np.uint64], order: dict[str, int]) -> NDArray[Any]:
    described = np.empty(len(rows), clusters.DOCUMENT)
    described["ordinal"] = ordinals
    described["corpus"] = [order[row["corpus"]] for row in rows]
    described["words"] = list(map(len, tokens))
    described["id"] = [row["id"] for row in rows]
    return described


def _keys(
    tokens: list[list[str]], matrix: NDArray[np.uint32], ranks: NDArray[np.uint64], ordinals: NDArray[np.uint64], settings: Dedup
) -> NDArray[Any]:
    exact = np.zeros(len(tokens), KEY)
    exact["key"] = np.frombuffer(b"".join(map(exact_key, tokens)), "<u8").reshape(-1, 2)
    exact["rank"], exact["ordinal"] = ranks, ordinals
    if settings.mode == "Exact":
        return exact
    long_enough = np.array([len(text) >= settings.fuzzy.shingle_words for text in tokens])
    hashes = bands(matrix[long_enough], settings.fuzzy)
    near = np.zeros(hashes.size, KEY)
    near["kind"] = np.tile(np.arange(1, settings.fuzzy.bands + 1), len(hashes))
    near["key"][:, 0] = hashes.ravel()
    near["rank"] = np.repeat(ranks[long_enough], settings.fuzzy.bands)
    near["ordinal"] = np.repeat(ordinals[long_enough], settings.fuzzy.bands)
    return np.concatenate([exact, near])


def _write_partitions(path: Path, keys: NDArray[Any], partitions: int) -> list[int]:
    """Writes keys by partition, in order; returns where each partition begins, in rows, and the end."""
    partition = keys["key"][:, 0] % np.uint64(partitions)
    order = np.lexsort((*_order(keys), partition))
    path.write_bytes(keys[order].tobytes())
    bounds = np.searchsorted(partition[order], np.arange(partitions + 1))
    return [int(bound) for bound in bounds]


def _order(keys: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Columns for lexsort: by kind, key, rank, ordinal."""
    return keys["ordinal"], keys["rank"], keys["key"][:, 1], keys["key"][:, 0], keys["kind"]


def group(context: Context) -> Json:
    """Phase `group`: one partition of the keys of all shards."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    settings = context.job.require("dedup", Dedup)
    records = shard_records(context, "sign", context.job.indexes)
    context.progress.begin(len(records), "shards")
    keys = np.concatenate([_partition(context, record) for record in records])
    keys = keys[np.lexsort(_order(keys))]
    sketches = _Sketches(context, records, settings.fuzzy.bands * settings.fuzzy.rows)
    found = [edges for bucket in _buckets(keys) for edges in _links(bucket, sketches, settings)]
    edges = np.unique(np.array(found, np.uint64).reshape(-1, 2), axis=0)
    path = context.scratch / "edges"
    path.write_bytes(edges.tobytes())
    shard.file("edges.bin", path, len(edges))
    shard.commit()
    return {"counts": {"keys": len(keys), "links": len(edges)}}


def _partition(context: Context, record: Json) -> NDArray[Any]:
    first, end = record["facts"]["offsets"][context.index : context.index + 2]
    context.check_stop()
    with context.store.open(record["parts"]["keys.bin"]["key"]) as stream:
        stream.seek(first * KEY.itemsize)
        data = stream.read((end - first) * KEY.itemsize)
    context.progress.advance()
    return np.frombuffer(data, KEY)


def _buckets(keys: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Runs of at least two rows with the same kind and key."""
    same = (keys["kind"][1:] == keys["kind"][:-1]) & (keys["key"][1:] == keys["key"][:-1]).all(axis=1)
    borders = np.concatenate([[0], np.flatnonzero(~same) + 1, [len(keys)]])
    for run in np.flatnonzero(np.diff(borders) > 1):
        yield keys[borders[run] : borders[run + 1]]


def _links(bucket: NDArray[Any], sketches: "_Sketches", settings: Dedup) -> Iterator[tuple[int, int]]:
    first, others = int(bucket["ordinal"][0]), bucket["ordinal"][1:]
    for start in range(0, len(others), BLOCK):
        block = others[start : start + BLOCK]
        if bucket["kind"][0]:
            near = similarity(sketches.row(first), np.stack([sketches.row(int(other)) for other in block]))
            block = block[near >= settings.fuzzy.similarity]
        for other in block:
            yield first, int(other)


class _Sketches:
    """Signatures by ordinal, read one by one from the shards' files, so that memory does not grow with the corpus."""

    def __init__(self, context: Context, records: list[Json], permutations: int) -> None:
        self._context, self._records, self._size = context, records, permutations * 4
        self._files: OrderedDict[int, Any] = OrderedDict()

    def row(self, ordinal: int) -> NDArray[np.uint32]:
        shard, row = clusters.split(ordinal)
        file = self._files.get(shard) or self._open(shard)
        self._files.move_to_end(shard)
        file.seek(row * self._size)
        return np.frombuffer(file.read(self._size), np.uint32)

    def _open(self, shard: int) -> Any:
        if len(self._files) >= OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        path = self._context.scratch / f"signatures-{shard}"
        if not path.is_file():
            self._context.store.download(self._records[shard]["parts"]["signatures.bin"]["key"], path)
        self._files[shard] = path.open("rb")
        return self._files[shard]


def link(context: Context) -> Json:
    """Phase `link`: one pod; memory grows with the linked documents and the held-out set, not with the corpus."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    signed = manifest(context.store, context.job.inputs["clean"])["shards"]
    records = shard_records(context, "sign", len(signed))
    groups = shard_records(context, "group", len(signed))
    context.progress.begin(3, "passes")
    edges = np.concatenate([_read(context, record, "edges.bin", np.dtype("<u8")).reshape(-1, 2) for record in groups])
    linked = np.unique(edges)
    described = np.concatenate([rows[np.isin(rows["ordinal"], linked)] for rows in _described(context, records)])
    context.progress.advance()
    stands_for = clusters.representatives(edges, described)
    context.progress.advance()
    duplicates = np.array(sorted(stands_for), np.uint64)
    held_out = clusters.draw(_described(context, records), duplicates, context.job.require("heldOut", HeldOut))
    names = {int(row["ordinal"]): row["id"].decode() for row in described}
    for ordinal in duplicates.tolist():
        number, row = clusters.split(ordinal)
        shard.part(f"duplicates-{number:05d}").add({"row": row, "of": names[stands_for[ordinal]]})
    for ordinal in sorted(held_out.tolist()):
        number, row = clusters.split(ordinal)
        shard.part(f"held-out-{number:05d}").add({"row": row})
    sizes = clusters.sizes(stands_for)
    shard.commit(duplicates=len(duplicates), heldOut=len(held_out), clusters=len(set(stands_for.values())), clusterSizes=sizes)
    return {"counts": {"duplicates": len(duplicates), "heldOut": len(held_out)}}


def _read(context: Context, record: Json, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.frombuffer(context.store.read(record["parts"][name]["key"]), dtype)


def _described(context: Context, records: list[Json]) -> Iterator[NDArray[Any]]:
    """What sign noted of the documents, a block at a time."""
    yield np.empty(0, clusters.DOCUMENT)
    block = clusters.DOCUMENT.itemsize * 65536
    for record in records:
        context.check_stop()
        with context.store.open(record["parts"]["documents.bin"]["key"]) as stream:
            while data := stream.read(block):
                yield np.frombuffer(data, clusters.DOCUMENT)


def keep(context: Context) -> Json:
    """Phase `filter`: one shard."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    (linked,) = shard_records(context, "link", 1)
    duplicates = {row["row"]: row["of"] for row in record_rows(context.store, linked, f"duplicates-{context.index:05d}")}
    held_out = {row["row"] for row in record_rows(context.store, linked, f"held-out-{context.index:05d}")}
    tally = Tally()
    upstream = manifest(context.store, context.job.inputs["clean"])
    context.progress.begin(_out(upstream["shards"][context.index]), "documents")
    for number, row in enumerate(record_rows(context.store, upstream["shards"][context.index], "documents")):
        context.check_stop()
        if number in duplicates:
            tally.add(row["id"], Outcome.DUPLICATE)
            identity = {name: row[name] for name in ("id", "corpus", "key", "ordinal")}
            shard.part("removed").add(identity | {"outcome": Outcome.DUPLICATE, "of": duplicates[number]})
        elif number in held_out:
            tally.add(row["id"], Outcome.HELD_OUT)
            shard.part("held-out").add(row)
        else:
            tally.add(row["id"], Outcome.OUT)
            shard.part("documents").add(row)
        context.progress.advance()
    shard.commit(tally)
    return {"counts": tally.counts()}


def commit(context: Context) -> Json:
    """Phase `commit`."""
    upstream = manifest(context.store, context.job.inputs["clean"])
    (linked,) = shard_records(context, "link", 1)
    records = shard_records(context, "filter", len(upstream["shards"]))
    return commit_step(context, records, expected=Tally.load(upstream["tally"]), **linked["facts"])


def _out(shard: Json) -> int:
    count: int = shard["tally"]["outcomes"].get("out", {"count": 0})["count"]
    return count
