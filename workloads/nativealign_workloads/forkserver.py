"""`python -m nativealign_workloads.forkserver`: starts processes that find imported what takes seconds to import.

Orders come on stdin, one JSON object per line: {id, module, arguments, environment, output}. On stdout go {id, pid} when the
process has been started and {id, code} when it has ended. As the forkserver of multiprocessing, but a library is imported when
a process first needs it. The end of stdin ends all of them.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from nativealign_api import vocabulary
from nativealign_api.resolved import ResolvedJob
from nativealign_workloads.__main__ import PHASES
from nativealign_workloads.libraries import import_libraries, libraries

Json = dict[str, Any]


def main() -> int:
    """Serves orders until stdin ends."""
    gc.disable()  # imports make hardly any garbage
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the processes, too, and they flush
    answers = os.dup(1)  # stdout and stderr are for what imports have to say
    running: dict[int, int] = {}

    def tell(answer: Json) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(answers, f"{json.dumps(answer)}\n".encode())

    def reap() -> None:
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                tell({"id": running.pop(pid), "code": os.waitstatus_to_exitcode(status)})

    for order in _orders(reap):
        pid = _start(order)
        tell({"id": order["id"], "pid": pid})
        running[pid] = order["id"]
        reap()  # its signal may have come before it was entered
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return 0


def _orders(reap: Callable[[], None]) -> Iterator[Json]:
    """The orders of stdin. `reap` is called after each signal of a process that has ended.

    A handler alone would not do: Python runs it between two instructions, so a signal that comes just before a read waits as long
    as the read does.
    """
    ended, note = os.pipe()
    os.set_blocking(note, False)
    signal.set_wakeup_fd(note, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    rest = b""
    while True:
        ready, _, _ = select.select([0, ended], [], [])
        if ended in ready:
            os.read(ended, 1 << 16)
            reap()
        if 0 in ready:
            block = os.read(0, 1 << 16)
            if not block:
                return
            *lines, rest = (rest + block).split(b"\n")
            yield from map(json.loads, lines)


def _start(order: Json) -> int:
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    with contextlib.suppress(Exception):  # what cannot be imported the process says itself
        _import(order)
    gc.freeze()  # or each fork looks through all that was imported
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _die_with(parent)
        code = _become(order)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except Exception:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _die_with(parent: int) -> None:
    """A server that is killed leaves nothing behind (Linux: PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _import(order: Json) -> None:
    if sys.platform == "darwin":
        return
    importlib.import_module(f"{order['module']}.__main__")
    target = PHASES.get(" ".join(order["arguments"]))
    if target is None:
        return
    importlib.import_module(f"nativealign_workloads.{target.partition(':')[0]}")
    with open(order["environment"][vocabulary.ENV_JOB], "rb") as file:
        names = libraries(ResolvedJob.model_validate_json(file.read()))
    if names:
        import_libraries()
    for name in names:
        importlib.import_module(name)


def _become(order: Json) -> int:
    """In the fork: runs the module; returns its exit code."""
    gc.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = open(0)  # noqa: SIM115
    os.environ |= order["environment"]
    torch = sys.modules.get("torch")
    if sys.platform == "darwin" or (torch and torch.cuda.is_available()):  # neither Metal nor CUDA outlives a fork
        os.execv(sys.executable, [sys.executable, "-m", order["module"], *order["arguments"]])
    if torch and (threads := os.environ.get("OMP_NUM_THREADS")):
        torch.set_num_threads(int(threads))  # it read that when it was imported
    code: int = importlib.import_module(f"{order['module']}.__main__").main(order["arguments"])
    return code


if __name__ == "__main__":
    sys.exit(main())
