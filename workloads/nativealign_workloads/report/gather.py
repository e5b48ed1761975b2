"""From status.json files and the store to `Job`: all records that a report stands on, and nothing else.

A manifest that is not in the store any more (removed by gc) is simply absent; the views say so.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nativealign_api.plan import input_prefix, step_prefix
from nativealign_api.status import JobStatus, StepStatus
from nativealign_api.vocabulary import ENV_STORE_CA
from nativealign_workloads.errors import NoInputError, UsageError
from nativealign_workloads.store import NotFound, ObjectStore, open_store

Json = dict[str, Any]

KINDS = ("AlignJob", "PretrainJob", "EvalJob")
"""In the order of a chain."""

ROLES = ("model", "baseline")
"""Shards of an EvalJob's evaluate step."""

EXAMPLES = 8
"""Answers of each benchmark that a report shows."""


@dataclass
class Answers:
    """What one model answered in one benchmark."""

    items: int = 0
    unusable: int = 0
    """Answers in which the protocol found none of the options, or that the judge gave no verdict on."""
    examples: list[Json] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """One job: its status, and the manifests of its committed steps."""

    kind: str
    name: str
    namespace: str
    uid: str
    spec: Json
    status: JobStatus
    manifests: dict[str, Json] = field(default_factory=dict)
    """By step."""
    listing: Json = field(default_factory=dict)
    """Files of an AlignJob's corpora."""
    conduct: Json = field(default_factory=dict)
    """The pinned code of conduct."""
    sources: dict[str, Json] = field(default_factory=dict)
    """Manifests of a PretrainJob's sources, by digest."""
    answers: dict[str, dict[str, Answers]] = field(default_factory=dict)
    """By role and benchmark."""

    @property
    def reference(self) -> str:
        return f"{self.kind}/{self.name}"

    def facts(self, step: str) -> Json:
        """What the step found; empty where it has no manifest."""
        facts: Json = self.manifests.get(step, {}).get("facts", {})
        return facts

    def step(self, name: str) -> StepStatus | None:
        return next((step for step in self.status.steps if step.name == name), None)


def load(path: Path, location: str | None) -> Job:
    """The job of a status file. `location`: where the store is; None for the one that the job's spec names.

    Raises NoInputError or UsageError for a file that is none, and the store's errors.
    """
    record = read_status(path)
    return collect(record, open_job_store(record, location))


def collect(record: Json, store: ObjectStore) -> Job:
    """The job of a status record, with what its store holds of it."""
    status = JobStatus.model_validate(record["status"])
    meta = record["metadata"]
    manifests = {step.name: found for step in status.steps if step.digest and (found := _manifest(store, step.name, step.digest))}
    sources = [source["digest"] for source in manifests.get("tokenize", {}).get("facts", {}).get("sources", [])]
    return Job(
        kind=record["kind"],
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        uid=meta.get("uid", ""),
        spec=record["spec"],
        status=status,
        manifests=manifests,
        listing=json.loads(_input(store, status.pinned.inputs.get("corpora"), "listing.json") or b"{}"),
        conduct=yaml.safe_load(_input(store, status.pinned.inputs.get("conduct"), "conduct.yaml") or b"{}"),
        sources={digest: found for digest in sources if (found := _manifest(store, "tokenize", digest))},
        answers=_answers(store, manifests.get("evaluate", {})),
    )


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """Along the chain: what others stand on comes first."""
    return sorted(jobs, key=lambda job: KINDS.index(job.kind))


def read_status(path: Path) -> Json:
    try:
        record: Json = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NoInputError("StatusMissing", f"cannot read {path}: {error.strerror}", "run the job first") from None
    except ValueError as error:
        raise UsageError("BadStatus", f"{path} is not JSON: {error}", "give the status.json of a run") from None
    if not isinstance(record, dict) or record.get("kind") not in KINDS or not {"metadata", "spec", "status"} <= record.keys():
        raise UsageError("BadStatus", f"{path} is no status of a {', '.join(KINDS)}", "give the status.json of a run")
    return record


def open_job_store(record: Json, location: str | None) -> ObjectStore:
    own = record["spec"].get("store") or record["status"].get("pinned", {}).get("store") or {}
    if location is None and not own:
        what = f"{record['kind']}/{record['metadata']['name']} names no store and has pinned none yet"
        raise UsageError("StoreMissing", what, "give --store; on a cluster, wait for its step inspect")
    uri = location or "/".join(filter(None, (f"s3://{own['bucket']}", own.get("prefix"))))
    bundle = os.environ.get(ENV_STORE_CA) if own.get("caBundle") else None
    return open_store(uri, endpoint=own.get("endpoint"), region=own.get("region"), ca_bundle=bundle, secrets_dir=None)


def _manifest(store: ObjectStore, step: str, digest: str) -> Json:
    """Empty where there is none."""
    value: Json = json.loads(_bytes(store, f"{step_prefix(step, digest)}/manifest.json") or b"{}")
    return value


def _input(store: ObjectStore, digest: str | None, name: str) -> bytes:
    """A pinned input; empty for one that the job has not."""
    return _bytes(store, f"{input_prefix(digest)}/{name}") if digest else b""


def _bytes(store: ObjectStore, key: str) -> bytes:
    try:
        return store.read(key)
    except NotFound:
        return b""


def _answers(store: ObjectStore, evaluated: Json) -> dict[str, dict[str, Answers]]:
    return {role: _role(store, shard) for role, shard in zip(ROLES, evaluated.get("shards", []), strict=False)}


def _role(store: ObjectStore, shard: Json) -> dict[str, Answers]:
    return {name.removesuffix(".jsonl.zst"): _count(store, part["key"]) for name, part in sorted(shard["parts"].items())}


def _count(store: ObjectStore, key: str) -> Answers:
    from nativealign_workloads.records import read_rows

    found = Answers()
    try:
        with store.open(key) as stream:
            for row in read_rows(stream, key):
                found.items += 1
                found.unusable += _unusable(row)
                if "itemId" in row and len(found.examples) < EXAMPLES:
                    found.examples.append(row)
    except NotFound:
        return Answers()
    return found


def _unusable(row: Json) -> bool:
    """No option found in a free answer, or no verdict of the judge."""
    return not row["judgement"] if "judgement" in row else "response" in row and not row["extracted"]
