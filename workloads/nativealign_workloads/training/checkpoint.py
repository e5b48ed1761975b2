"""Checkpoints in a store without a shared disk: every rank's files first, the manifest last.

    PREFIX/step-00000010-1f0c9a3e/FILE           what DeepSpeed's ranks wrote, plus metrics.jsonl
    PREFIX/step-00000010-1f0c9a3e/manifest.json  names, sizes and xxh3 sums of all files, step, world size, ZeRO stage

What has no manifest does not exist. This file moves files and knows no DeepSpeed; `resume` calls it.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from nativealign_workloads.store import NotFound, ObjectStore

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class File:
    name: str
    size: int
    xxh3: str


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint, as its manifest says."""

    name: str
    step: int
    world_size: int
    zero_stage: int
    precision: str
    files: tuple[File, ...]

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Checkpoint":
        fields = json.loads(data)
        return cls(**{**fields, "files": tuple(File(**file) for file in fields["files"])})


class ObjectCheckpoints:
    """The checkpoints of one run under `prefix`. `alive` is called for each file that is moved."""

    def __init__(self, store: ObjectStore, prefix: str, alive: Callable[[], None] = lambda: None) -> None:
        self._store, self._prefix = store, prefix.rstrip("/")
        self._alive = alive

    def new_name(self, step: int) -> str:
        """A name for one save; another each time, so that nobody ever writes into somebody else's checkpoint."""
        return f"step-{step:08d}-{uuid.uuid4().hex[:8]}"

    def put(self, name: str, paths: Iterable[Path]) -> list[File]:
        """Upload files into the checkpoint `name`; it does not exist before `commit`."""
        files = []
        for path in paths:
            self._alive()
            self._store.upload(f"{self._prefix}/{name}/{path.name}", path)
            files.append(File(path.name, path.stat().st_size, checksum(path)))
        return files

    def commit(self, checkpoint: Checkpoint, keep: int, best: int | None = None) -> None:
        """Make the checkpoint exist, then remove what is older than the `keep` newest and not of step `best`."""
        self._store.create(f"{self._prefix}/{checkpoint.name}/{MANIFEST}", checkpoint.to_json())
        self._prune(keep, best)

    def complete(self) -> list[Checkpoint]:
        """All complete checkpoints, the newest first. A manifest that cannot be read counts as none."""
        found = []
        for key in self._keys():
            if key.endswith(f"/{MANIFEST}"):
                try:
                    found.append(Checkpoint.from_json(self._store.read(key)))
                except (ValueError, TypeError, KeyError):
                    continue
        return sorted(found, key=lambda checkpoint: (-checkpoint.step, checkpoint.name))

    def fetch(self, checkpoint: Checkpoint, files: Sequence[File], folder: Path) -> str | None:
        """Download files of a checkpoint into `folder`; returns what is wrong with them, or None."""
        for file in files:
            path = folder / file.name
            self._alive()
            try:
                self._store.download(f"{self._prefix}/{checkpoint.name}/{file.name}", path)
            except NotFound:
                return f"{checkpoint.name}/{file.name} is missing"
            if path.stat().st_size != file.size or checksum(path) != file.xxh3:
                return f"{checkpoint.name}/{file.name} differs from its manifest"
        return None

    def _prune(self, keep: int, best: int | None) -> None:
        """Removes also what saves that died left behind. Manifests go first, so that no listed checkpoint lacks files."""
        complete = self.complete()
        kept = {checkpoint.name for number, checkpoint in enumerate(complete) if number < keep or checkpoint.step == best}
        oldest = min(checkpoint.step for checkpoint in complete[:keep])
        doomed = [key for key in self._keys() if (name := self._folder(key)) not in kept and _step(name) <= oldest]
        for key in sorted(doomed, key=lambda key: (not key.endswith(f"/{MANIFEST}"), key)):
            self._store.delete(key)

    def _keys(self) -> list[str]:
        return [info.key for info in self._store.list(f"{self._prefix}/step-")]

    def _folder(self, key: str) -> str:
        return key.removeprefix(f"{self._prefix}/").split("/", 1)[0]


def checksum(path: Path) -> str:
    """xxh3-128 of a file, in hexadecimal."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _step(name: str) -> int:
    return int(name.split("-")[1])
