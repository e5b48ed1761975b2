"""`nativealign status`, `logs`, `report`, `explain` and `download`: what local runs left behind."""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nativealign_api.status import JobStatus
from nativealign_api.vocabulary import ExitCode
from nativealign_cli.state import Home, Run
from nativealign_cli.workloads import ask_module, run_download

FOLLOW_SECONDS = 0.5
ENDED = ("Complete", "Failed", "GateFailed", "Suspended")


def find_one(home: Home, name: str, err: Console) -> Run | None:
    """The one run that a name means; says so where it means none or several."""
    found = home.find(name)
    if len(found) == 1:
        return found[0]
    known = ", ".join(run.reference for run in found or home.runs()) or "none ran yet"
    err.print(
        f"{name} is {'ambiguous' if found else 'unknown'} in {home.root}: {known}", highlight=False, soft_wrap=True, markup=False
    )
    return None


def show_status(home: Home, name: str | None, output: str, out: Console, err: Console) -> int:
    """All jobs, or one with its steps."""
    if name is None:
        runs = home.runs()
        rows = [(run.reference, run.status() or JobStatus(), str(run.report) if run.report.is_file() else "") for run in runs]
        print_records(out, output, [run.record() for run in runs], jobs_table(rows))
        tell_if_none(runs, str(home.root), err)
        return ExitCode.OK
    run = find_one(home, name, err)
    if run is None:
        return ExitCode.NO_INPUT
    print_job(out, output, run.record(), run.reference, run.status() or JobStatus())
    return ExitCode.OK


def tell_if_none(jobs: Sequence[object], where: str, err: Console) -> None:
    """A name may be misspelt, which an empty table does not show."""
    if not jobs:
        err.print(f"no jobs in {where}", highlight=False, soft_wrap=True, markup=False)


def print_job(out: Console, output: str, record: object, reference: str, status: JobStatus) -> None:
    """One job with its steps, and what its first condition says."""
    print_records(out, output, record, steps_table(reference, status))
    for condition in status.conditions[:1] if output == "table" else []:
        out.print(f"{condition.reason}: {condition.message}", highlight=False, soft_wrap=True, markup=False)


def print_records(out: Console, output: str, record: object, table: Table) -> None:
    """As JSON for programs, or as a table."""
    if output == "json":
        out.print_json(json.dumps(record, ensure_ascii=False))
    else:
        out.print(table)


def jobs_table(jobs: Iterable[tuple[str, JobStatus, str]]) -> Table:
    """A row for each (kind/name, status, path of the report or ""), with the columns of `kubectl get`."""
    rows = list(jobs)
    table = Table("JOB", "STATE", "STEP", "PROGRESS", "ETA", "SECONDS", box=None)
    if any(report for *_, report in rows):
        table.add_column("REPORT")
    for reference, status, report in rows:
        step = next((step for step in status.steps if step.state in ("Running", "Failed")), None)
        doing = (step.name, step.progress or "", step.eta or "") if step else ("", "", "")
        table.add_row(reference, status.state, *doing, f"{status.cost.step_seconds:.0f}", *([escape(report)] if report else []))
    return table


def steps_table(reference: str, status: JobStatus) -> Table:
    """A row for each step of a job."""
    table = Table(
        "STEP", "STATE", "PROGRESS", "ETA", "SECONDS", "COUNTS", "DIGEST",
        box=None, title=f"{reference}: {status.state}", title_justify="left",
    )  # fmt: skip
    for step in status.steps:
        seconds = "reused" if step.reused else f"{step.seconds or 0:.1f}"
        doing = (step.state, step.progress or "", step.eta or "")
        table.add_row(step.name, *doing, seconds, ", ".join(step.facts), (step.digest or "")[:12])
    return table


def show_logs(home: Home, name: str, step: str | None, follow: bool, out: Console, err: Console) -> int:
    """The output of a job's processes, each line under its process."""
    run = find_one(home, name, err)
    if run is None:
        return ExitCode.NO_INPUT
    shown: dict[Path, int] = {}
    steps = [known.name for known in (run.status() or JobStatus()).steps]
    if step and step not in steps:
        err.print(f"{run.reference} has no step {step}; it has {', '.join(steps)}", highlight=False, markup=False)
        return ExitCode.USAGE
    while True:
        status = run.status() or JobStatus()
        for path in sorted(run.logs.glob("*.log"), key=lambda path: path.stat().st_mtime):
            if step is None or path.name.startswith(f"{step}-"):
                _show_new(path, shown, out)
        if not follow or status.state in ENDED:
            return ExitCode.OK
        time.sleep(FOLLOW_SECONDS)


def _show_new(path: Path, shown: dict[Path, int], out: Console) -> None:
    with path.open("rb") as file:
        file.seek(shown.get(path, 0))
        new = file.read()
    shown[path] = shown.get(path, 0) + len(new)
    for line in new.decode(errors="replace").splitlines():
        out.file.write(f"[{path.stem}] {line}\n")
    out.file.flush()


def download(home: Home, name: str, folder: Path, worker: bool, store: str | None, err: Console) -> int:
    """The result of a job, or its worker, as a plain folder."""
    run = find_one(home, name, err)
    return ExitCode.NO_INPUT if run is None else run_download(*_location(home, run, store), folder, worker, err)


def explain(home: Home, name: str, document: str, store: str | None, out: Console, err: Console) -> int:
    """What happened to one document of an AlignJob."""
    run = find_one(home, name, err)
    if run is None:
        return ExitCode.NO_INPUT
    location, record = _location(home, run, store)
    code, told = ask_module("explain", location, record, document, err=err)
    out.file.write(told)
    return code


def _location(home: Home, run: Run, store: str | None) -> tuple[str | None, Path]:
    """(the store of a run, None for the one that its job names; its record)."""
    named = (run.record() or {}).get("spec", {}).get("store")
    return store or (None if named else str(home.store)), run.folder / "status.json"


def show_report(home: Home, name: str, out: Console, err: Console) -> int:
    """The path of a job's report."""
    run = find_one(home, name, err)
    if run is None or not run.report.is_file():
        if run:
            err.print(f"{run.reference} has no report; see `nativealign status {run.reference}`", highlight=False)
        return ExitCode.NO_INPUT
    out.print(str(run.report), highlight=False, soft_wrap=True, markup=False)
    return ExitCode.OK
