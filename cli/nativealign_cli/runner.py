"""`nativealign run`: the operator's work on one machine. Plans as the operator does, runs every phase as processes, keeps status.

Every run inspects its inputs again, so an edited corpus or code of conduct is seen; equal inputs have equal digests, and what is
committed under a digest is never computed twice.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nativealign_api.cost import charge
from nativealign_api.kinds import JobObject, references
from nativealign_api.messages import TerminationMessage
from nativealign_api.plan import Phase, Step, committed_outputs, plan, step_statuses
from nativealign_api.resolved import ResolvedJob, child_name, resolve
from nativealign_api.status import Cost, JobStatus, Pinned, StepStatus
from nativealign_api.steps import INSPECT
from nativealign_api.vocabulary import ExitCode
from nativealign_cli.display import Display
from nativealign_cli.forkserver import ForkServer
from nativealign_cli.process import Interrupted, PhaseFailed, PhaseProcesses
from nativealign_cli.state import Home, Run, local_uid
from nativealign_operator.conditions import say

GATE_FAILED = 1
"""Exit code when all ran and a gate failed."""


class Blocked(Exception):
    """A job cannot start because of another one. `reason` is UpstreamMissing or UpstreamFailed."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def in_order(jobs: list[tuple[JobObject, Path]]) -> list[tuple[JobObject, Path]]:
    """Every job after those of the list that it refers to; references never form a circle, kinds refer downwards only."""
    kinds = ["AlignJob", "PretrainJob", "EvalJob"]
    return sorted(jobs, key=lambda item: kinds.index(item[0].kind))


@dataclass
class Runner:
    """Runs jobs one after another against one store."""

    home: Home
    display: Display
    server: ForkServer
    store_folder: str | None
    """A folder as the store; None for the store that each spec names."""

    def run(self, jobs: list[tuple[JobObject, Path]]) -> int:
        """Runs all jobs; returns the exit code of the first that failed, else 0. A failed job stops only those that need it."""
        codes = [self._run_job(job, path) for job, path in in_order(jobs)]
        worst = next((code for code in codes if code), 0)
        if len(jobs) > 1:
            self._chain_report([job for job, _ in jobs])
        return worst

    def _run_job(self, job: JobObject, path: Path) -> int:
        job.metadata.uid = local_uid(job)
        run = self.home.run(job)
        before = run.status()
        job.status = JobStatus(state="Running", start_time=_now(), cost=before.cost if before else Cost())
        run.logs.mkdir(parents=True, exist_ok=True)
        self.display.job(job.reference)
        code = self._attempt(job, path, run, before)
        job.status.completion_time = _now()
        run.write(job)
        if not (before and _tells_the_same(before, job.status) and run.report.is_file()):
            self._make_report([job], run.report)
        self.display.finished(job, run.report if run.report.is_file() else None)
        return code

    def _attempt(self, job: JobObject, path: Path, run: Run, before: JobStatus | None) -> int:
        if job.spec.suspend:
            return _end(job, "Suspended", "Suspended", "spec.suspend is set; what is committed is kept", ExitCode.OK)
        try:
            job.status.pinned = Pinned(upstream=self._upstream(job))
            failed_gates = self._steps(job, path, run, before)
        except Blocked as error:
            return _end(job, "Failed", error.reason, str(error), ExitCode.NO_INPUT)
        except PhaseFailed as error:
            return _end(job, "Failed", error.code, f"{error}" + (f"; {error.hint}" if error.hint else ""), error.exit_code)
        except (Interrupted, KeyboardInterrupt):
            _end(job, "Suspended", "Interrupted", "stopped; run it again to go on", ExitCode.TEMPORARY)
            run.write(job)
            raise
        if failed_gates:
            return _end(
                job, "GateFailed", "GateFailed", f"gate not passed: {', '.join(failed_gates)}; the data is kept", GATE_FAILED
            )
        return _end(job, "Complete", "StepsCommitted", "all steps are committed", ExitCode.OK)

    def _upstream(self, job: JobObject) -> dict[str, dict[str, str]]:
        """What the referenced jobs have committed, by kind/name. Raises Blocked."""
        return {reference: self._pin(job, reference, accepted) for reference, accepted in references(job).items()}

    def _pin(self, job: JobObject, reference: str, accept_failed_gate: bool) -> dict[str, str]:
        kind, _, name = reference.partition("/")
        twin = job.model_copy(deep=True)
        twin.kind, twin.metadata.name = kind, name
        twin.metadata.uid = uid = local_uid(twin)
        status = self.home.run(twin).status()
        if status is None:
            raise Blocked("UpstreamMissing", f"{reference} never ran here; give its manifest too")
        if status.state != "Complete" and not (status.state == "GateFailed" and accept_failed_gate):
            raise Blocked("UpstreamFailed", f"{reference} is {status.state}; see `nativealign status {reference}`")
        return {"uid": uid} | {step.name: step.digest for step in status.steps if step.digest}

    def _steps(self, job: JobObject, path: Path, run: Run, before: JobStatus | None) -> list[str]:
        """Runs what is not committed; returns the gates that failed. A reused step keeps what `before` knew of it."""
        first = plan(job.kind, job.spec, job.status.pinned).steps[0]
        job.status.steps = [StepStatus(name=INSPECT)]
        found = self._step(job, path, run, first, job.status.steps[0])
        job.status.pinned = found.pin(job.status.pinned)
        run_plan = plan(job.kind, job.spec, job.status.pinned)
        seconds = {step.digest: step.seconds for step in before.steps} if before else {}
        job.status.steps += step_statuses(run_plan.steps[1:], found.committed)
        for status in job.status.steps:
            status.seconds = status.seconds or seconds.get(status.digest)
        job.status.outputs = committed_outputs(job.status.steps)
        self.display.plan(job)
        for step, status in zip(run_plan.steps[1:], job.status.steps[1:], strict=True):
            run.write(job)
            if not status.reused:
                self._step(job, path, run, step, status)
        return [gate for status in job.status.steps for gate in status.failed_gates]

    def _step(self, job: JobObject, path: Path, run: Run, step: Step, status: StepStatus) -> TerminationMessage:
        """Runs the phases of a step; returns the last phase's termination message."""
        began = time.monotonic()
        last = TerminationMessage()
        status.state = "Running"
        for phase in step.phases:
            status.phase = phase.name
            run.write(job)
            phase_began = time.monotonic()
            last = self._phase(job, path, run, step, phase, status)[-1]
            seconds = time.monotonic() - phase_began
            job.status.cost.accelerator_seconds += phase.resources.gpus_per_node * phase.parallelism * seconds
        # the commit's message has the usage of all shards, also of those that an interrupted run has committed
        charge(job, step.name, last.usage)
        status.state, status.phase, status.digest = "Committed", None, step.digest or last.digest
        status.seconds = round(time.monotonic() - began, 2)
        last.show(status)
        job.status.outputs = committed_outputs(job.status.steps)
        job.status.cost.step_seconds += status.seconds
        self.display.step(status)
        return last

    def _phase(
        self, job: JobObject, path: Path, run: Run, step: Step, phase: Phase, status: StepStatus
    ) -> list[TerminationMessage]:
        resolved = self._resolve(job, path, step, phase)
        name = child_name(job.kind, job.metadata.name, step.name, phase.name, 0)
        job_file = run.folder.resolve() / "jobs" / f"{name}.json"
        job_file.parent.mkdir(parents=True, exist_ok=True)
        job_file.write_bytes(resolved.dump())

        def watch(share: float) -> None:
            self.display.phase(job, status, phase, share)

        try:
            scratch = self.home.root / "scratch"
            return PhaseProcesses(self.server, resolved, phase, job_file, run.logs, scratch, job.spec.retries, watch).run()
        except PhaseFailed:
            status.state = "Failed"
            raise
        except Interrupted:
            status.state = "Suspended"
            raise

    def _resolve(self, job: JobObject, path: Path, step: Step, phase: Phase) -> ResolvedJob:
        return resolve(
            job,
            step,
            phase,
            store_folder=self.store_folder or (None if job.spec.store else str(self.home.store.resolve())),
            base_directory=str(path.parent.resolve()),
        )

    def _chain_report(self, jobs: list[JobObject]) -> None:
        """One report for all jobs of this call, made again when it is of other jobs or one of theirs is newer."""
        path, of = self.home.root / "report.html", self.home.root / "report.jobs"
        names = "\n".join(str(self.home.run(job).folder) for job in jobs)
        reports = [run.report for run in map(self.home.run, jobs) if run.report.is_file()]
        made = path.stat().st_mtime if path.is_file() and of.is_file() and of.read_text() == names else 0.0
        if any(report.stat().st_mtime > made for report in reports):
            self._make_report(jobs, path)
            of.write_text(names)
        if path.is_file():
            self.display.chain(path)

    def _make_report(self, jobs: list[JobObject], path: Path) -> None:
        statuses = [str(self.home.run(job).folder / "status.json") for job in jobs]
        elsewhere = not self.store_folder and all(job.spec.store for job in jobs)
        store = [] if elsewhere else ["--store", self.store_folder or str(self.home.store.resolve())]
        said = self.home.root / "scratch" / "report.log"
        said.parent.mkdir(exist_ok=True)
        said.unlink(missing_ok=True)
        code = self.server.start("nativealign_workloads.report", [*store, "--output", str(path), *statuses], {}, said).wait()
        if code:
            lines = said.read_text().strip().splitlines()
            self.display.warn(f"no report: {lines[-1] if lines else code}")


def _tells_the_same(before: JobStatus, now: JobStatus) -> bool:
    """Whether a report of the one status is a report of the other."""
    sides = [([step.digest for step in side.steps], side.state, [c.message for c in side.conditions]) for side in (before, now)]
    return sides[0] == sides[1] and all(step.reused for step in now.steps if step.name != INSPECT)


def _end(job: JobObject, state: str, reason: str, message: str, code: int) -> int:
    """Writes the end of a run into the status."""
    say(job.status, state, reason, message, datetime.now(UTC))
    return int(code)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
