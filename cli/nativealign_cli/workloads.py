"""Modules of the workloads that read a store, each run in a process of its own. Called by inspecting, remote and collecting."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from nativealign_api.vocabulary import ExitCode

PACKAGES = {
    "torch": "workloads-cpu",
    "transformers": "workloads-cpu",
    "deepspeed": "workloads-cpu",
    "lm_eval": "workloads-cpu",
    "rensa": "workloads-cpu",
    "jinja2": "report",
    "kopf": "operator",
}
"""The extra that installs a package, for the packages by which an extra is known to be there."""


def run_module(module: str, store: str | None, *arguments: str | Path, err: Console) -> int:
    """Exit code of a module that writes to the terminal itself."""
    if _lacks(module, err):
        return ExitCode.CONFIG
    return subprocess.run(_command(module, store, *arguments), check=False).returncode


def run_download(store: str | None, record: Path, folder: Path, worker: bool, err: Console) -> int:
    """Downloads a job's result, or its worker, with a bar on the terminal; returns the exit code."""
    return run_module("download", store, *(["--worker"] if worker else []), record, folder, err=err)


def ask_module(module: str, store: str | None, *arguments: str | Path, err: Console) -> tuple[int, str]:
    """(exit code, output) of a module; its complaints go to `err`."""
    if _lacks(module, err):
        return ExitCode.CONFIG, ""
    done = subprocess.run(_command(module, store, *arguments), capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or f"{module} ended with {done.returncode}"
        err.print(said, highlight=False, markup=False, soft_wrap=True)
    return done.returncode, done.stdout


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _lacks(module: str, err: Console) -> bool:
    """Whether an extra that a module needs is not installed; says how to install it."""
    extras = ("workloads-cpu", "report") if module == "report" else ("workloads-cpu",)
    missing = [package for package, extra in PACKAGES.items() if extra in extras and not is_installed(package)]
    if missing:
        advice = f"{missing[0]} is not installed: pip install 'nativealign[{','.join(extras)}]'"
        err.print(advice, highlight=False, markup=False, soft_wrap=True)
    return bool(missing)


def _command(module: str, store: str | None, *arguments: str | Path) -> list[str]:
    location = ["--store", store] if store else []
    return [sys.executable, "-m", f"nativealign_workloads.{module}", *location, *map(str, arguments)]
