"""Servers as processes of a test run."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 10
LOOK_SECONDS = 0.1


@contextmanager
def running(
    name: str, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes to `folder`/NAME.log, until the block ends."""
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        process.kill()
        process.wait()


def wait_for(look: Callable[[], bool], what: str, log: Path | None = None, seconds: float = START_SECONDS) -> None:
    """Looks until it is so. Raises RuntimeError with the end of the log."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} does not start: {log.read_text()[-2000:] if log else ''}")
        time.sleep(LOOK_SECONDS)
