"""`python -m nativealign_workloads.explain [--store LOCATION] STATUS.json DOCUMENT`: what happened to one document, and why.

DOCUMENT is CORPUS/KEY:ORDINAL, which says in which shard it is, so that a few objects of each step are read; or its id, or the
user's own id, for which the documents of all shards are looked through.
"""

import argparse
import sys
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from nativealign_api.common import Corpus
from nativealign_api.vocabulary import Outcome
from nativealign_workloads.commit import Json, count_rows, record_rows
from nativealign_workloads.errors import NoInputError, StepError, UsageError
from nativealign_workloads.inspection.corpora import plan_shards
from nativealign_workloads.ledger import Tally, document_id
from nativealign_workloads.report.gather import Job, collect, open_job_store, read_status
from nativealign_workloads.sources import SourceFile
from nativealign_workloads.store import ObjectStore

PARTS = ("documents", "removed", "held-out")
OUTCOMES = {Outcome.FILTERED: "filtered", Outcome.QUARANTINED: "set aside", Outcome.DUPLICATE: "a duplicate"}


def explain(store: ObjectStore, job: Job, document: str) -> Iterator[str]:
    """Lines to read, step by step. Raises NoInputError where the job has no such document, or is not so far."""
    if "clean" not in job.manifests:
        raise NoInputError("NotCleaned", f"{job.reference} has not cleaned its corpora yet", "wait, or see `nativealign status`")
    shard, row = _cleaned(store, job, document)
    yield f"{row['id']}: {row['corpus']}/{row['key']}:{row['ordinal']}" + (f", your id {row['userId']}" if "userId" in row else "")
    yield f"clean: {_fate(row)}" + (f"; {', '.join(row['operations'])}" if row.get("operations") else "")
    for step, tell in (("dedup", _dedup), ("annotate", _annotate), ("rewrite", _rewrite)):
        if step in job.manifests:
            yield from (f"{step}: {line}" for line in tell(store, _record(store, job, step, shard, row["id"]), row["id"]))


def _cleaned(store: ObjectStore, job: Job, document: str) -> tuple[int, Json]:
    """(shard, row) of the document after clean."""
    shards = job.manifests["clean"]["shards"]
    place, _, ordinal = document.rpartition(":")
    corpus, _, key = place.partition("/")
    if key and ordinal.isdecimal():
        number = _shard_of(job, corpus, key, int(ordinal))
        wanted, among = document_id(corpus, key, int(ordinal)), [number] if number is not None else []
    else:
        wanted, among = document, list(range(len(shards)))
    for shard in among:
        for part in PARTS[:2]:
            for row in record_rows(store, shards[shard], part):
                if wanted in (row["id"], row.get("userId")):
                    return shard, row
    raise NoInputError("NoSuchDocument", f"{job.reference} has read no document {document}", "CORPUS/KEY:ORDINAL, or an id")


def _shard_of(job: Job, corpus: str, key: str, ordinal: int) -> int | None:
    given = [Corpus.model_validate(item) for item in job.spec["corpora"]]
    files = [(name, SourceFile(*facts)) for name, *facts in job.listing["files"]]
    listings = [[file for name, file in files if name == item.name] for item in given]
    for shard, units in enumerate(plan_shards(given, listings, job.listing["shards"])):
        for unit in units:
            offset, step = unit["stride"]
            if (unit["corpus"], unit["key"], ordinal % step) == (corpus, key, offset):
                return shard
    return None


def _record(store: ObjectStore, job: Job, step: str, shard: int, identifier: str) -> Json:
    """What the step recorded of the shard with the document; rewrite cuts what dedup has left into shards of its own."""
    records: list[Json] = job.manifests[step]["shards"]
    if step != "rewrite":
        return records[shard]
    upstream = job.manifests["dedup"]["shards"]
    ids = (row["id"] for row in record_rows(store, upstream[shard], "documents"))
    before = count_rows(upstream[:shard], "documents")
    place = next((place for place, other in enumerate(ids, before) if other == identifier), None)
    ends = list(accumulate(Tally.load(record["tally"]).read.count for record in records))
    return {"parts": {}} if place is None else records[bisect_right(ends, place)]


def _found(store: ObjectStore, shard: Json, identifier: str) -> tuple[str, Json]:
    """(part, row) of a document in a step's shard; ("", {}) where it was not handed over."""
    for part in PARTS:
        for row in record_rows(store, shard, part):
            if row["id"] == identifier:
                return part, row
    return "", {}


def _fate(row: Json) -> str:
    if "outcome" not in row:
        return "kept"
    reason = ": ".join(str(row[name]) for name in ("reason", "detail") if row.get(name))
    of = f" of {row['of']}" if "of" in row else ""
    return f"{OUTCOMES[row['outcome']]}{of}" + (f", {reason}" if reason else "")


def _dedup(store: ObjectStore, shard: Json, identifier: str) -> Iterator[str]:
    part, row = _found(store, shard, identifier)
    if part:
        yield "held out: no step trains on it" if part == "held-out" else _fate(row)


def _annotate(store: ObjectStore, shard: Json, identifier: str) -> Iterator[str]:
    for row in record_rows(store, shard, "pairs"):
        if row["id"] == identifier:
            verdict = "a pair to train on" if row["accepted"] else f"no pair: {', '.join(row['guards'])}"
            yield f"chunk {row['chunk']} by {row['expert']}: {verdict}" + (", unchanged" if row["unchanged"] else "")


def _rewrite(store: ObjectStore, shard: Json, identifier: str) -> Iterator[str]:
    part, row = _found(store, shard, identifier)
    if part == "removed":
        yield _fate(row)
    for number, chunk in enumerate(row.get("chunks", [])):
        guards = [f"{v['guard']} {v['value']:g} (limit {v['limit']:g}) {v['action']}" for v in chunk["guards"]]
        yield f"chunk {number} {chunk['state']} by {chunk['by']}, {chunk['tries']} tries" + (
            f": {', '.join(guards)}" if guards else ""
        )


def main(arguments: list[str]) -> int:
    """Prints the story; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nativealign_workloads.explain", description="What happened to a document.")
    parser.add_argument("--store", help="folder or s3://bucket/prefix; default the store that the job names")
    parser.add_argument("status", type=Path, help="status.json of a run")
    parser.add_argument("document", help="CORPUS/KEY:ORDINAL, or an id")
    given = parser.parse_args(arguments)
    try:
        record = read_status(given.status)
        store = open_job_store(record, given.store)
        job = collect(record, store)
        if job.kind != "AlignJob":
            raise UsageError("NotAnAlignJob", f"{job.reference} reads no corpus by documents", "name an AlignJob")
        for line in explain(store, job, given.document):
            print(line)
    except StepError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
