"""Processes that are forked from one which has imported what pods and operators need: hundreds of them, without a second each."""

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

from nativealign_workloads.__main__ import PHASES

CONTEXT = multiprocessing.get_context("forkserver")
STEPS = {f"nativealign_workloads.{target.partition(':')[0]}" for target in PHASES.values()}
LIBRARIES = ("minio", "pyarrow.parquet", "rensa", "scipy.sparse.csgraph")
CONTEXT.set_forkserver_preload(["__main__", __name__, "nativealign_operator.main", *STEPS, *LIBRARIES])


def fork(main: Callable[..., int], arguments: tuple[object, ...], environment: Mapping[str, str], log: Path) -> BaseProcess:
    """Starts `sys.exit(main(*arguments))` in a session of its own, with that environment and no more; `log` gets what it prints."""
    process = CONTEXT.Process(target=_run, args=(main, arguments, dict(environment), log))
    process.start()
    with contextlib.suppress(ProcessLookupError):  # it may have ended
        while os.getpgid(process.pid or 0) != process.pid:
            time.sleep(0.001)  # until then its group cannot be signalled
    return process


def _run(main: Callable[..., int], arguments: tuple[object, ...], environment: dict[str, str], log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.clear()
    os.environ |= environment
    os.setsid()  # the last: whoever may signal the group finds a log
    sys.exit(main(*arguments))
