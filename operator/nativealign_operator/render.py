"""From a phase to the Kubernetes objects that run it. Pure; called by the operator's act step and by `nativealign render`.

Enters the job, the phase of its plan, what its pods are told (ResolvedJob) and the installation's settings. Leaves an immutable
ConfigMap, for a gang of several nodes a headless Service, and one batch/v1 Job. They are created once, in this order, and never
patched. No Secret is read: the pods mount them.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from nativealign_api.common import Store
from nativealign_api.kinds import JobObject
from nativealign_api.plan import Phase
from nativealign_api.resolved import ResolvedJob, child_name
from nativealign_api.steps import Form
from nativealign_api.vocabulary import (
    ANNOTATION_CONTENT,
    ANNOTATION_GENERATION,
    API_VERSION,
    LABEL_ATTEMPT,
    LABEL_JOB,
    LABEL_KIND,
    LABEL_PHASE,
    LABEL_STEP,
    MANAGED_BY,
    ExitCode,
)
from nativealign_operator.pod import CONTAINER, JOB_FILE, LABEL_JOB_NAME, Json, pod_template

QUEUE_NAME = "kueue.x-k8s.io/queue-name"
MIN_PARALLELISM = "kueue.x-k8s.io/job-min-parallelism"
"""Annotation: Kueue may admit a sharded Job with fewer pods than it asks for (partial admission)."""

FAIL_JOB_CODES = sorted({ExitCode.USAGE, ExitCode.NO_INPUT, ExitCode.NO_PERMISSION, ExitCode.CONFIG})
"""No shard can succeed; the others need not try."""
GANG_GRACE_SECONDS = 600
"""For the checkpoint that a gang writes when it is stopped."""
SHARD_GRACE_SECONDS = 30


@dataclass(frozen=True)
class RenderSettings:
    """What the installation decides."""

    image: str
    """Workload image of jobs that name none."""
    store: Store | None = None
    """Store of jobs that name none."""
    token_audience: str = "sts.amazonaws.com"
    """Audience of the service account token that pods with a service account get."""
    short_queue: str | None = None
    """Kueue LocalQueue for the look-ups and commits of queued jobs, where the cluster lets nothing start without a queue."""


@dataclass(frozen=True)
class Rendered:
    """The objects of one phase."""

    config_map: Json
    service: Json | None
    """For a gang of several nodes."""
    job: Json

    @property
    def content(self) -> str:
        """A hash of all that a change of the spec can change."""
        return str(self.job["metadata"]["annotations"][ANNOTATION_CONTENT])

    def objects(self) -> list[Json]:
        """In the order in which they are to be created."""
        return [self.config_map, *([self.service] if self.service else []), self.job]


def render_phase(job: JobObject, phase: Phase, resolved: ResolvedJob, settings: RenderSettings) -> Rendered:
    """The objects of one attempt of one phase. `resolved` gets the installation's store if the job names none."""
    if resolved.store is None and resolved.store_folder is None:
        resolved = resolved.model_copy(update={"store": settings.store})
    name = child_name(job.kind, job.metadata.name, resolved.step, phase.name, resolved.attempt)
    config_map = _config_map(job, name, resolved)
    service = _service(job, name, resolved) if phase.form is Form.GANG and phase.indexes > 1 else None
    return Rendered(config_map, service, _job(job, name, phase, resolved, config_map["metadata"]["name"], settings))


def _metadata(job: JobObject, name: str, resolved: ResolvedJob) -> Json:
    owner = {
        "apiVersion": API_VERSION,
        "kind": job.kind,
        "name": job.metadata.name,
        "uid": job.metadata.uid or "",
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": labels(resolved),
        "ownerReferences": [owner],
    }


def labels(resolved: ResolvedJob) -> dict[str, str]:
    """Labels of every object of a phase, its pods included."""
    return {
        "app.kubernetes.io/name": "nativealign",
        "app.kubernetes.io/instance": resolved.name,
        "app.kubernetes.io/component": resolved.step,
        "app.kubernetes.io/managed-by": MANAGED_BY,
        LABEL_KIND: resolved.kind,
        LABEL_JOB: resolved.name,
        LABEL_STEP: resolved.step,
        LABEL_PHASE: resolved.phase,
        LABEL_ATTEMPT: str(resolved.attempt),
    }


def _config_map(job: JobObject, name: str, resolved: ResolvedJob) -> Json:
    content = resolved.dump()
    own = f"{name}-{hashlib.sha256(content).hexdigest()[:10]}"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(job, own, resolved),
        "immutable": True,
        "data": {JOB_FILE: content.decode()},
    }


def _service(job: JobObject, name: str, resolved: ResolvedJob) -> Json:
    """Gives each pod of a gang a name, also before it is ready: the ranks must find each other to become so."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(job, name, resolved),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {LABEL_JOB_NAME: name},
        },
    }


def _job(job: JobObject, name: str, phase: Phase, resolved: ResolvedJob, config_map: str, settings: RenderSettings) -> Json:
    gang = phase.form is Form.GANG
    metadata = _metadata(job, name, resolved)
    annotations = {ANNOTATION_GENERATION: str(job.metadata.generation or 0)}
    queue = _queue(job, phase, resolved, settings)
    if queue:
        metadata["labels"] = metadata["labels"] | {QUEUE_NAME: queue}
        if phase.form is Form.SHARDED and phase.parallelism > 1:
            annotations[MIN_PARALLELISM] = "1"
    spec: Json = {
        "completionMode": "Indexed",
        "completions": phase.indexes,
        "parallelism": phase.parallelism,
        "podReplacementPolicy": "Failed",
        **(_gang_failures() if gang else _shard_failures(job.spec.retries)),
    }
    if job.spec.deadlines.active_seconds:
        spec["activeDeadlineSeconds"] = job.spec.deadlines.active_seconds
    template = pod_template(
        job.spec,
        resolved,
        name=name,
        config_map=config_map,
        image=job.spec.image or settings.image,
        token_audience=settings.token_audience,
        grace_seconds=GANG_GRACE_SECONDS if gang else SHARD_GRACE_SECONDS,
    )
    template["metadata"]["labels"] = labels(resolved)
    spec["template"] = template
    content = json.dumps([metadata["labels"], spec], sort_keys=True)
    metadata["annotations"] = annotations | {ANNOTATION_CONTENT: hashlib.sha256(content.encode()).hexdigest()[:16]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _queue(job: JobObject, phase: Phase, resolved: ResolvedJob, settings: RenderSettings) -> str | None:
    """A look-up or a commit takes seconds and no accelerator: it must not wait behind those that do."""
    if job.spec.queue_name and phase.form is Form.SINGLE and not resolved.resources.gpus_per_node:
        return settings.short_queue
    return job.spec.queue_name


def _shard_failures(retries: int) -> Json:
    """Each index has its own limit, and a disruption counts against none (KEP-3329, KEP-3850)."""
    rules = [
        {"action": "Ignore", "onPodConditions": [_disruption()]},
        {"action": "FailJob", "onExitCodes": _exit_codes(FAIL_JOB_CODES)},
        {"action": "FailIndex", "onExitCodes": _exit_codes([ExitCode.DATA])},
    ]
    return {"backoffLimitPerIndex": retries, "podFailurePolicy": {"rules": rules}}


def _gang_failures() -> Json:
    """Any lost pod ends the Job. The rules make the Job's condition name the rule: the operator does not count disruptions."""
    rules = [
        {"action": "FailJob", "onPodConditions": [_disruption()]},
        {"action": "FailJob", "onExitCodes": _exit_codes(sorted([*FAIL_JOB_CODES, ExitCode.DATA]))},
    ]
    return {"backoffLimit": 0, "podFailurePolicy": {"rules": rules}}


def _disruption() -> dict[str, str]:
    return {"type": "DisruptionTarget", "status": "True"}


def _exit_codes(codes: list[ExitCode]) -> dict[str, Any]:
    return {"containerName": CONTAINER, "operator": "In", "values": [int(code) for code in codes]}
