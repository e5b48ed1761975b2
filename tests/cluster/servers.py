"""Servers as processes of a test run."""

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 10
LOOK_SECONDS = 0.1


@dataclass
class Server:
    """A process that writes to `folder`/NAME.log, and that a test may stop and start again."""

    name: str
    command: Sequence[str | Path]
    folder: Path
    environment: Mapping[str, str] | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """Of the process, once it was started."""
        assert self.process
        return self.process.pid

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.environment)

    def stop(self) -> None:
        """Asked first, then killed."""
        assert self.process
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Started, until the block ends."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


def freeze(process: subprocess.Popen[bytes]) -> None:
    """Returns once no thread of it runs any more; SIGCONT lets it go on."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)


def wait_for(
    look: Callable[[], bool], what: str, log: Path | None = None, seconds: float = START_SECONDS, pause: float = LOOK_SECONDS
) -> None:
    """Looks until it is so, with a pause of so many seconds between. Raises RuntimeError with the end of the log."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not after {seconds:.0f} s: {what} {log.read_text()[-2000:] if log else ''}")
        time.sleep(pause)


def answers(url: str) -> bool:
    """Whether a GET succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
