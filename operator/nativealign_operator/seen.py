"""What the operator sees of a job: the object, its child Jobs, their pods. Pure: from the JSON that Kubernetes gives to facts.

`decide` knows these classes alone, so that it can be tested without a cluster.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from nativealign_api.kinds import JobObject
from nativealign_api.messages import TerminationMessage, unpack
from nativealign_api.status import JobStatus
from nativealign_api.vocabulary import ANNOTATION_CONTENT, ANNOTATION_GENERATION, LABEL_ATTEMPT, LABEL_PHASE, LABEL_STEP
from nativealign_operator.pod import CONTAINER, LABEL_JOB_NAME

Json = dict[str, Any]

DISRUPTED = "DisruptionTarget"
"""Condition of a pod that a drain, an eviction or a preemption ends."""
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
QUEUE_WAITS = {"Evicted": "True", "QuotaReserved": "False"}
"""Conditions of a Workload that tell why it waits, with the status in which they do."""
IDLE_REASONS = {"ContainerCreating", "PodInitializing"}
"""Reasons of a waiting container that say nothing."""
TROUBLES = {"FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox", "NetworkNotReady", "FailedCreate"}
"""Reasons of events why pods do not start. The status of the pod, or of the Job that has none, does not tell them."""
LONGEST_INDEX = 10
"""Digits; a Job has fewer than 2^31 indexes."""
PENDING_GRACE_SECONDS = 5
"""A pod needs a moment to start; before that its reason would only flicker."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a child Job."""

    name: str
    uid: str
    job: str
    """Name of the Job that made it."""
    index: int
    phase: str
    """Pending, Running, Succeeded, Failed."""
    address: str | None = None
    image: str | None = None
    """`repository@sha256:…`, or `sha256:…` where it came from no registry; None until it runs."""
    exit_code: int | None = None
    out_of_memory: bool = False
    told: str = ""
    """Its termination message as it stands; it is read when it is asked for, since its pod is not to be trusted with memory."""
    waiting: tuple[str, str] | None = None
    """Reason and message of what it waits for, e.g. ImagePullBackOff, Unschedulable."""
    disruption: str | None = None
    """Reason of its condition DisruptionTarget."""
    deleting: datetime | None = None
    """When the grace of its deletion ends; None where nobody wants it gone."""
    unreachable: bool = False
    """Whether it is deleted because nobody can reach its node: it cannot end there."""
    finished: datetime | None = None

    @property
    def ended(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    def given_up(self, limit: timedelta, now: datetime) -> datetime | None:
        """When it counts as one that its node cannot end: so long after its grace, or now; None while nobody wants it gone."""
        return now if self.unreachable else self.deleting and self.deleting + limit

    @property
    def message(self) -> TerminationMessage | None:
        """What it said in the end; None where that is nothing or no message of ours."""
        return unpack(self.told) if self.told else None


@dataclass(frozen=True)
class Child:
    """One child Job: one attempt of one phase."""

    name: str
    uid: str
    step: str
    phase: str
    attempt: int
    config_map: str | None
    service: str | None
    """The headless Service that its pods are named by, for a gang of several nodes."""
    created: datetime
    started: datetime | None
    """When its pods were first wanted; None while it is suspended."""
    finished: datetime | None
    outcome: str | None
    """Complete or Failed, once all its pods are gone."""
    reason: str
    message: str
    suspended: bool
    parallelism: int
    """Pods at the same time; Kueue may have admitted fewer than were asked for."""
    deleting: bool
    ready: int
    succeeded: int
    failed_indexes: frozenset[int]
    """Indexes of a sharded phase that the Job has given up."""
    generation: int
    """Of the job's spec that it was made from; 0 where it does not say."""
    content: str
    """A hash of what it was made by."""
    pods: tuple[Pod, ...] = ()

    @property
    def wanted(self) -> bool:
        """Whether its pods are to run now."""
        return not (self.suspended or self.deleting or self.outcome)

    @property
    def begun(self) -> int:
        """Pods that have started, ended ones among them."""
        return max(sum(pod.phase != "Pending" for pod in self.pods), self.ready + self.succeeded)

    @property
    def incomplete(self) -> bool:
        """Whether it is a gang of several nodes that lacks some of its pods, so that the others can only wait for them."""
        return self.service is not None and self.begun < self.parallelism


@dataclass(frozen=True)
class Stranger:
    """An object of somebody else's under a name that a child of the job needs."""

    name: str
    """kind/name."""
    leaving: bool
    """Whether it goes by itself: it is being deleted, or was made for an earlier job of the same name."""


@dataclass(frozen=True)
class Progress:
    """What the pods of a child said last."""

    percent: float | None
    """Of the whole phase, 0 to 100; None where none has said anything yet."""
    eta_seconds: float | None
    changed: datetime
    """When any of them last came further."""
    asked: datetime
    """When they were asked last."""


@dataclass(frozen=True)
class Seen:
    """Everything that a decision stands on."""

    job: JobObject
    now: datetime
    deleting: bool = False
    children: tuple[Child, ...] = ()
    upstream: dict[str, JobStatus] = field(default_factory=dict)
    """Status of each referenced job that there is, by kind/name."""
    upstream_uids: dict[str, str] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    """By name of the child."""
    queue: tuple[str, str] | None = None
    """Why Kueue holds the current child: reason and message."""
    trouble: tuple[str, str] | None = None
    """Why the current child does not start, as events tell it: reason and message. None where a pod's own status says why."""
    stranger: Stranger | None = None
    """What has the name of the next child."""
    refused: tuple[str, str] | None = None
    """State and message where the apiserver would not have the next child when it was last tried."""
    fresh: bool = False
    """Whether the pods were just listed: a watch of pods may lag behind that of Jobs."""

    def child(self, step: str, phase: str, attempt: int) -> Child | None:
        return next((c for c in self.children if (c.step, c.phase, c.attempt) == (step, phase, attempt)), None)


def read_child(job: Json, pods: Iterable[Pod]) -> Child:
    """A batch/v1 Job with its pods."""
    metadata, spec, status = job["metadata"], job["spec"], job.get("status", {})
    labels, annotations = metadata.get("labels", {}), metadata.get("annotations") or {}
    ended = _condition(status, "Complete") or _condition(status, "Failed")
    return Child(
        name=metadata["name"],
        uid=metadata["uid"],
        step=labels.get(LABEL_STEP, ""),
        phase=labels.get(LABEL_PHASE, ""),
        attempt=int(labels.get(LABEL_ATTEMPT, "0")),
        config_map=_config_map(metadata["name"], spec),
        service=spec.get("template", {}).get("spec", {}).get("subdomain"),
        created=when(metadata["creationTimestamp"]),
        started=when(status["startTime"]) if status.get("startTime") and not spec.get("suspend") else None,
        finished=when(ended["lastTransitionTime"]) if ended else None,
        outcome=ended["type"] if ended else None,
        reason=ended.get("reason", "") if ended else "",
        message=ended.get("message", "") if ended else "",
        suspended=bool(spec.get("suspend")),
        parallelism=spec.get("parallelism", 1),
        deleting="deletionTimestamp" in metadata,
        ready=status.get("ready", 0),
        succeeded=status.get("succeeded", 0),
        failed_indexes=_indexes(status.get("failedIndexes", "")),
        generation=int(annotations.get(ANNOTATION_GENERATION, "0")),
        content=annotations.get(ANNOTATION_CONTENT, ""),
        pods=tuple(sorted(pods, key=lambda pod: (pod.index, pod.name))),
    )


def read_stranger(value: Json, kind: str, job: JobObject) -> Stranger | None:
    """Who has a child's name; None if it is this job's own."""
    metadata = value["metadata"]
    owner: Json = next((owner for owner in metadata.get("ownerReferences") or [] if owner.get("controller")), {})
    if owner.get("uid") == job.metadata.uid:
        return None
    earlier = (owner.get("kind"), owner.get("name")) == (job.kind, job.metadata.name)
    return Stranger(f"{kind}/{metadata['name']}", leaving=earlier or "deletionTimestamp" in metadata)


def read_pod(pod: Json) -> Pod:
    """A pod with the container of a phase, before which sidecars that others add may be listed. Any user may make a pod with our
    labels.
    """
    metadata, status = pod["metadata"], pod.get("status", {})
    container: Json = next((found for found in status.get("containerStatuses") or [] if found["name"] == CONTAINER), {})
    ended = container.get("state", {}).get("terminated") or {}
    disruption = _condition(status, DISRUPTED)
    image = container.get("imageID", "").rpartition("://")[2]
    index = (metadata.get("annotations") or {}).get(COMPLETION_INDEX, "0")
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        job=metadata.get("labels", {}).get(LABEL_JOB_NAME, ""),
        index=int(index) if index.isdecimal() and len(index) <= LONGEST_INDEX else 0,
        phase=status.get("phase", "Pending"),
        address=status.get("podIP"),
        image=image if "sha256:" in image else None,
        exit_code=ended.get("exitCode"),
        out_of_memory=ended.get("reason") == "OOMKilled",
        told=ended.get("message", ""),
        waiting=_waiting(status, container),
        disruption=disruption.get("reason", DISRUPTED) if disruption else None,
        deleting=when(metadata["deletionTimestamp"]) if "deletionTimestamp" in metadata else None,
        unreachable="deletionTimestamp" in metadata and _is_unreachable(status, disruption),
        finished=when(ended["finishedAt"]) if ended.get("finishedAt") else None,
    )


def silent(children: Iterable[Child], now: datetime) -> str | None:
    """Uid of what events may tell about where a child does not start: a pod that waits without a reason, or a Job without pods."""
    late = timedelta(seconds=PENDING_GRACE_SECONDS)
    wanted = (c for c in children if c.wanted and now - (c.started or c.created) >= late)
    child = next((c for c in wanted if c.incomplete or not (c.ready or any(pod.phase == "Running" for pod in c.pods))), None)
    if child is None or any(pod.waiting for pod in child.pods):
        return None
    return next((pod.uid for pod in child.pods if pod.phase == "Pending" and not pod.deleting), child.uid)


def trouble(events: Iterable[Json]) -> tuple[str, str] | None:
    """Reason and message of the last of an object's events, if it is a trouble: what came before it may be over."""
    told = [event for event in events if event.get("reason") != "Scheduled"]  # by a finer clock than a kubelet's
    last = max(told, key=lambda event: (told_at(event), event["metadata"]["name"]), default=None)
    return (last["reason"], last.get("message", "")) if last and last.get("reason") in TROUBLES else None


def told_at(event: Json) -> datetime:
    """When an event was last told."""
    return when(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])


def read_queue(workload: Json) -> tuple[str, str]:
    """Reason and message of why a Workload of Kueue's waits: what stopped it, why it has no quota, or what it wants besides."""
    status = workload.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    told = [conditions[kind] for kind, waits in QUEUE_WAITS.items() if conditions.get(kind, {}).get("status") == waits]
    if told:
        return told[0].get("reason", "Queued"), "; ".join(dict.fromkeys(condition.get("message", "") for condition in told))
    if "QuotaReserved" not in conditions:
        return "Queued", "Kueue has not looked at it yet"
    checks = [check for check in status.get("admissionChecks") or [] if check["state"] != "Ready"]
    waits_for = [": ".join(filter(None, [f"{check['name']} is {check['state']}", check.get("message")])) for check in checks]
    return "AdmissionChecks", "; ".join(["quota is reserved", *waits_for])


def when(timestamp: str) -> datetime:
    """RFC 3339, as Kubernetes writes it."""
    return datetime.fromisoformat(timestamp)


def _waiting(status: Json, container: Json) -> tuple[str, str] | None:
    scheduled: Json = next((c for c in status.get("conditions") or [] if c["type"] == "PodScheduled"), {})
    if scheduled.get("status") == "False":
        return scheduled.get("reason", "Unschedulable"), scheduled.get("message", "")
    waiting = container.get("state", {}).get("waiting")
    if waiting and waiting.get("reason") not in IDLE_REASONS:
        return waiting.get("reason", "Waiting"), waiting.get("message", "")
    return None


def _is_unreachable(status: Json, disruption: Json | None) -> bool:
    """Kubernetes marks the pods of a node that it cannot reach as not ready, and then deletes them by the node's taint. A pod that
    a living node has ended is not ready either, and does not run.
    """
    by_taint = disruption is not None and disruption.get("reason") == "DeletionByTaintManager"
    return by_taint and status.get("phase") == "Running" and not _condition(status, "Ready")


def _indexes(text: str) -> frozenset[int]:
    """Of a Job's status, as it writes them: "1,3-5"."""
    spans = (span.partition("-") for span in text.split(",") if span)
    return frozenset(index for first, _, last in spans for index in range(int(first), int(last or first) + 1))


def _condition(status: Json, kind: str) -> Json | None:
    found = (c for c in status.get("conditions") or [] if c["type"] == kind and c["status"] == "True")
    return next(found, None)


def _config_map(job: str, spec: Json) -> str | None:
    """The ConfigMap with the ResolvedJob, which goes with the Job and is named by it; a policy may have added others' volumes."""
    volumes = spec.get("template", {}).get("spec", {}).get("volumes") or []
    sources = (source for volume in volumes for source in volume.get("projected", {}).get("sources", []))
    names = (str(source["configMap"]["name"]) for source in sources if "configMap" in source)
    return next((name for name in names if name.startswith(f"{job}-")), None)
