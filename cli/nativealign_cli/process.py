"""One phase as processes on this machine: the stand-in for a batch/v1 Job. Called by the runner.

Every index is `python -m nativealign_workloads STEP PHASE` with the environment that a pod would have.
"""

import json
import os
import signal
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from nativealign_api import vocabulary
from nativealign_api.messages import TerminationMessage, unpack
from nativealign_api.plan import Phase
from nativealign_api.resolved import ResolvedJob
from nativealign_api.vocabulary import ExitCode
from nativealign_cli.forkserver import ForkServer, Process

POLL_SECONDS = 0.05
TRY = "---"
"""Begins the line of a log that parts one try from the one before."""
GRACE_SECONDS = 60.0
"""How long processes may flush after SIGTERM."""


class PhaseFailed(Exception):
    """An index failed for good."""

    def __init__(self, exit_code: int, message: TerminationMessage, log: Path) -> None:
        super().__init__(message.message or f"ended with exit code {exit_code}")
        self.exit_code, self.log = exit_code, log
        self.code = message.code or "ProcessDied"
        self.hint = message.hint if message.code else f"see {log}"


class Interrupted(Exception):
    """The user asked to stop; everything is flushed."""


@dataclass
class Index:
    """One running index."""

    number: int
    process: Process
    message: Path
    progress: Path
    log: Path


@dataclass
class PhaseProcesses:
    """Runs all indexes of a phase, a few at a time."""

    server: ForkServer
    job: ResolvedJob
    phase: Phase
    job_file: Path
    logs: Path
    scratch: Path
    retries: int
    watch: Callable[[float], None]
    """Called often with the part that is done, 0..1."""
    tries: dict[int, int] = field(default_factory=dict)
    results: list[TerminationMessage] = field(default_factory=list)
    _stopping: bool = False

    def run(self) -> list[TerminationMessage]:
        """The termination messages of all indexes. Raises PhaseFailed or Interrupted; no process is left behind."""
        waiting = deque(range(self.phase.indexes))
        running: list[Index] = []
        try:
            while waiting or running:
                while waiting and len(running) < self.phase.parallelism:
                    running.append(self._start(waiting.popleft()))
                running = [index for index in running if not self._finished(index, waiting)]
                self.watch(self._share(running))
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            _stop(running)
            raise Interrupted from None
        except BaseException:
            _stop(running)
            raise
        return self.results

    def _start(self, number: int) -> Index:
        writer = uuid.uuid4().hex[:12]
        folder = self.scratch / writer
        folder.mkdir(parents=True)
        log = self.logs / f"{self.job.step}-{self.job.phase}-{number}.log"
        index = Index(number, self._spawn(number, writer, folder, log), folder / "message.json", folder / "progress.json", log)
        return index

    def _spawn(self, number: int, writer: str, folder: Path, log: Path) -> Process:
        environment = {
            vocabulary.ENV_JOB: str(self.job_file),
            vocabulary.ENV_INDEX: str(number),
            vocabulary.ENV_WRITER: writer,
            vocabulary.ENV_TERMINATION_LOG: str(folder / "message.json"),
            vocabulary.ENV_PROGRESS: str(folder / "progress.json"),
            vocabulary.ENV_SCRATCH: str(folder),
            vocabulary.ENV_MODEL_CACHE: str(self.scratch / "models"),
            "OMP_NUM_THREADS": str(threads(self.phase, os.cpu_count() or 1)),
        }
        with log.open("a") as output:
            output.write(f"{TRY} {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {self.job.step} {self.job.phase} {number}\n")
        return self.server.start("nativealign_workloads", [self.job.step, self.job.phase], environment, log)

    def _finished(self, index: Index, waiting: deque[int]) -> bool:
        code = index.process.poll()
        if code is None:
            return False
        message = unpack(_text(index.message)) or TerminationMessage()
        if code == ExitCode.OK:
            self.results.append(message)
            return True
        self._judge(index, code, message)
        waiting.append(index.number)
        return True

    def _judge(self, index: Index, code: int, message: TerminationMessage) -> None:
        """Returns if the index may be tried again; raises otherwise."""
        self.tries[index.number] = self.tries.get(index.number, 0) + 1
        known = code in list(ExitCode)
        retryable = ExitCode(code).retryable if known else True
        if not retryable or code == ExitCode.SOFTWARE or self.tries[index.number] > self.retries:
            raise PhaseFailed(code if known else ExitCode.SOFTWARE, message, index.log)

    def _share(self, running: list[Index]) -> float:
        parts = [min(100.0, _percent(_text(index.progress))) / 100 for index in running]
        return (len(self.results) + sum(parts)) / self.phase.indexes


def threads(phase: Phase, cores: int) -> int:
    """Threads of each process: by the number of indexes, not by how many run at once. That may change, results may not."""
    processes = phase.resources.processes_per_node or max(1, phase.resources.gpus_per_node)
    return max(1, cores // max(phase.indexes, processes))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def _percent(progress: str) -> float:
    try:
        return float(json.loads(progress)["percent"] or 0.0)
    except (ValueError, TypeError, KeyError):
        return 0.0


def _stop(running: list[Index]) -> None:
    for index in running:
        index.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for index in running:
        if index.process.wait(deadline - time.monotonic()) is None:
            index.process.send_signal(signal.SIGKILL)
            index.process.wait()
