"""The runner's side of nativealign_workloads.forkserver: starts `python -m MODULE ARGUMENTS` as a fork of a long-lived process."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WAIT_SECONDS = 0.1
"""Between two looks at the clock."""


@dataclass
class Process:
    """A process that the server has been told to start."""

    server: "ForkServer"
    pid: int | None = None
    """None until the server has imported what it needs."""
    code: int | None = None

    def poll(self) -> int | None:
        """Exit code as of subprocess, None while it runs."""
        self.server.hear(0)
        return self.code

    def wait(self, seconds: float = float("inf")) -> int | None:
        """As `poll`, when it has ended or that time is over."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            self.server.hear(WAIT_SECONDS)
        return self.code

    def send_signal(self, number: signal.Signals) -> None:
        while self.pid is None and self.poll() is None:
            self.server.hear(WAIT_SECONDS)
        if self.pid and self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclass
class ForkServer:
    """One server, started when it is first needed, and again should it die; its processes die with it."""

    _server: subprocess.Popen[bytes] | None = None
    _heard: bytes = b""
    _started: int = 0
    _running: dict[int, Process] = field(default_factory=dict)

    def close(self) -> None:
        """Ends it, with all its processes."""
        if self._server:
            self._server.communicate()
            self._server = None

    def start(self, module: str, arguments: list[str], environment: dict[str, str], output: Path) -> Process:
        """Starts `python -m module arguments`; `environment` is added to that of this process, `output` gets what it prints."""
        process = Process(self)
        self._started += 1
        order = {"id": self._started, "module": module, "arguments": arguments, "environment": environment, "output": str(output)}
        server = self._server = self._server or _serve()
        with _uninterrupted():
            self._running[self._started] = process
            assert server.stdin
            with contextlib.suppress(BrokenPipeError):  # `hear` finds that it is dead
                server.stdin.write(f"{json.dumps(order)}\n".encode())
        return process

    def hear(self, seconds: float) -> None:
        """Takes in what the server says within that time."""
        if self._server is None:
            return
        assert self._server.stdout
        if select.select([self._server.stdout], [], [], seconds)[0]:
            with _uninterrupted():
                said = os.read(self._server.stdout.fileno(), 65536)
                *lines, self._heard = (self._heard + said).split(b"\n")
                for line in lines:
                    self._note(json.loads(line))
                if not said:
                    self._lost()

    def _note(self, answer: dict[str, Any]) -> None:
        process = self._running[answer["id"]]
        process.pid, process.code = answer.get("pid", process.pid), answer.get("code")
        if process.code is not None:
            del self._running[answer["id"]]

    def _lost(self) -> None:
        for process in self._running.values():
            process.code = -signal.SIGKILL
        self.close()
        self._heard, self._running = b"", {}


def _serve() -> subprocess.Popen[bytes]:
    # threads that spin while they wait starve each other where cores are shared
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "nativealign_workloads.forkserver"]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Half an answer heard, or a process started and not known, would be waited for without end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
