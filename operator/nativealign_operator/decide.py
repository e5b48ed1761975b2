"""decide: from what is seen of a job to what is wanted. Pure and total: no clock, no cluster, no exception for anything a user did.

A job goes through the phases of its plan in order. What it has reached stands in its status (`steps[].state`, `phase`, `attempt`);
every phase is one child Job whose name follows from that. So a decision may be made again and again: the status is written first,
with the version that was read, and the child is created second, under a name that can exist once.

Called by reconcile.py; the local runner has the same order of phases in cli/runner.py.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from nativealign_api.cost import charge
from nativealign_api.kinds import JobObject, references
from nativealign_api.messages import TerminationMessage
from nativealign_api.plan import Phase, Plan, Step, committed_outputs, plan, step_statuses
from nativealign_api.resolved import resolve
from nativealign_api.status import JobStatus, PinnedStore, StepStatus, duration
from nativealign_api.steps import INSPECT, Form
from nativealign_api.vocabulary import Condition, ExitCode
from nativealign_operator.conditions import UNWELL, finished, say, stamp
from nativealign_operator.pod import Json
from nativealign_operator.render import Rendered, RenderSettings, render_phase
from nativealign_operator.seen import PENDING_GRACE_SECONDS, Child, Pod, Seen, Stranger, when

WORKLOAD = "workload"
"""Key of the workload image in `status.pinned.images`. It is a reference and no digest, since later pods start from it: what a
node reports may be pullable nowhere (side-loaded, or another repository with that content). `steps[].images` is the record."""
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 10, 360
"""Between two attempts; doubles with each failure, as for Jobs."""
MAX_DISRUPTIONS = 100
"""Disrupted attempts of one step: they count against no limit of the user's, but a cluster that needs more is unwell."""
DEADLINE = "DeadlineExceeded"
"""Reason of a Job whose active deadline has passed."""
EVENTS_SECONDS = 15
"""Between two looks at a child that does not start and whose pods do not say why: no watch tells of events."""
CHILD_REFUSED = "ChildRefused"
"""Reason where the apiserver will not have a child: of an event, and until the child is there."""
NOT_THERE = "does not exist yet"
"""Said of a referenced job that is missing; one that is under way is said to be in its state."""
NAME_CONFLICT = "NameConflict"
"""Reason of a job whose next child's name somebody else's object has."""
LEAVING_SECONDS, CONFLICT_SECONDS = 2, 30
"""Between two looks at such an object: while it goes, and while it stays."""
FIRST_QUEUE_LOOK, LONGEST_QUEUE_LOOK = timedelta(seconds=2), timedelta(seconds=60)
"""Between two looks at a job that waits in a queue; the longer it has waited the rarer."""


@dataclass(frozen=True)
class Event:
    """One line for `kubectl describe`."""

    kind: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass
class Decision:
    """What is wanted."""

    status: JobStatus
    create: list[Json] = field(default_factory=list)
    """Objects, in order."""
    delete: list[Child] = field(default_factory=list)
    """Jobs, at once; their pods end in the background."""
    stop: list[Child] = field(default_factory=list)
    """Jobs that are there until their pods have ended, since what comes next goes on from what these store in the end."""
    requeue: datetime | None = None
    """When to look again if nothing happens before."""
    events: list[Event] = field(default_factory=list)
    closer: Child | None = None
    """A child that has ended and whose pods tell nothing: list its pods and decide again, before anything is done."""

    def again(self, at: datetime) -> None:
        """Asks for another look, at the earliest of all that were asked for."""
        self.requeue = at if self.requeue is None else min(self.requeue, at)


def decide(seen: Seen, settings: RenderSettings) -> Decision:
    """What is wanted for a job, given what is seen of it."""
    decision = Decision(seen.job.status.model_copy(deep=True))
    status = decision.status
    if seen.deleting:
        return decision
    status.observed_generation = seen.job.metadata.generation
    if finished(status):
        _after_the_end(seen, decision)
        return decision
    if status.start_time is None:
        if not _may_start(seen, decision):
            return decision
        _start(seen, decision, settings)
    _go_on(seen, decision, settings)
    return decision


# Before the start


def _may_start(seen: Seen, decision: Decision) -> bool:
    """Whether all that the job refers to is there; says what is missing."""
    if seen.job.spec.suspend:
        _say(seen, decision, "Suspended", "Suspended", "spec.suspend is set; nothing has started")
        return False
    for reference, accepts_failed_gate in references(seen.job).items():
        problem = _upstream_problem(reference, seen.upstream.get(reference), accepts_failed_gate)
        if problem:
            _say(seen, decision, *problem)
            return False
    return True


def _upstream_problem(reference: str, upstream: JobStatus | None, accepts_failed_gate: bool) -> tuple[str, str, str] | None:
    """State, reason and message where a referenced job cannot be used, or cannot be used yet."""
    if upstream is None:
        return "Waiting", "WaitingForInput", f"{reference} {NOT_THERE}"
    if upstream.state == "Failed":
        return "Stalled", "UpstreamFailed", f"{reference} has failed; this goes on by itself once a job of that name is complete"
    if upstream.state == "GateFailed" and not accepts_failed_gate:
        return "Stalled", "UpstreamFailed", f"a gate of {reference} did not pass; set acceptFailedGate to use its data all the same"
    if not finished(upstream):
        return "Waiting", "WaitingForInput", f"{reference} is {upstream.state}"
    return None


def _start(seen: Seen, decision: Decision, settings: RenderSettings) -> None:
    status = decision.status
    status.start_time = stamp(seen.now)
    status.pinned.upstream = {name: _pin(seen, name) for name in references(seen.job)}
    status.pinned.images = {WORKLOAD: settings.image}
    if settings.store and not seen.job.spec.store:
        status.pinned.store = PinnedStore.model_validate(settings.store.model_dump())
    status.steps = [StepStatus(name=INSPECT, attempt=_first_attempt(seen, INSPECT))]
    decision.events.append(Event("Normal", "Started", "all references are complete; inspecting the inputs"))


def _first_attempt(seen: Seen, step: str) -> int:
    """Past every child that is there already: those of a run whose status was lost tell of that run."""
    return max((child.attempt + 1 for child in seen.children if child.step == step), default=0)


def _pin(seen: Seen, reference: str) -> dict[str, str]:
    upstream = seen.upstream[reference]
    return {"uid": seen.upstream_uids[reference]} | {step.name: step.digest for step in upstream.steps if step.digest}


# Between start and end


@dataclass(frozen=True)
class _Place:
    """Where a job stands: the phase that is next or under way."""

    step: StepStatus
    planned: Step
    phase: Phase
    child: Child | None

    @property
    def is_last(self) -> bool:
        return self.phase == self.planned.phases[-1]


def _go_on(seen: Seen, decision: Decision, settings: RenderSettings) -> None:
    """Takes the results of all phases that are done, then looks after the one that is next or under way."""
    while True:
        place = _place(seen, decision.status)
        if place is None:
            _end(seen, decision)
            return
        if place.child:
            place.step.images = sorted({*place.step.images, *(pod.image for pod in place.child.pods if pod.image)})
        if place.child and not seen.fresh and not _told(place, place.child):
            decision.closer = place.child
            return
        if place.child is None or place.child.outcome != "Complete":
            break
        if not _take_results(seen, decision, place, place.child):
            break
    if finished(decision.status):
        return
    place = _place(seen, decision.status)
    assert place
    decision.delete += [child for child in seen.children if _is_superseded(child, place.step)]
    if seen.job.spec.suspend:
        _suspend(seen, decision, place)
    else:
        _look_after(seen, decision, place, settings)


def _is_superseded(child: Child, step: StepStatus) -> bool:
    """Whether it runs on though a later attempt has taken its place, as where an operator died before it deleted it.

    True by an old status, too: attempts only grow.
    """
    return child.step == step.name and child.attempt < step.attempt and not (child.outcome or child.deleting)


def _place(seen: Seen, status: JobStatus) -> _Place | None:
    """None where every step is committed."""
    step = next((step for step in status.steps if step.state != "Committed"), None)
    if step is None:
        return None
    planned = _plan(seen.job, status).step(step.name)
    phase = next((phase for phase in planned.phases if phase.name == step.phase), planned.phases[0])
    return _Place(step, planned, phase, seen.child(step.name, phase.name, step.attempt))


def _told(place: _Place, child: Child) -> bool:
    """Whether the pods of a child say what is needed of them, or nothing is needed yet."""
    if child.outcome == "Failed":
        return any(pod.phase == "Failed" for pod in child.pods)
    return child.outcome is None or not place.is_last or any(pod.phase == "Succeeded" and pod.message for pod in child.pods)


def _plan(job: JobObject, status: JobStatus) -> Plan:
    return plan(job.kind, job.spec, status.pinned)


def _take_results(seen: Seen, decision: Decision, place: _Place, child: Child) -> bool:
    """Moves on from a phase that is done. False where its last words are lost, and a further attempt must say them again."""
    step = place.step
    message = next((pod.message for pod in child.pods if pod.phase == "Succeeded" and pod.message), None)
    if place.is_last and (message is None or (step.name == INSPECT and message.pinned is None)):
        _another_attempt(seen, decision, place, "ResultLost", f"{child.name} is done, and what it said is lost")
        return False
    if step.state != "Suspended":  # else its time was counted when it was stopped
        _count_time(decision.status, place, child, seen.now)
    if place.is_last:
        assert message
        _commit(seen, decision, place, message)
    else:
        names = [phase.name for phase in place.planned.phases]
        step.phase = names[names.index(place.phase.name) + 1]
        step.progress_percent = step.eta_seconds = None
    return True


def _commit(seen: Seen, decision: Decision, place: _Place, message: TerminationMessage) -> None:
    status, step = decision.status, place.step
    step.state, step.phase, step.progress_percent, step.eta_seconds = "Committed", None, None, None
    step.digest = place.planned.digest or message.digest
    message.show(step)
    charge(seen.job.model_copy(update={"status": status}), step.name, message.usage)
    if step.name == INSPECT:
        _pin_inputs(seen, decision, message)
    status.outputs = committed_outputs(status.steps)
    decision.events.append(Event("Normal", "StepCommitted", f"{step.name}: {', '.join(step.facts) or 'done'}"))


def _pin_inputs(seen: Seen, decision: Decision, message: TerminationMessage) -> None:
    """Fixes what inspect found, and learns which steps are committed already."""
    status = decision.status
    status.pinned = message.pin(status.pinned)
    steps = _plan(seen.job, status).steps
    status.steps = [status.steps[0], *step_statuses(steps[1:], message.committed)]
    for step in status.steps[1:]:
        step.attempt = _first_attempt(seen, step.name)


def _count_time(status: JobStatus, place: _Place, child: Child, now: datetime) -> None:
    """Adds the time of an attempt that has ended, as the Job's own clock tells it; one that waits in a queue costs nothing."""
    if child.started:
        _add_time(status, place, child, (child.finished or now) - child.started)


def _count_run(status: JobStatus, place: _Place, child: Child, now: datetime) -> None:
    """Adds the time of pods that Kueue has taken away: the Job's own clock starts anew when it goes on."""
    running = next((c for c in status.conditions if c.type == Condition.RUNNING and c.status == "True"), None)
    if running and running.last_transition_time:
        _add_time(status, place, child, now - when(running.last_transition_time))


def _add_time(status: JobStatus, place: _Place, child: Child, time: timedelta) -> None:
    seconds = max(0.0, time.total_seconds())
    place.step.seconds = (place.step.seconds or 0.0) + seconds
    status.cost.step_seconds += seconds
    status.cost.accelerator_seconds += seconds * place.phase.resources.gpus_per_node * child.parallelism


# A phase


def _look_after(seen: Seen, decision: Decision, place: _Place, settings: RenderSettings) -> None:
    child, step = place.child, place.step
    if child is None or (step.state == "Suspended" and _outlived(seen, decision, child)):
        _create(seen, decision, place, settings)
    elif step.state == "Suspended":  # what was stopped ends before the next attempt goes on from there
        decision.stop += [] if child.deleting else [child]
        _say(seen, decision, "Waiting", "ChildDeleted", f"{child.name} ends first")
    elif child.outcome == "Failed":
        _count_time(decision.status, place, child, seen.now)
        _failed(seen, decision, place, child)
    elif child.deleting:
        _say(seen, decision, "Retrying", "ChildDeleted", f"{child.name} is being deleted and will be created again")
    else:
        step.state = "Running"
        _watch(seen, decision, place, child, settings)


def _create(seen: Seen, decision: Decision, place: _Place, settings: RenderSettings) -> None:
    step = place.step
    if seen.stranger:
        _make_way(seen, decision, place, seen.stranger)
        return
    if step.state == "Suspended":  # what was stopped goes on as the next attempt
        step.attempt += 1
    not_before = _backoff_ends(seen, place)
    if not_before and seen.now < not_before:
        decision.again(not_before)
        return
    step.state, step.phase = "Running", place.phase.name
    if seen.refused:
        state, message = seen.refused
        say(decision.status, state, CHILD_REFUSED, message, seen.now)
    else:
        state = "Retrying" if step.failures else "Running"
        _say(seen, decision, state, "PodsCreated", f"{step.name} {place.phase.name} is starting")
    decision.create = _rendered(seen, decision, place, settings).objects()


def _rendered(seen: Seen, decision: Decision, place: _Place, settings: RenderSettings) -> Rendered:
    """The objects of the attempt that is next or under way, by the spec as it is now."""
    before = decision.status.pinned
    pinned = replace(settings, image=before.images.get(WORKLOAD, settings.image), store=before.store or settings.store)
    job = seen.job.model_copy(update={"status": decision.status})
    return render_phase(job, place.phase, resolve(job, place.planned, place.phase, attempt=place.step.attempt), pinned)


def _make_way(seen: Seen, decision: Decision, place: _Place, stranger: Stranger) -> None:
    """Another's object is never touched: it goes by itself, or its owner must decide."""
    name = f"{place.step.name} {place.phase.name}"
    if stranger.leaving:
        _say(seen, decision, "Waiting", NAME_CONFLICT, f"{name}: {stranger.name} is of an earlier object and not gone yet")
    else:
        what = f"{stranger.name} is needed and is another's; delete it, or create this job under another name"
        _say(seen, decision, "Stalled", NAME_CONFLICT, f"{name}: {what}")
    decision.again(seen.now + timedelta(seconds=LEAVING_SECONDS if stranger.leaving else CONFLICT_SECONDS))


def _backoff_ends(seen: Seen, place: _Place) -> datetime | None:
    """When the next attempt may start, if the one before it has just failed."""
    before = seen.child(place.step.name, place.phase.name, place.step.attempt - 1)
    if before is None or before.finished is None or before.outcome != "Failed" or not place.step.failures:
        return None
    seconds = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (place.step.failures - 1))
    return before.finished + timedelta(seconds=seconds)


def _suspend(seen: Seen, decision: Decision, place: _Place) -> None:
    """Stops what runs and keeps all results."""
    child = place.child
    if child and place.step.state != "Suspended":
        _count_time(decision.status, place, child, seen.now)
        if child.outcome == "Failed":  # before it could be stopped
            _failed(seen, decision, place, child)
    if finished(decision.status):
        return
    if child and child.outcome is None and not child.deleting:
        decision.stop.append(child)
    if place.step.state == "Running":
        place.step.state = "Suspended"
    _say(seen, decision, "Suspended", "Suspended", "spec.suspend is set; what is committed is kept")


def _watch(seen: Seen, decision: Decision, place: _Place, child: Child, settings: RenderSettings) -> None:
    """What a child that is under way is doing, and whether one of its deadlines has passed."""
    _show_progress(seen, place, child)
    if _outdated(seen, decision, place, child, settings):
        return
    if child.suspended:
        _queued(seen, decision, place, child)
        return
    if _lost(seen, decision, place, child) or _frozen(seen, decision, place, child):
        return
    running = [pod for pod in child.pods if pod.phase == "Running" and not pod.deleting]
    if child.incomplete:
        _waiting(seen, decision, place, child)
    elif running or child.ready:
        state = "Retrying" if place.step.failures and not running else "Running"
        _say(seen, decision, state, "PodsRunning", f"{place.step.name} {place.phase.name} runs{_failures(child)}", pods_run=True)
    elif not _between_pods(seen, decision, place, child):
        _waiting(seen, decision, place, child)


def _outdated(seen: Seen, decision: Decision, place: _Place, child: Child, settings: RenderSettings) -> bool:
    """A child of which no pod has started, for a reason that a change of the spec may have mended, is made anew by that."""
    begun = child.ready or child.succeeded or any(pod.phase != "Pending" for pod in child.pods)
    changed = child.generation and (seen.job.metadata.generation or 0) > child.generation
    if begun or not changed or _rendered(seen, decision, place, settings).content == child.content:
        return False
    decision.delete.append(child)
    place.step.attempt += 1
    message = f"{child.name} has not started; it is made anew by the changed spec"
    decision.events.append(Event("Normal", "SpecChanged", message))
    say(decision.status, "Running", "SpecChanged", message, seen.now)
    decision.again(seen.now)
    return True


def _between_pods(seen: Seen, decision: Decision, place: _Place, child: Child) -> bool:
    """Whether pods have ended and the Job will have others or end, which takes it seconds; one that waits says why itself."""
    ended = [pod for pod in child.pods if pod.ended and not pod.deleting]
    if not ended or any(pod.waiting for pod in child.pods) or seen.trouble:
        return False
    decision.again(seen.now + timedelta(seconds=EVENTS_SECONDS))  # the next pods may wait for what events alone tell
    name = f"{place.step.name} {place.phase.name}"
    if failures := _failures(child):
        _say(seen, decision, "Retrying", cause_of(child)[0], f"{name} is tried again{failures}")
    elif decision.status.state != "Running":  # else what was said may stand for these seconds, and saves a write
        _say(seen, decision, "Running", "PodsSucceeded", f"{name}: {len(ended)} pods are done", pods_run=True)
    return True


def _failures(child: Child) -> str:
    """What became of pods that the Job tries again."""
    failed = [pod for pod in child.pods if pod.phase == "Failed" and not pod.disruption]
    return f"; {len(failed)} pods have failed: {': '.join(cause_of(child))}" if failed else ""


def _queued(seen: Seen, decision: Decision, place: _Place, child: Child) -> None:
    """Kueue holds the child, or has stopped it. No event tells of Kueue's reasons, so they are looked for."""
    _count_run(decision.status, place, child, seen.now)
    reason, message = seen.queue or ("Queued", "Kueue has not admitted it yet")
    _say(seen, decision, "Queued", reason, f"{place.step.name} {place.phase.name}: {message}")
    waited = (seen.now - child.created) / 4
    decision.again(seen.now + min(max(waited, FIRST_QUEUE_LOOK), LONGEST_QUEUE_LOOK))


def _show_progress(seen: Seen, place: _Place, child: Child) -> None:
    """Finished indexes count also where no pod can be asked."""
    told = seen.progress.get(child.name)
    if told is not None and told.percent is not None:
        place.step.progress_percent, place.step.eta_seconds = round(told.percent, 1), told.eta_seconds
    elif place.phase.indexes > 1 and child.succeeded:
        place.step.progress_percent = round(100 * child.succeeded / place.phase.indexes, 1)


def _waiting(seen: Seen, decision: Decision, place: _Place, child: Child) -> None:
    """No pod runs, or not all of a gang: why, and since when. Beyond the start deadline it is stalled until the cause is gone."""
    admitted = child.started is None and seen.job.spec.queue_name is not None  # just now: its clock does not stand yet
    began = seen.now if admitted else child.started or child.created
    waited = seen.now - began
    deadline = began + timedelta(seconds=seen.job.spec.deadlines.start_seconds)
    own = next((pod.waiting for pod in child.pods if pod.waiting), None)
    cause = own or seen.trouble
    name = f"{place.step.name} {place.phase.name}"
    if cause is None and waited < timedelta(seconds=PENDING_GRACE_SECONDS):
        decision.again(began + timedelta(seconds=PENDING_GRACE_SECONDS))
        _say(seen, decision, "Running", "PodsCreated", f"{name} is starting")
        return
    reason, message = cause or ("PodsPending", "no pod has started")
    some = child.incomplete and child.begun
    if some:
        message = f"{some} of {child.parallelism} pods have started{f'; {cause[1]}' if cause else ''}"
    late = seen.now >= deadline and child.succeeded == 0
    if seen.now < deadline:
        decision.again(deadline)
    if own is None:
        decision.again(seen.now + timedelta(seconds=EVENTS_SECONDS))
    since = f"; waiting since {stamp(began)}" if late else ""
    _say(seen, decision, "Stalled" if late else "Waiting", reason, f"{name}: {message}{since}", pods_run=bool(some))


def _frozen(seen: Seen, decision: Decision, place: _Place, child: Child) -> bool:
    """A phase without any progress for too long is stopped, and counts as a failed attempt."""
    told = seen.progress.get(child.name)
    if told is None:
        return False
    limit = timedelta(seconds=seen.job.spec.deadlines.progress_seconds)
    if told.asked - told.changed < limit:  # what nobody has asked about since may have gone on
        return False
    decision.delete.append(child)
    _count_time(decision.status, place, child, seen.now)
    where = "has said nothing" if told.percent is None else f"stands at {told.percent:.1f} %"
    message = f"{child.name} {where} for {duration(limit.total_seconds())}"
    _another_attempt(seen, decision, place, "NoProgress", message)
    return True


def _lost(seen: Seen, decision: Decision, place: _Place, child: Child) -> bool:
    """Pods that a dead node cannot end: the next attempt starts under another name, and they stay harmless.

    Those of an unreachable node have had `nodeLostAfterSeconds` before they were deleted (pod.py, tolerations).
    """
    leaving = [pod for pod in child.pods if pod.disruption and not pod.ended]
    ends = {pod.name: end for pod in leaving if (end := pod.given_up(_node_lost_after(seen), seen.now))}
    lost = [name for name, end in ends.items() if end <= seen.now]
    if not lost:
        for end in ends.values():
            decision.again(end)
        return False
    if not child.deleting:
        decision.delete.append(child)
    _count_time(decision.status, place, child, seen.now)
    _another_attempt(seen, decision, place, "NodeLost", f"{lost[0]} does not end on its node", disrupted=True)
    return True


def _outlived(seen: Seen, decision: Decision, child: Child) -> bool:
    """Whether a child that was stopped has no pods left but those that a dead node cannot end."""
    ends = [pod.given_up(_node_lost_after(seen), seen.now) for pod in child.pods if not pod.ended]
    if not child.deleting or not ends or None in ends:
        return False
    last = max(end for end in ends if end)
    if last > seen.now:
        decision.again(last)
    return last <= seen.now


def _node_lost_after(seen: Seen) -> timedelta:
    return timedelta(seconds=seen.job.spec.node_lost_after_seconds)


# Failures


def _failed(seen: Seen, decision: Decision, place: _Place, child: Child) -> None:
    """Another attempt where it may help: the Job has tried a shard as often as it may, a gang is tried from here."""
    code, message = cause_of(child)
    if child.reason == DEADLINE:
        _fail(seen, decision, place, code, message)
    elif place.phase.form is Form.GANG and disrupted(child):
        _another_attempt(seen, decision, place, "Disrupted", f"{child.name}: {message}", disrupted=True)
    elif place.phase.form is Form.GANG and all(retryable(pod) for pod in child.pods if pod.exit_code):
        _another_attempt(seen, decision, place, code, message)
    else:
        _fail(seen, decision, place, code, message)


def disrupted(child: Child) -> bool:
    """Whether a drain, an eviction or a preemption ended the Job: its policy's rule says so, or one of its pods."""
    return "DisruptionTarget" in child.message or any(pod.disruption for pod in child.pods)


def retryable(pod: Pod) -> bool:
    """Whether the pod's exit code allows for another attempt; an unknown one does."""
    return ExitCode(pod.exit_code).retryable if pod.exit_code in list(ExitCode) else True


def cause_of(child: Child) -> tuple[str, str]:
    """Reason and message of a failed Job: what its failed pods said, what their exit says, or what the Job says."""
    if child.reason == DEADLINE:
        return child.reason, f"{child.name} took longer than deadlines.activeSeconds"
    failed = _telling(child)
    for pod in (pod for pod in failed if pod.message and pod.message.code):
        assert pod.message
        hint = f"; {pod.message.hint}" if pod.message.hint else ""
        return str(pod.message.code), f"{pod.message.message}{hint}"
    if any(pod.out_of_memory for pod in failed):
        return "OutOfMemory", "a pod used more than its memory limit; give more memory or smaller batches"
    ended = next((pod for pod in failed if pod.exit_code), None)
    if ended:
        return "ProcessDied", f"{ended.name} ended with exit code {ended.exit_code} and said nothing"
    return child.reason or "JobFailed", child.message


def _telling(child: Child) -> list[Pod]:
    """The failed pods, first those that tell why the Job failed: of the indexes that it gave up, with an exit that ends an index at
    once, the earliest. Others may have been tried again with success; a disrupted one tells of the disruption alone.
    """
    failed = [pod for pod in child.pods if pod.phase == "Failed"]
    blamed = [pod for pod in failed if not pod.disruption and pod.index in (child.failed_indexes or {pod.index})]
    return sorted(blamed or failed, key=lambda pod: (retryable(pod), pod.finished is None, pod.finished))


def _another_attempt(seen: Seen, decision: Decision, place: _Place, reason: str, message: str, *, disrupted: bool = False) -> None:
    """Counts an attempt that has ended and plans the next one, unless the limit is reached."""
    step, limit = place.step, seen.job.spec.retries
    if disrupted:
        step.disruptions += 1
        used_up = step.disruptions > MAX_DISRUPTIONS
    else:
        step.failures += 1
        used_up = step.failures > limit
    if used_up:
        _fail(seen, decision, place, reason, message)
        return
    step.attempt += 1
    step.state, step.progress_percent, step.eta_seconds = "Running", None, None
    said = "" if disrupted else f" ({step.failures} of {limit} retries)"
    decision.events.append(Event("Warning", reason, f"{message}; trying again{said}"))
    _say(seen, decision, "Retrying", reason, f"{place.step.name} {place.phase.name}: {message}")
    decision.again(seen.now)


def _fail(seen: Seen, decision: Decision, place: _Place, reason: str, message: str) -> None:
    place.step.state = "Failed"
    _finish(seen, decision, "Failed", reason, f"{place.step.name} {place.phase.name}: {message}")


# The end


def _end(seen: Seen, decision: Decision) -> None:
    failed = [gate for step in decision.status.steps for gate in step.failed_gates]
    if failed:
        _finish(seen, decision, "GateFailed", "GateFailed", f"gate not passed: {', '.join(failed)}; the data is kept")
    else:
        _finish(seen, decision, "Complete", "StepsCommitted", "all steps are committed")


def _finish(seen: Seen, decision: Decision, state: str, reason: str, message: str) -> None:
    decision.status.completion_time = stamp(seen.now)
    _say(seen, decision, state, reason, message)
    _after_the_end(seen, decision)


def _after_the_end(seen: Seen, decision: Decision) -> None:
    """The object stays; nothing runs any more, and its Jobs go when their time is over."""
    left = [child for child in seen.children if not child.deleting]
    decision.delete += [child for child in left if not child.outcome and child not in decision.delete]
    ttl = seen.job.spec.ttl_seconds_after_finished
    if ttl is None or not decision.status.completion_time:
        return
    over = datetime.fromisoformat(decision.status.completion_time) + timedelta(seconds=ttl)
    if seen.now < over:
        decision.again(over)
    else:
        decision.delete += [child for child in left if child not in decision.delete]


SILENT = {"Running", "Waiting", "Retrying"}
"""States whose change of reason alone is no event; the steps have events of their own."""


def _say(seen: Seen, decision: Decision, state: str, reason: str, message: str, *, pods_run: bool = False) -> None:
    """Puts the state into the status; a new one, or a stalled job's new reason, is an event."""
    before = decision.status.state, ready_reason(decision.status)
    say(decision.status, state, reason, message, seen.now, pods_run=pods_run)
    if before != (state, reason) and not (state in SILENT and before[0] in SILENT):
        decision.events.append(Event("Warning" if state in UNWELL else "Normal", reason, message))


def ready_reason(status: JobStatus) -> str:
    """Why the job is or is not ready."""
    return next((c.reason for c in status.conditions if c.type == "Ready"), "")
