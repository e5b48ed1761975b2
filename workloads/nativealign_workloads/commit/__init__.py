"""How output becomes true: parts under unique names, then the shard's record, then the step's manifest.

    steps/<step>/<digest>/<phase>/<part>-<shard>-<writer>   parts; nobody overwrites anybody
    steps/<step>/<digest>/<phase>/answers/<shard>/…         what engines answered so far, adopted by the next writer
    steps/<step>/<digest>/<phase>/budget/<engine>/…         which shard has which grant of an endpoint's budget
    steps/<step>/<digest>/<phase>/shards/<shard>.json       names the parts; created once, the first commit wins
    steps/<step>/<digest>/manifest.json                     names the shards; created once

What no record names does not exist. Every phase writes through here; what it reads of other steps comes from their manifests.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import xxhash

from nativealign_api.vocabulary import API_VERSION, Outcome
from nativealign_workloads.context import Context
from nativealign_workloads.errors import DataError, NoInputError
from nativealign_workloads.ledger import Tally, total
from nativealign_workloads.records import encode_frame, read_rows
from nativealign_workloads.store import AlreadyExists, NotFound, ObjectStore

Json = dict[str, Any]
FRAME_ROWS = 250
"""Rows of every frame but the last, which a writer and a reader hold in memory. Records rely on it."""


def record_key(prefix: str, phase: str, shard: int) -> str:
    return f"{prefix}/{phase}/shards/{shard:05d}.json"


def manifest_key(prefix: str) -> str:
    return f"{prefix}/manifest.json"


def dump(value: Json) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1).encode()


class PartWriter:
    """Writes rows into a part in scratch, frame by frame. Memory holds one frame; no file stays open, as there may be thousands."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(b"")
        self._pending: list[Json] = []
        self.path, self.rows = path, 0
        self.frames: list[int] = []
        """Bytes of each frame."""

    def add(self, row: Json) -> None:
        self._pending.append(row)
        self.rows += 1
        if len(self._pending) == FRAME_ROWS:
            self._flush()

    def close(self) -> None:
        if self._pending:
            self._flush()

    def _flush(self) -> None:
        with self.path.open("ab") as file:
            self.frames.append(file.write(encode_frame(self._pending)))
        self._pending = []


@dataclass
class ShardCommit:
    """One index of a sharded or single phase, from its first part to its record."""

    context: Context
    prefix: str = ""
    """Folder of the step's output; default the context's own."""
    index: int = -1
    """Number of the shard; default the context's own."""
    started: float = field(default_factory=time.monotonic)
    _writers: dict[str, PartWriter] = field(default_factory=dict)
    _files: dict[str, tuple[Path, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.prefix = self.prefix or self.context.prefix
        self.index = self.context.index if self.index < 0 else self.index

    @property
    def key(self) -> str:
        return record_key(self.prefix, self.context.job.phase, self.index)

    def committed(self) -> bool:
        """Whether somebody, perhaps an earlier attempt, has committed this shard."""
        return self.context.store.stat(self.key) is not None

    def part(self, name: str) -> PartWriter:
        """The part of that name, to write rows into."""
        if name not in self._writers:
            self._writers[name] = PartWriter(self.context.scratch / f"{name}.jsonl.zst")
        return self._writers[name]

    def file(self, name: str, path: Path, rows: int = 0) -> None:
        """Adds a finished file of any format as a part."""
        self._files[name] = (path, rows)

    def folder(self, name: str, path: Path) -> None:
        """Adds every file below a folder as the part `name/...`."""
        for file in sorted(path.rglob("*")):
            if file.is_file():
                self.file(f"{name}/{file.relative_to(path).as_posix()}", file)

    def commit(self, tally: Tally | None = None, **facts: Any) -> Json:
        """Uploads the parts and creates the record; the record that counts is returned, which may be another writer's."""
        for name, writer in self._writers.items():
            writer.close()
            self._files[f"{name}.jsonl.zst"] = (writer.path, writer.rows)
        parts = {name: self._upload(name, path, rows) for name, (path, rows) in sorted(self._files.items())}
        for name, writer in self._writers.items():
            parts[f"{name}.jsonl.zst"]["frames"] = writer.frames
        record = {
            "shard": self.index,
            "phase": self.context.job.phase,
            "parts": parts,
            "tally": tally.dump() if tally else None,
            "facts": facts,
            "writer": self.context.writer,
            "attempt": self.context.job.attempt,
            "seconds": round(time.monotonic() - self.started, 3),
        }
        return create_first(self.context.store, self.key, record)

    def _upload(self, name: str, path: Path, rows: int) -> Json:
        stem, _, suffix = name.partition(".")
        key = f"{self.prefix}/{self.context.job.phase}/{stem}-{self.index:05d}-{self.context.writer}.{suffix}"
        self.context.progress.alive()
        self.context.store.upload(key, path)
        return {"key": key, "bytes": path.stat().st_size, "rows": rows, "xxh3": file_sum(path)}


def create_first(store: ObjectStore, key: str, value: Json) -> Json:
    """Creates a JSON object, or returns the one that is there: the first commit wins."""
    try:
        store.create(key, dump(value))
        return value
    except AlreadyExists:
        return read_json(store, key)


def file_sum(path: Path) -> str:
    """xxh3-128 of a file, in hex."""
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def read_json(store: ObjectStore, key: str) -> Json:
    """A JSON object of ours."""
    value: Json = json.loads(store.read(key))
    return value


def manifest(store: ObjectStore, prefix: str) -> Json:
    """The manifest of a committed step. Raises NoInputError where there is none."""
    try:
        return read_json(store, manifest_key(prefix))
    except NotFound:
        raise NoInputError("UpstreamNotComplete", f"{prefix} has no manifest", "run the step that makes it first") from None


def shard_records(context: Context, phase: str, shards: int) -> list[Json]:
    """The records of all shards of an earlier phase of this step. Raises NoInputError where one is missing."""
    records, missing = [], []
    for key in (record_key(context.prefix, phase, shard) for shard in range(shards)):
        try:
            records.append(read_json(context.store, key))
        except NotFound:
            missing.append(key)
    if missing:
        raise NoInputError("ShardsMissing", f"{len(missing)} of {shards} shards are not committed, e.g. {missing[0]}")
    return records


def record_rows(store: ObjectStore, record: Json, part: str, first: int = 0, end: int | None = None) -> Iterator[Json]:
    """Rows `first` to `end` of a part that a shard's record names; none where it has no such part."""
    found = record["parts"].get(f"{part}.jsonl.zst")
    if found:
        before = found.get("frames", [])[: first // FRAME_ROWS]
        skipped = len(before) * FRAME_ROWS
        with store.open(found["key"]) as stream:
            stream.seek(sum(before))
            yield from islice(read_rows(stream, found["key"]), first - skipped, None if end is None else end - skipped)


def step_rows(store: ObjectStore, prefix: str, part: str, shards: Iterable[int] | None = None) -> Iterator[Json]:
    """The rows of a committed step's part, of some shards or of all, in order."""
    records = manifest(store, prefix)["shards"]
    for shard in range(len(records)) if shards is None else shards:
        yield from record_rows(store, records[shard], part)


def rows_between(store: ObjectStore, records: list[Json], part: str, first: int, end: int) -> Iterator[Json]:
    """Rows `first` to `end` of a part, counted over the shards' records."""
    for record in records:
        rows = count_rows([record], part)
        if first < rows and end > 0:
            yield from record_rows(store, record, part, max(0, first), min(end, rows))
        first, end = first - rows, end - rows


def run_of(records: Iterable[Json], part: str, shard: int, shards: int) -> tuple[int, int]:
    """Places (first, end) in a part of what one of so many shards gets: runs that follow each other, equal up to one row."""
    rows = count_rows(records, part)
    return rows * shard // shards, rows * (shard + 1) // shards


def count_rows(records: Iterable[Json], part: str) -> int:
    """Rows of a part in all those shards' records."""
    return sum(record["parts"].get(f"{part}.jsonl.zst", {"rows": 0})["rows"] for record in records)


def fetch_folder(
    context: Context, record: Json, name: str, target: Path, wanted: Callable[[str], bool] = lambda name: True
) -> Path:
    """Brings the part `name/...` of a shard's record, or of a manifest's shard, into a local folder: the files of wanted names."""
    for part, found in record["parts"].items():
        if part.startswith(f"{name}/") and wanted(part.rpartition("/")[2]):
            context.check_stop()
            path = target / part.removeprefix(f"{name}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            context.store.download(found["key"], path)
    return target


def commit_step(
    context: Context, records: list[Json], headline: Json | None = None, *, expected: Tally | None = None, **facts: Any
) -> Json:
    """Checks that the counts add up and creates the step's manifest; returns the headline of the manifest that counts.

    `headline`: as nativealign_api.messages.Headline; default the documents by outcome. `expected`: the input's tally, whose `out`
    must be what the shards read. Raises DataError CountsDiffer where a document is lost or repeated; that would be a defect of
    ours, and nothing is committed.
    """
    tally = total(Tally.load(record["tally"]) for record in records if record["tally"])
    check_counts(context.prefix, tally, expected)
    value = {
        "apiVersion": API_VERSION,
        "step": context.job.step,
        "version": context.job.step_version,
        "digest": context.job.digest,
        "inputs": context.job.inputs,
        "parameters": context.job.parameters,
        "tally": tally.dump(),
        "headline": headline or {"counts": tally.counts()},
        "facts": facts,
        "shards": [{"parts": record["parts"], "tally": record["tally"], "facts": record["facts"]} for record in records],
        "seconds": round(sum(record["seconds"] for record in records), 3),
        "attempt": context.job.attempt,
        "writer": context.writer,
    }
    found: Json = create_first(context.store, manifest_key(context.prefix), value)["headline"]
    return found


def check_counts(name: str, tally: Tally, expected: Tally | None) -> None:
    """Raises DataError CountsDiffer unless in = out + … and, where given, in = the input's out."""
    if not tally.balanced():
        raise DataError("CountsDiffer", f"{name}: in is not out + heldOut + filtered + duplicate + quarantined: {tally.dump()}")
    if expected is not None and expected.of(Outcome.OUT) != tally.read:
        raise DataError("CountsDiffer", f"{name}: {tally.read.count} documents read, {expected.of(Outcome.OUT).count} handed over")
