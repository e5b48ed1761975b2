"""What the tests of the whole pipeline share: a small corpus, phases run as the runner runs them, and what a store really holds."""

import gzip
import json
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar
from unittest import mock

import psutil
import xxhash
import yaml
from tests.forks import fork, preload

from nativealign_api import vocabulary
from nativealign_api.kinds import KINDS, JobObject
from nativealign_api.messages import TerminationMessage, unpack
from nativealign_api.plan import Step, plan
from nativealign_api.resolved import ResolvedJob, resolve
from nativealign_api.status import Pinned
from nativealign_cli.forkserver import ForkServer, Process
from nativealign_workloads.__main__ import find_phase
from nativealign_workloads.context import from_environment
from nativealign_workloads.gc.claim import CLAIM
from nativealign_workloads.ledger import document_id
from nativealign_workloads.records import read_rows

HERE = Path(__file__).parent
QUICKSTART = HERE.parents[1] / "examples" / "quickstart"
T, U = TypeVar("T"), TypeVar("U")
Json = dict[str, Any]
Ids = dict[str, list[str]]

COMMAND = "nativealign_cli.main"
preload([COMMAND, "nativealign_cli.display", "nativealign_cli.inspecting", "nativealign_cli.runner"])

STOP_SECONDS = 0.02
"""Between two looks whether a process has stopped itself."""
TIMINGS = ("seconds", "attempt", "writer")
"""What may differ between two attempts at the same manifest."""


def python_path(folder: Path) -> str:
    """PYTHONPATH with one folder more."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


# Corpus and manifests

TINY = {"hiddenSize": 32, "layers": 1, "attentionHeads": 2, "vocabularySize": 400, "maxPosition": 512}
TRAINING = {"optimizer": {"learningRate": 3e-3, "warmupPercent": 10}, "deepspeed": {"precision": "Float32"}}
RULES = {
    "corpora": [{"name": "web", "uri": "corpus/", "idField": "id"}],
    "heldOut": {"documents": 6},
    "maxQuarantinedPercent": 20,
    "expert": {"rules": {}},
    "assess": {"documents": 20},
}
"""An AlignJob's spec for `make_corpus`, whose records are broken more often than a user's."""
WORKER = RULES | {
    "sharding": {"shards": 1},
    "seed": {"documents": 24},
    "worker": {"base": {"fromConfig": TINY}, "train": TRAINING | {"epochs": 1, "globalBatch": 16, "sequenceLength": 512}},
    "rewrite": {"transformers": {"batchSize": 64}, "maxRetries": 0, "maxOutputRatio": 1},
    "chunking": {"maxTokens": 64},
}
"""With a worker of transformers, as small as can be."""
PRETRAIN = TRAINING | {
    "base": {"fromConfig": TINY},
    "mix": [{"alignJob": "web"}],
    "sequenceLength": 64,
    "tokens": 1024,
    "globalBatch": 4,
}


def make_corpus(folder: Path, documents: int) -> list[str]:
    """Writes two files of `documents` records of the quickstart's corpus; returns the ids that they must get."""
    command = [sys.executable, str(QUICKSTART / "make_corpus.py"), str(folder), "--documents", "500"]
    subprocess.run(command, check=True, capture_output=True)
    lines = gzip.decompress((folder / "web.jsonl.gz").read_bytes()).splitlines(keepends=True)[:documents]
    cut = documents * 2 // 3
    (folder / "web.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[:cut]), mtime=0))
    (folder / "more.jsonl").write_bytes(b"".join(lines[cut:]))
    files = {"more.jsonl": documents - cut, "web.jsonl.gz": cut}
    return [document_id("web", name, ordinal) for name, count in files.items() for ordinal in range(count)]


def manifest_of(kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": vocabulary.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def write_manifests(path: Path, *manifests: Json) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump_all(manifests, allow_unicode=True))
    return path


# The command line, as a user types it


def nativealign(*arguments: str | Path, cwd: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end, in a session that it leads. A fork, which spares it the imports of all but its main module."""
    line = ["nativealign", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        process = fork(
            _run_command, (line, cwd, resource.getrlimit(resource.RLIMIT_FSIZE)), os.environ | (environment or {}), output, errors
        )
        process.join()
        code = process.exitcode
        assert code is not None
        return subprocess.CompletedProcess(line, code, output.read_text(), errors.read_text())


def nativealign_on_cluster(*arguments: str | Path, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The same in an interpreter of its own: the client of Kubernetes reads the environment when it is imported."""
    return subprocess.run(**command(*arguments, cwd=cwd, environment=environment), capture_output=True, text=True, check=False)


def _run_command(line: list[str], folder: Path, largest_file: tuple[int, int]) -> None:
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, largest_file)  # a child of the test's own process would inherit it
    sys.argv = line
    del sys.modules[COMMAND]
    runpy.run_module(COMMAND, run_name="__main__", alter_sys=True)


def command(*arguments: str | Path, cwd: Path, environment: dict[str, str] | None = None) -> Json:
    """Arguments of subprocess for a command."""
    line = [sys.executable, "-m", COMMAND, *map(str, arguments)]
    return {"args": line, "cwd": cwd, "env": os.environ | (environment or {}), "start_new_session": True}


def status(home: Path, reference: str) -> Json:
    """What `nativealign status -o json` says of a job."""
    shown = nativealign("status", reference, "--home", home, "-o", "json", cwd=home.parent)
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)["status"]


def manifest_facts(store: Path, prefix: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((store / prefix / "manifest.json").read_text())["facts"]
    return facts


# Phases one by one, in processes that can be killed at any change of a file


@dataclass(frozen=True)
class World:
    """A folder with a store, and with the scratch folders of those who write into it."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "store"

    def made(self) -> "World":
        self.root.mkdir(parents=True)
        return self

    def copy(self, root: Path) -> "World":
        """A world with the same store. Files of a store are replaced, never changed, so links will do."""
        copy = World(root).made()
        if self.store.is_dir():
            shutil.copytree(self.store, root / "store", copy_function=os.link)
        return copy


@dataclass(frozen=True)
class Unit:
    """One index of one phase."""

    job: ResolvedJob
    index: int

    @property
    def phase(self) -> str:
        return f"{self.job.step} {self.job.phase}"


@dataclass(frozen=True)
class Ended:
    """How a process ended, or (code None) that it has stopped itself and can go on."""

    process: Process | None
    code: int | None
    changes: list[str]
    """`event path` of every change of a file, in order."""
    message: TerminationMessage
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")


class Starter:
    """Starts processes of phases, with a fault or without."""

    def __init__(self) -> None:
        self._server = ForkServer()

    def close(self) -> None:
        self._server.close()

    def run(self, world: World, unit: Unit, *, at: int = 0, number: str = "SIGKILL", writer: str = "first") -> Ended:
        """Runs one index; signal `number` comes before its change number `at` (0: never)."""
        folder = Path(tempfile.mkdtemp(dir=world.root, prefix="process-"))
        job = unit.job.model_copy(update={"store_folder": str(world.store)})
        (folder / "job.json").write_bytes(job.dump())
        environment = {
            vocabulary.ENV_JOB: str(folder / "job.json"),
            vocabulary.ENV_INDEX: str(unit.index),
            vocabulary.ENV_WRITER: writer,
            vocabulary.ENV_TERMINATION_LOG: str(folder / "message.json"),
            vocabulary.ENV_SCRATCH: str(folder / "scratch"),
            vocabulary.ENV_SECRETS: str(folder / "secrets"),
            "OMP_NUM_THREADS": "1",
        }
        fault = {"FAULT_ROOT": str(world.root), "FAULT_AT": str(at), "FAULT_SIGNAL": number, "FAULT_LOG": f"{folder}.changes"}
        log = Path(f"{folder}.log")
        process = self._server.start("tests.workloads.faults", [job.step, job.phase], environment | fault, log)
        while process.wait(STOP_SECONDS) is None and not _stopped(process):
            pass
        message = folder / "message.json"
        return Ended(
            process,
            process.code,
            Path(f"{folder}.changes").read_text().splitlines(),
            unpack(message.read_text() if message.is_file() else "") or TerminationMessage(),
            log,
        )

    def go_on(self, stopped: Ended) -> int | None:
        """Wakes a process that stopped itself; returns its exit code."""
        assert stopped.process
        stopped.process.send_signal(signal.SIGCONT)
        return stopped.process.wait()


def _stopped(process: Process) -> bool:
    try:
        return process.pid is not None and psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


class Pool:
    """Some starters that work side by side."""

    def __init__(self, started: list[Starter]) -> None:
        self._free: SimpleQueue[Starter] = SimpleQueue()
        for starter in started:
            self._free.put(starter)
        self._size = len(started)

    def each(self, work: Callable[[Starter, T], U], items: Iterable[T]) -> list[U]:
        """`work` on every item, as many at a time as there are starters."""

        def run(item: T) -> U:
            starter = self._free.get()
            try:
                return work(starter, item)
            finally:
                self._free.put(starter)

        with ThreadPoolExecutor(self._size) as threads:
            return list(threads.map(run, items))

    def run(self, world: World, units: list[Unit]) -> list[Ended]:
        """Runs the indexes of a phase, which must all end well."""

        def run(starter: Starter, unit: Unit) -> Ended:
            ended = starter.run(world, unit)
            assert ended.code == 0, f"{unit.phase} {unit.index}: {ended.output}"
            return ended

        return self.each(run, units)


@contextmanager
def pool_of(count: int) -> Iterator[Pool]:
    """Starters for the time of a test."""
    started = [Starter() for _ in range(count)]
    try:
        yield Pool(started)
    finally:
        for starter in started:
            starter.close()


def run_here(world: World, units: list[Unit]) -> list[Ended]:
    """Runs the indexes of a phase one after another in this process, which starts nothing and can be killed nowhere."""
    return [_run_here(world, unit) for unit in units]


def _run_here(world: World, unit: Unit) -> Ended:
    folder = Path(tempfile.mkdtemp(dir=world.root, prefix="here-"))
    (folder / "job.json").write_bytes(unit.job.model_copy(update={"store_folder": str(world.store)}).dump())
    environment = {
        vocabulary.ENV_JOB: str(folder / "job.json"),
        vocabulary.ENV_INDEX: str(unit.index),
        vocabulary.ENV_WRITER: "here",
        vocabulary.ENV_SCRATCH: str(folder / "scratch"),
        vocabulary.ENV_SECRETS: str(folder / "secrets"),
    }
    phase = find_phase([unit.job.step, unit.job.phase])
    with mock.patch.dict(os.environ, environment):  # a gang's rank reads it again
        said = {"step": unit.job.step, "phase": unit.job.phase, "index": unit.index} | phase(from_environment(os.environ))
    shutil.rmtree(folder)
    return Ended(None, 0, [], TerminationMessage.model_validate(said), folder)


def run_phases(
    base: Path,
    manifest: Json,
    world: World,
    run: Callable[[World, list[Unit]], list[Ended]],
    upstream: Json | None = None,
    until: str = "",
) -> Json:
    """Plans a job as the local runner does and calls `run` for each phase that is not committed, up to the step `until`.

    Returns `upstream`, digests of earlier jobs by kind/name, and this job's.
    """
    job = KINDS[manifest["kind"]].model.model_validate(manifest)
    job.metadata.uid = "0" * 8
    job.status.pinned = Pinned(upstream=upstream or {})
    (inspected,) = run(world, _units(base, job, plan(job.kind, job.spec, job.status.pinned).steps[0])[0])
    job.status.pinned = inspected.message.pin(job.status.pinned)
    digests: Json = {"uid": job.metadata.uid}
    for step in plan(job.kind, job.spec, job.status.pinned).steps[1:]:
        digests[step.name] = step.digest
        for units in _units(base, job, step) if not (world.store / step.prefix / "manifest.json").is_file() else []:
            run(world, units)
        if step.name == until:
            break
    return (upstream or {}) | {job.reference: digests}


def run_job_here(base: Path, spec: Json, until: str = "") -> tuple[Path, dict[str, str]]:
    """Runs an AlignJob, up to the step `until`, in this process: the store, and the prefix of each step's result in it."""
    world = World(base / f"world-{len(list(base.glob('world-*')))}").made()
    digests = run_phases(base, manifest_of("AlignJob", "web", spec), world, run_here, until=until)["AlignJob/web"]
    return world.store, {step: f"steps/{step}/{digest}" for step, digest in digests.items() if step != "uid"}


def _units(base: Path, job: JobObject, step: Step) -> list[list[Unit]]:
    """The indexes of each phase of a step."""
    resolved = [resolve(job, step, phase, store_folder="-", base_directory=str(base)) for phase in step.phases]
    return [[Unit(phase, index) for index in range(phase.indexes)] for phase in resolved]


# What a store holds


def logical(store: Path) -> dict[str, Any]:
    """Everything that exists: inputs, records and manifests, without timings, attempt and writer, and with the content of parts.

    What no record names does not exist. Of a training's metrics the speed is left out.
    """
    held: dict[str, Any] = {}
    for path in sorted(store.rglob("*")):
        key = path.relative_to(store).as_posix()
        if not path.is_file() or path.name.startswith(".nativealign-tmp-"):
            continue
        if path.name == CLAIM:  # who was there last
            continue
        if key.startswith("inputs/"):
            held[key] = path.read_bytes()
        elif path.parent.name == "shards" or (path.name == "manifest.json" and "/checkpoints/" not in key):
            held[key] = _without_timings(store, json.loads(path.read_text()))
    return held


def _without_timings(store: Path, record: Json) -> Json:
    plain = {name: value for name, value in record.items() if name not in TIMINGS}
    for shard in [plain, *plain.get("shards", [])]:
        shard["parts"] = {name: _content(store, name, part) for name, part in shard.get("parts", {}).items()}
    return plain


def _content(store: Path, name: str, part: Json) -> Any:
    data = (store / part["key"]).read_bytes()
    assert xxhash.xxh3_128_hexdigest(data) == part["xxh3"], part["key"]
    if name == "metrics.jsonl":
        return [{k: v for k, v in json.loads(line).items() if k != "tokens_per_second"} for line in data.splitlines()]
    return [part["xxh3"], part["rows"]]


def differing(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Keys that are not equal on both sides."""
    return sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))


def rows(store: Path, prefix: str, part: str, phase: str = "") -> list[Json]:
    """The rows of a part of all shards, as the step's manifest names them, or as one phase's records do."""
    shards = [json.loads(path.read_text()) for path in sorted((store / prefix / phase / "shards").glob("*.json"))] if phase else []
    found = []
    for shard in shards or json.loads((store / prefix / "manifest.json").read_text())["shards"]:
        if f"{part}.jsonl.zst" in shard["parts"]:
            with (store / shard["parts"][f"{part}.jsonl.zst"]["key"]).open("rb") as stream:
                found += list(read_rows(stream, part))
    return found


def account(store: Path, prefix: str) -> Ids:
    """The ids of a step by outcome, as lists, so that a repeated one shows."""
    ids: Ids = {"out": [row["id"] for row in rows(store, prefix, "documents")]}
    ids["heldOut"] = [row["id"] for row in rows(store, prefix, "held-out")]
    for row in rows(store, prefix, "removed"):
        ids.setdefault(row["outcome"], []).append(row["id"])
    return ids


def tally(store: Path, prefix: str) -> Json:
    """What a step's manifest says of its documents: in, each outcome, and reasons."""
    value = json.loads((store / prefix / "manifest.json").read_text())["tally"]
    return {"in": value["in"]["count"], **{k: v["count"] for k, v in value["outcomes"].items()}, "reasons": value["reasons"]}


def assert_conserved(read: list[str], ids: Ids) -> None:
    """Nothing is lost, nothing is there twice, nothing came from nowhere."""
    assert sorted(identifier for found in ids.values() for identifier in found) == sorted(read)
    assert len(set(read)) == len(read)
