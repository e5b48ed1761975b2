"""What the three kinds have in common: head, pipeline, failure, cost, lineage. Pure."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import yaml

from nativealign_api.plan import step_prefix
from nativealign_api.status import StepStatus
from nativealign_workloads.engines.billing import usage
from nativealign_workloads.report import wording
from nativealign_workloads.report.gather import Job

Json = dict[str, Any]

BAD = ("Failed", "GateFailed", "Invalid")

Tile = tuple[str, str, str]
"""Name, value, remark."""


def head(job: Job) -> Json:
    """Name, state, times."""
    status = job.status
    return {
        "kind": job.kind,
        "name": job.name,
        "namespace": job.namespace,
        "uid": job.uid,
        "state": status.state,
        "tone": "good" if status.state == "Complete" else "bad" if status.state in BAD else "open",
        "start": status.start_time,
        "end": status.completion_time,
        "duration": _elapsed(status.start_time, status.completion_time),
        "gates": _gates_note(job),
    }


def _gates_note(job: Job) -> str:
    """Why there is no verdict, where there is none."""
    if job.kind == "PretrainJob":
        return "A PretrainJob has no gates."
    given = job.spec.get("gate") or job.spec.get("gates")
    return "Gates are set, but no step has reached a verdict." if given else "No gates are set."


def _elapsed(start: str | None, end: str | None) -> str | None:
    if not start or not end:
        return None
    return wording.seconds((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def failure(job: Job, gates: list[Json]) -> Json | None:
    """Why the job did not complete: step, code, message; None where it did."""
    conditions = {condition.type: condition for condition in job.status.conditions if condition.status == "True"}
    cause = conditions.get("Failed") or conditions.get("Stalled") or conditions.get("Suspended")
    if cause is None:
        return None
    step = next((step for step in job.status.steps if step.state == "Failed"), None)
    return {
        "step": step.name if step else None,
        "phase": step.phase if step else None,
        "code": cause.reason,
        "message": cause.message,
        "gates": [gate for gate in gates if not gate["passed"]],
        "logs": f"nativealign logs {job.kind.lower()}/{job.name}" if step else None,
    }


def pipeline(job: Job) -> list[Json]:
    """The strip of steps."""
    return [
        {
            "name": step.name,
            "state": step.state,
            "tone": {"Committed": "good", "Failed": "bad"}.get(step.state, "open"),
            "how": _how(job, step),
            "seconds": wording.seconds(step.seconds) if step.seconds is not None else None,
            "digest": step.digest,
        }
        for step in job.status.steps
    ]


def _how(job: Job, step: StepStatus) -> str:
    if step.state != "Committed":
        return "not reached" if step.state == "Waiting" and job.status.state in BAD else step.state.lower()
    if step.name not in job.manifests:
        return "manifest no longer in the store"
    return "reused" if step.reused else "computed"


def cost(job: Job) -> Json:
    """Seconds of each step in this run, and what the engines were asked."""
    steps: list[Json] = [
        {"name": step.name, "seconds": step.seconds, "reused": step.reused, "usage": job.facts(step.name).get("usage")}
        for step in job.status.steps
    ]
    asked = [step["usage"] for step in steps if step["usage"]]
    spent = job.status.cost
    return {
        "steps": steps,
        "seconds": spent.step_seconds,
        "longest": max((step["seconds"] or 0 for step in steps), default=0),
        "accelerator": spent.accelerator_seconds,
        "engines": bool(asked),
        "unsettled": usage(asked),
        "money": _money(job),
    }


def _money(job: Job) -> str:
    """What endpoints cost, or why nobody knows."""
    if job.status.cost.usd:
        return f"{job.status.cost.usd:,.2f} US dollars for endpoints."
    places = {
        "spec.expert.openai": (job.spec.get("expert") or {}).get("openai"),
        "spec.assess.judge": (job.spec.get("assess") or {}).get("judge"),
        "spec.judge": job.spec.get("judge"),
    }
    named = [place for place, endpoint in places.items() if endpoint]
    return f"Cost of {' and '.join(named)}: not measured, the run recorded none." if named else "The job names no endpoint."


def lineage(job: Job) -> Json:
    """Digests, versions and inputs of every step, and what is pinned."""
    pinned = job.status.pinned
    return {
        "steps": [_provenance(job, step) for step in job.status.steps],
        "pinned": sorted(pinned.inputs.items()),
        "upstream": [
            (name, sorted((k, v) for k, v in steps.items() if k != "uid")) for name, steps in sorted(pinned.upstream.items())
        ],
        "images": _images(job),
        "conduct": job.conduct.get("name"),
    }


def _images(job: Job) -> list[tuple[str, str]]:
    """The image that is asked for, and by digest those that ran, with their steps."""
    ran: dict[str, list[str]] = {}
    for step in job.status.steps:
        for image in step.images:
            ran.setdefault(image, []).append(step.name)
    named = [job.spec["image"]] if job.spec.get("image") else job.status.pinned.images.values()
    asked = [("asked for", image) for image in named]
    return asked + [(f"of {', '.join(steps)}", image) for image, steps in ran.items()]


def _provenance(job: Job, step: StepStatus) -> Json:
    manifest = job.manifests.get(step.name, {})
    return {
        "name": step.name,
        "version": manifest.get("version", job.status.pinned.step_versions.get(step.name)),
        "digest": step.digest,
        "inputs": sorted(manifest.get("inputs", {}).items()) + _sources(manifest),
        "parameters": dump(manifest.get("parameters")),
    }


def _sources(manifest: Json) -> list[tuple[str, str]]:
    """The sources of a mix, each tokenized under a digest of its own."""
    return [(source["name"], step_prefix("tokenize", source["digest"])) for source in manifest.get("facts", {}).get("sources", [])]


def dump(value: Any) -> str:
    """As YAML, for people; empty for nothing."""
    return yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False, allow_unicode=True, width=100) if value else ""


def chain(jobs: list[Job], headlines: Callable[[Job], list[Tile]]) -> list[Json]:
    """The cards of the chain's overview."""
    return [head(job) | {"tiles": headlines(job)[:3], "from": sorted(job.status.pinned.upstream)} for job in jobs]
