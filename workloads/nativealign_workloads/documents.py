"""Documents of a shard, from corpora or from an AlignJob. Used by clean, rewrite, assess and tokenize."""

from collections.abc import Iterator
from functools import partial

from nativealign_api.common import Corpus
from nativealign_workloads.commit import Json, manifest, read_json, rows_between, run_of
from nativealign_workloads.context import Context
from nativealign_workloads.errors import NoInputError
from nativealign_workloads.inspection.corpora import fields_of, shard_key
from nativealign_workloads.ledger import document_id
from nativealign_workloads.records import BadRecord, Record, read_records
from nativealign_workloads.sources import open_source

COLUMNS = {"Raw": ("raw", "text"), "Cleaned": ("text",), "Aligned": ("rewritten",)}
"""Of a view; the first that a row has."""


def corpus_documents(context: Context, corpora: list[Corpus], prefix: str, shard: int) -> Iterator[tuple[Json, Record | BadRecord]]:
    """Every record of one pinned shard with its identity: id, corpus, key, ordinal; userId, license and url where it has them."""
    by_name = {corpus.name: corpus for corpus in corpora}
    for unit in read_json(context.store, shard_key(prefix, shard))["units"]:
        corpus = by_name[unit["corpus"]]
        for record in _records(context, corpus, unit):
            context.check_stop()
            identifier = document_id(corpus.name, unit["key"], record.ordinal)
            row = {"id": identifier, "corpus": corpus.name, "key": unit["key"], "ordinal": record.ordinal}
            yield row | (_attributes(record, corpus) if isinstance(record, Record) else {}), record


def _attributes(record: Record, corpus: Corpus) -> Json:
    found = {"userId": record.user_id, "license": record.license or corpus.license, "url": record.url}
    return {name: value for name, value in found.items() if value is not None}


def _records(context: Context, corpus: Corpus, unit: Json) -> Iterator[Record | BadRecord]:
    source = open_source(context, corpus.uri)
    info = source.store.stat(f"{source.folder}{unit['key']}")
    if info is None or info.etag != unit["etag"]:
        problem = f"{corpus.uri}: {unit['key']} is not what it was when the job started"
        raise NoInputError("InputChanged", problem, "create a new job")
    read = partial(read_records, format=corpus.format, fields=fields_of(corpus), stride=tuple(unit["stride"]))
    with source.store.open(f"{source.folder}{unit['key']}") as stream:
        yield from read(stream, unit["key"])


def documents_left(context: Context, step: str) -> Iterator[Json]:
    """The documents of this shard: a run of all that a step has left, whatever its shards were."""
    upstream = manifest(context.store, context.job.inputs[step])["shards"]
    first, end = run_of(upstream, "documents", context.index, context.job.indexes)
    context.progress.begin(end - first, "documents")
    return rows_between(context.store, upstream, "documents", first, end)


def view_documents(context: Context, prefix: str, view: str, shard: int, shards: int) -> Iterator[tuple[str, str]]:
    """(id, text) of one of so many shards of an AlignJob: `Raw` as read, `Cleaned` after clean, `Aligned` after rewrite."""
    records = manifest(context.store, prefix)["shards"]
    for row in rows_between(context.store, records, "documents", *run_of(records, "documents", shard, shards)):
        context.check_stop()
        yield row["id"], next(row[column] for column in COLUMNS[view] if column in row)
