"""What `run` shows: a bar for each phase on a terminal, plain lines elsewhere."""

import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from nativealign_api.kinds import JobObject
from nativealign_api.plan import Phase
from nativealign_api.status import StepStatus

LINE_SECONDS = 10.0
"""Between two progress lines where there is no terminal."""


class Display:
    """Shows how a run goes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._key: tuple[str, str, str] | None = None
        self._last_line = 0.0
        self._began = 0.0

    def job(self, reference: str) -> None:
        self._console.print(f"[bold]{reference}[/bold]")

    def plan(self, job: JobObject) -> None:
        reused = [step.name for step in job.status.steps if step.reused]
        if reused:
            self._console.print(f"  done before: {', '.join(reused)}")

    def phase(self, job: JobObject, step: StepStatus, phase: Phase, share: float) -> None:
        """Called many times a second while a phase runs."""
        key = (job.reference, step.name, phase.name)
        if key != self._key:
            self._close()
            self._key, self._began, self._last_line = key, time.monotonic(), time.monotonic()
            if self._console.is_terminal:
                columns = (TextColumn("  {task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
                self._bar = Progress(*columns, console=self._console, transient=True)
                self._bar.start()
                self._bar.add_task(f"{step.name} {phase.name}", total=1.0)
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=share)
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            elapsed = self._last_line - self._began
            eta = f", about {elapsed * (1 - share) / share:.0f} s left" if share else ""
            self._console.print(f"  {step.name} {phase.name}: {100 * share:.0f} %{eta}", highlight=False)

    def step(self, status: StepStatus) -> None:
        self._close()
        self._console.print(f"  {status.name}: {', '.join(status.facts) or 'done'}  ({status.seconds:.1f} s)", highlight=False)

    def finished(self, job: JobObject, report: Path | None) -> None:
        self._close()
        status = job.status
        if status.state == "Complete":
            self._console.print(
                f"  [green]Complete[/green]{escape(f', report: {report}' if report else '')}", highlight=False, soft_wrap=True
            )
            return
        condition = status.conditions[0]
        told = escape(f"{condition.reason}: {condition.message}")
        self._console.print(f"  [red]{status.state}[/red] {told}", highlight=False, soft_wrap=True)

    def chain(self, report: Path) -> None:
        self._console.print(f"report: {report}", highlight=False, soft_wrap=True, markup=False)

    def warn(self, message: str) -> None:
        self._console.print(f"  [yellow]{escape(message)}[/yellow]", highlight=False, soft_wrap=True)

    def _close(self) -> None:
        if self._bar:
            self._bar.stop()
        self._bar, self._key = None, None
