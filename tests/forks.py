"""Processes that are forked from one which has imported what they need: hundreds of them, without a second each."""

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
_modules = ["__main__", __name__]


def preload(modules: Iterable[str]) -> None:
    """Has all forks find these imported; for modules of tests to call at their import, before the first fork."""
    _modules.extend(modules)
    CONTEXT.set_forkserver_preload(_modules)


def fork(
    main: Callable[..., int],
    arguments: tuple[object, ...],
    environment: Mapping[str, str],
    output: Path,
    errors: Path | None = None,
) -> BaseProcess:
    """Starts `sys.exit(main(*arguments))` in a session of its own, with that environment and no more.

    `output` gets what it prints, and `errors`, where it is given, what it prints to stderr.
    """
    process = CONTEXT.Process(target=_run, args=(main, arguments, dict(environment), output, errors or output))
    process.start()
    with contextlib.suppress(ProcessLookupError):  # it may have ended
        while os.getpgid(process.pid or 0) != process.pid:
            time.sleep(0.001)  # until then its group cannot be signalled
    return process


def _run(main: Callable[..., int], arguments: tuple[object, ...], environment: dict[str, str], *files: Path) -> None:
    for stream, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.environ.clear()
    os.environ |= environment
    os.setsid()  # the last: whoever may signal the group finds its files
    sys.exit(main(*arguments))
