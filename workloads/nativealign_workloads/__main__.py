"""`python -m nativealign_workloads STEP PHASE`: the one command of every pod.

Reads its job from the environment, runs the phase, leaves a termination message (JSON, at most 4 KiB), ends with a sysexits code.
`python -m nativealign_workloads report ...` is the leaf that writes HTML; see report/.
"""

import errno
import importlib
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nativealign_api import vocabulary
from nativealign_api.messages import pack
from nativealign_api.vocabulary import ExitCode
from nativealign_workloads.context import Context, from_environment, stop_on_sigterm
from nativealign_workloads.errors import ConfigError, NoSpaceError, StepError, UsageError
from nativealign_workloads.libraries import keep_freed_memory, libraries
from nativealign_workloads.progress.server import serve

PHASES = {
    "inspect list": "inspection:run",
    "clean lines": "align.repeated_lines:lines",
    "clean count": "align.repeated_lines:count",
    "clean filter": "align.clean:run",
    "clean commit": "align.clean:commit",
    "dedup sign": "align.dedup:sign",
    "dedup group": "align.dedup:group",
    "dedup link": "align.dedup:link",
    "dedup filter": "align.dedup:keep",
    "dedup commit": "align.dedup:commit",
    "annotate draw": "align.annotate:draw",
    "annotate sample": "align.annotate:sample",
    "annotate annotate": "align.annotate:annotate",
    "annotate commit": "align.annotate:commit",
    "train-worker train": "align.train_worker:train",
    "train-worker commit": "align.train_worker:commit",
    "rewrite rewrite": "align.rewrite:run",
    "rewrite commit": "align.rewrite:commit",
    "assess draw": "align.assess:draw",
    "assess measure": "align.assess:measure",
    "assess commit": "align.assess:commit",
    "tokenize tokenizer": "pretrain.tokenize:tokenizer",
    "tokenize tokenize": "pretrain.tokenize:run",
    "tokenize commit": "pretrain.tokenize:commit",
    "train train": "pretrain.train:run",
    "train commit": "pretrain.train:commit",
    "export export": "pretrain.export:run",
    "export commit": "pretrain.export:commit",
    "evaluate evaluate": "evaluate.steps:evaluate",
    "evaluate commit": "evaluate.steps:commit_evaluate",
    "report report": "evaluate.steps:report",
    "report commit": "evaluate.steps:commit_report",
}
"""Module and function of each phase, imported when it runs: a commit pod never imports torch."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def main(arguments: list[str]) -> int:
    """Runs one phase; returns the exit code."""
    context: Context | None = None
    try:
        run = find_phase(arguments)
        context = from_environment(os.environ)
        if libraries(context.job):
            keep_freed_memory()
        stop_on_sigterm(context, partial(_give_up, context.copies))
        _serve_progress(os.environ)
        print(f"{context.name} begins", flush=True)
        result = run(context)
        context.progress.finish()
        print(f"{context.name} is done", flush=True)
        _leave_message({"step": context.job.step, "phase": context.job.phase, "index": context.index, **result})
        return ExitCode.OK
    except Exception as error:
        return _fail(_as_step_error(error), context.copies if context else {})
    finally:
        if context:
            shutil.rmtree(context.scratch, ignore_errors=True)


def _serve_progress(environment: Mapping[str, str]) -> None:
    path, address = environment.get(vocabulary.ENV_PROGRESS), environment.get(vocabulary.ENV_POD_ADDRESS)
    if path and address:
        serve(Path(path), address)


def find_phase(arguments: list[str]) -> Callable[[Context], dict[str, Any]]:
    """The function of a phase, by step and phase. Raises UsageError UnknownPhase."""
    target = PHASES.get(" ".join(arguments))
    if target is None:
        raise UsageError("UnknownPhase", f"no phase {' '.join(arguments)!r}", f"one of: {', '.join(PHASES)}")
    module, _, function = target.partition(":")
    found: Callable[[Context], dict[str, Any]] = getattr(importlib.import_module(f"nativealign_workloads.{module}"), function)
    return found


def _as_step_error(error: Exception) -> StepError:
    if isinstance(error, StepError):
        return error
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("nativealign"):
        return ConfigError(
            "PackageMissing", f"the package {error.name} is not installed", 'pip install "nativealign[workloads-cpu]"'
        )
    if isinstance(error, OSError) and error.errno in FULL:
        return NoSpaceError(
            "NoSpace", f"the disk is full: {error.filename or error}", "free space, or raise resources.scratch.size"
        )
    traceback.print_exc()
    return StepError("InternalError", f"{type(error).__name__}: {error}", "this is a defect of nativealign; please report it")


def _fail(error: StepError, copies: dict[str, str]) -> int:
    message = error.message
    for copy, original in sorted(copies.items(), reverse=True):  # a folder after what lies in it
        message = message.replace(copy, original.rstrip("/"))
    print(f"error: {error.code}: {message}" + (f" ({error.hint})" if error.hint else ""), file=sys.stderr)
    _leave_message({"code": error.code, "message": message, "hint": error.hint})
    return error.exit_code


def _give_up(copies: dict[str, str], error: StepError) -> None:
    """Ends the process from another thread: the main one waits for what does not come."""
    code = _fail(error, copies)
    sys.stderr.flush()
    os._exit(code)


def _leave_message(message: dict[str, Any]) -> None:
    path = Path(os.environ.get(vocabulary.ENV_TERMINATION_LOG, vocabulary.DEFAULT_TERMINATION_LOG))
    text = pack(message)
    try:
        path.write_text(text)
    except OSError:
        print(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
