"""The folder of local runs: what ran, how far it is, and its logs. Read by every command, written by `run` alone.

HOME/store/                                   the object store, unless the manifest or --store names another
HOME/runs/NAMESPACE/NAME-UID8/status.json     the same status that the operator writes on a cluster
HOME/runs/NAMESPACE/NAME-UID8/logs/           output of every process
HOME/runs/NAMESPACE/NAME-UID8/report.html
"""

import fcntl
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nativealign_api.kinds import JobObject
from nativealign_api.plan import run_prefix
from nativealign_api.status import JobStatus
from nativealign_api.vocabulary import Condition
from nativealign_cli.names import fits

Record = dict[str, dict[str, Any]]
UID_NAMESPACE = uuid.UUID("6e617469-7665-616c-6967-6e0000000000")


class Busy(Exception):
    """Another `nativealign run` works in the same folder."""


def local_uid(job: JobObject) -> str:
    """The uid of a job on a laptop: the same for the same kind, namespace and name."""
    return str(uuid.uuid5(UID_NAMESPACE, f"{job.kind}/{job.metadata.namespace}/{job.metadata.name}"))


@dataclass(frozen=True)
class Run:
    """One job's folder."""

    folder: Path
    reference: str
    """kind/name"""
    live: bool
    """Whether a `run` works in the home now."""

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    def status(self) -> JobStatus | None:
        """The last status; None where the job never ran."""
        record = self.record()
        return JobStatus.model_validate(record["status"]) if record else None

    def write(self, job: JobObject) -> None:
        """Replaces the record in one piece."""
        self.folder.mkdir(parents=True, exist_ok=True)
        metadata = {"name": job.metadata.name, "namespace": job.metadata.namespace, "uid": job.metadata.uid}
        spec = job.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        record = {"apiVersion": job.api_version, "kind": job.kind, "metadata": metadata, "spec": spec, "status": job.status.dump()}
        partial = self.folder / "status.json.tmp"
        partial.write_text(json.dumps(record, ensure_ascii=False, indent=1))
        partial.replace(self.folder / "status.json")

    def record(self) -> Record | None:
        """The whole object, as Kubernetes would give it; None where the job never ran."""
        path = self.folder / "status.json"
        record: Record | None = json.loads(path.read_text()) if path.is_file() else None
        if record and record["status"]["state"] == "Running" and not self.live:
            record["status"] |= _killed()
        return record


@dataclass(frozen=True)
class Home:
    """The folder of local runs."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "store"

    def run(self, job: JobObject) -> Run:
        """The folder of a job whose uid is set."""
        folder = self.root / run_prefix(job.metadata.namespace, job.metadata.name, job.metadata.uid or "")
        return Run(folder, job.reference, self.busy())

    def runs(self) -> list[Run]:
        """Every job that ran here, by namespace and name."""
        found = sorted(self.root.glob("runs/*/*/status.json"))
        live = self.busy()
        return [Run(path.parent, _reference(path), live) for path in found]

    def find(self, name: str) -> list[Run]:
        """The runs that `name` or `kind/name` means; the kind may be written in lower case or as a short name."""
        kind, _, bare = name.rpartition("/")
        return [run for run in self.runs() if fits(run.reference, kind, bare)]

    def busy(self) -> bool:
        """Whether a `run` works here; also this process' own."""
        if not (self.root / "lock").is_file():
            return False
        with (self.root / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for one `run`. Raises Busy."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Busy(
                    f"another nativealign run works in {self.root}; wait for its end, or choose another folder with --home"
                ) from None
            yield


def _killed() -> dict[str, Any]:
    """What the status of a run that was killed would say, had it been asked to stop."""
    facts = {"status": "True", "reason": "Interrupted", "message": "the run was killed; run it again to go on"}
    return {"state": "Suspended", "conditions": [{"type": kind, **facts} for kind in (Condition.READY, Condition.SUSPENDED)]}


def _reference(path: Path) -> str:
    record = json.loads(path.read_text())
    return f"{record['kind']}/{record['metadata']['name']}"
