"""The processes of one training run on one node. The steps call `launch`; each process runs `ENTRY(*arguments)`.

One process runs in place. Several are started as torchrun would (RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE,
MASTER_ADDR, MASTER_PORT), with no restarts: the caller's caller starts a new attempt from the last checkpoint. Unlike
torchrun this says why: a rank's StepError is raised again here, with its exit code. Ranks that are asked to stop while they
wait for one that is gone are given up, long before their pod's grace ends. No torch is imported here.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from nativealign_api.vocabulary import ExitCode
from nativealign_workloads.errors import StepError, StoppedError

ENV_ERROR_FILE = "NATIVEALIGN_RANK_ERROR"
ENV_MARK_FILE = "NATIVEALIGN_RANK_MARK"
STEP = "step"
HANGING_SECONDS, HANGING_STEPS = 60.0, 3
"""Ranks that are asked to stop hang when their step lasts so long, and so many times longer than any before."""
GRACE_SECONDS = 30.0
"""How long ranks may take to end after SIGTERM once one of them has failed."""
SETTLE_SECONDS = 2.0
"""How long to wait for other ranks that fail by themselves: the first to end is often a victim, not the cause."""


class RankError(StepError):
    """The failure of a rank, with the exit code that it ended with."""

    def __init__(self, code: str, message: str, hint: str, exit_code: int) -> None:
        super().__init__(code, message, hint)
        self.exit_code = ExitCode(exit_code)


def launch(
    entry: str,
    arguments: list[str],
    processes: int,
    nodes: int = 1,
    node_rank: int = 0,
    master_addr: str = "127.0.0.1",
    master_port: int = 29500,
) -> None:
    """Run `entry` ("package.module:function") with string arguments in `processes` processes on this node.

    With several nodes each calls this with its own `node_rank`; node 0 is reachable as `master_addr`. SIGTERM and SIGINT
    are passed on to the ranks. Raises what the entry raised, or a RankError.
    """
    if processes == nodes == 1:
        _resolve(entry)(*arguments)
        return
    port = master_port if nodes > 1 else _free_port()
    common = {
        "WORLD_SIZE": str(processes * nodes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": master_addr,
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),  # as torchrun: ranks must not fight for processors
    }
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        errors = [Path(folder) / f"{local}.json" for local in range(processes)]
        marks = [error.with_suffix(".mark") for error in errors]
        children: list[subprocess.Popen[bytes]] = []
        with _forwarding(children) as asked:
            for local, (error, mark) in enumerate(zip(errors, marks, strict=True)):
                own = {"RANK": str(node_rank * processes + local), "LOCAL_RANK": str(local)}
                own |= {ENV_ERROR_FILE: str(error), ENV_MARK_FILE: str(mark)}
                command = [sys.executable, "-m", __name__, entry, *arguments]
                children.append(subprocess.Popen(command, env={**os.environ, **common, **own}))
            codes = _wait(children, Steps(marks), asked)
        _raise_cause(codes, errors, node_rank * processes)


def stop_flag() -> Callable[[], bool]:
    """Install a SIGTERM and SIGINT handler that only sets a flag, and return the function that reads it.

    A handler that was installed before is called too.
    """
    stopped = threading.Event()

    def on_signal(previous: Callable[[int, FrameType | None], object] | int | None) -> Callable[..., None]:
        def handle(number: int, frame: FrameType | None) -> None:
            stopped.set()
            if callable(previous) and previous is not signal.default_int_handler:
                previous(number, frame)

        return handle

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal(signal.getsignal(number)))
    return stopped.is_set


def tell(doing: str) -> None:
    """Tell `launch` what this rank begins: a STEP, which has to end soon once it is asked to stop, or another thing."""
    mark = os.environ.get(ENV_MARK_FILE)
    if mark:
        Path(mark).write_text(doing)


class Steps:
    """How the ranks of this node come on, by the last that any of them told."""

    def __init__(self, marks: list[Path]) -> None:
        self._marks = marks
        self._doing, self._since, self._longest = "", 0.0, 0.0
        self._seen = 0
        self._asked: float | None = None

    def in_vain(self, asked: bool, now: float) -> str:
        """Why no rank will stop by itself, though they are asked to; "" while one may. `now` in seconds of one clock."""
        self._look(now)
        if not asked:
            return ""
        self._asked = self._asked or now
        if not self._seen:
            return "before the first step"
        limit = max(HANGING_SECONDS, HANGING_STEPS * self._longest)
        hangs = self._doing == STEP and now - max(self._since, self._asked) > limit
        return f"in a step that has not ended for {limit:.0f} s" if hangs else ""

    def _look(self, now: float) -> None:
        told = [(mark.stat().st_mtime_ns, mark) for mark in self._marks if mark.exists()]
        newest, mark = max(told, default=(0, None))
        if mark is None or newest == self._seen:
            return
        if self._doing == STEP:
            self._longest = max(self._longest, now - self._since)
        self._seen, self._since, self._doing = newest, now, mark.read_text()


def _wait(children: list[subprocess.Popen[bytes]], steps: Steps, asked: Callable[[], bool]) -> list[int | None]:
    """Exit code of every rank that ended by itself; None for those that had to be ended because another failed.

    Raises StoppedError where ranks that are asked to stop have not begun, or hang.
    """
    ended = False
    while not ended:
        time.sleep(0.05)
        ended = all(child.poll() is not None for child in children) or any(child.poll() for child in children)
        if why := steps.in_vain(asked(), time.monotonic()):
            for child in children:
                child.kill()
                child.wait()
            raise StoppedError("Stopped", f"asked to stop {why}")
    deadline = time.monotonic() + SETTLE_SECONDS
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    codes = [child.poll() for child in children]
    for child in children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    return codes


def _raise_cause(codes: list[int | None], errors: list[Path], first_rank: int) -> None:
    """Raise the failure that explains the others: a StepError before a signal before a crash."""
    failed = [(local, code) for local, code in enumerate(codes) if code]
    if not failed:
        return
    local, code = min(failed, key=lambda item: (_severity(item[1]), item[0]))
    if errors[local].is_file():
        raise RankError(**json.loads(errors[local].read_bytes()))
    if code < 0:
        name = signal.Signals(-code).name
        hint = "the node may be out of memory" if name == "SIGKILL" else ""
        raise StepError("RankKilled", f"rank {first_rank + local} was ended by {name}", hint)
    raise StepError("RankFailed", f"rank {first_rank + local} ended with exit code {code}", "its log says why")


def _severity(code: int) -> int:
    if code in set(ExitCode) and code != ExitCode.SOFTWARE:
        return 0
    return 1 if code < 0 else 2


@contextlib.contextmanager
def _forwarding(children: list[subprocess.Popen[bytes]]) -> Iterator[Callable[[], bool]]:
    """Pass SIGTERM and SIGINT on to the ranks while the block runs, and yield whether one came.

    A handler that was installed before is called too.
    """
    came = threading.Event()

    def forward(number: int, frame: FrameType | None) -> None:
        came.set()
        for child in children:
            child.send_signal(signal.SIGTERM)
        before = previous[signal.Signals(number)]
        if callable(before) and before is not signal.default_int_handler:
            before(number, frame)

    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in previous:
        signal.signal(number, forward)
    try:
        yield came.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _resolve(entry: str) -> Callable[..., object]:
    module, _, function = entry.partition(":")
    found: Callable[..., object] = getattr(importlib.import_module(module), function)
    return found


def _run_rank(entry: str, arguments: list[str]) -> int:
    """Run the entry in this process and leave a StepError where `launch` finds it."""
    _die_with_parent()
    try:
        _resolve(entry)(*arguments)
    except StepError as error:
        fields = {"code": error.code, "message": error.message, "hint": error.hint, "exit_code": int(error.exit_code)}
        Path(os.environ[ENV_ERROR_FILE]).write_text(json.dumps(fields))
        return int(error.exit_code)
    return 0


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent is gone, so that no rank trains on alone."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    code = _run_rank(sys.argv[1], sys.argv[2:])
    sys.stdout.flush()
    sys.stderr.flush()
    # after a failure the other ranks may be gone, and leaving the process group in order could wait for them
    os._exit(code) if code else sys.exit(0)
