"""`nativealign doctor`: what is wrong with this machine, or with one job, and what to do about it."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from nativealign_api.status import JobStatus, StepStatus
from nativealign_api.vocabulary import ExitCode
from nativealign_cli.inspecting import find_one
from nativealign_cli.process import TRY
from nativealign_cli.state import Home, Run
from nativealign_cli.workloads import PACKAGES, is_installed

LOG_LINES = 15
MINIMUM_DISK = 5_000_000_000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    good: bool
    what: str
    advice: str = ""


def examine(home: Home, name: str | None, out: Console) -> int:
    """Prints the findings; 0 if all are good."""
    if name is None:
        findings = list(_machine(home))
    else:
        run = find_one(home, name, out)
        if run is None:
            return ExitCode.NO_INPUT
        findings = list(_job(run))
    print_findings(findings, out)
    return ExitCode.OK if all(finding.good for finding in findings) else ExitCode.CONFIG


def print_findings(findings: list[Finding], out: Console) -> None:
    """Each with its advice below it."""
    for finding in findings:
        mark = "[green]ok[/green]  " if finding.good else "[red]bad[/red] "
        advice = f"\n      {finding.advice}" if finding.advice else ""
        out.print(f"{mark} {escape(finding.what + advice)}", highlight=False, soft_wrap=True)


def _machine(home: Home) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(
        sys.version_info >= (3, 11), f"Python {version}", "" if sys.version_info >= (3, 11) else "nativealign needs 3.11 or newer"
    )
    for package, extra in PACKAGES.items():
        if is_installed(package):
            yield Finding(True, f"{package} is installed")
        elif extra == "operator":
            yield Finding(True, f"{package} is not installed, which only clusters need: pip install 'nativealign[{extra}]'")
        else:
            yield Finding(False, f"{package} is not installed", f"pip install 'nativealign[{extra}]'")
    free = shutil.disk_usage(home.root if home.root.is_dir() else ".").free
    yield Finding(
        free >= MINIMUM_DISK,
        f"{free / 1e9:.0f} GB of disk are free",
        "" if free >= MINIMUM_DISK else "free some, or use --home elsewhere",
    )
    gpus = shutil.which("nvidia-smi") or os.path.exists("/dev/kfd")
    yield Finding(True, "accelerators are present" if gpus else "no accelerator: steps run on the CPU")


def _job(run: Run) -> Iterator[Finding]:
    status = run.status() or JobStatus()
    yield Finding(status.state in ("Complete", "Running"), f"{run.reference} is {status.state}")
    for condition in status.conditions:
        if condition.type == "Ready" and condition.status == "False":
            yield Finding(False, f"{condition.reason}: {condition.message}")
    for step in status.steps:
        if step.state == "Failed":
            yield Finding(False, f"step {step.name}, phase {step.phase} failed", _log_tail(run, step, status))
        elif step.state == "Committed":
            yield Finding(True, f"step {step.name} is committed{' (by an earlier run)' if step.reused else ''}")


def _log_tail(run: Run, step: StepStatus, status: JobStatus) -> str:
    """What the index that failed said last; the others of its phase were stopped because of it."""
    logs = sorted(run.logs.glob(f"{step.name}-{step.phase}-*.log"), key=lambda path: path.stat().st_mtime)
    tries = {path: _last_try(path) for path in reversed(logs)}
    reasons = tuple(f"error: {condition.reason}:" for condition in status.conditions)
    told = [path for path, lines in tries.items() if any(line.startswith(reasons) for line in lines)]
    shown = next(iter(told or tries), None)
    return "\n      ".join([f"last lines of {shown}:", *tries[shown][-LOG_LINES:]]) if shown else ""


def _last_try(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").splitlines()
    first = max((number for number, line in enumerate(lines, 1) if line.startswith(f"{TRY} ")), default=0)
    return lines[first:]
