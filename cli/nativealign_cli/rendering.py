"""`nativealign render`: the objects of every phase, as the operator will create them.

Before a job has started nothing is pinned, so digests and shard numbers are not known. Inputs get a digest of their own names
instead, the objects say so in an annotation, and shards count as spec.sharding says (one where it leaves that to the input).
"""

from collections.abc import Iterator
from typing import Any

import yaml

from nativealign_api.identity import digest
from nativealign_api.kinds import JobObject, references
from nativealign_api.plan import expected_inputs, plan
from nativealign_api.resolved import resolve
from nativealign_api.status import Pinned
from nativealign_api.steps import STEPS
from nativealign_cli.state import local_uid
from nativealign_operator.render import RenderSettings, render_phase

PROVISIONAL = "nativealign.dev/provisional"
IMAGE = "nativealign-workloads"


def render_jobs(jobs: list[JobObject], namespace: str | None = None) -> str:
    """YAML documents of all phases of all jobs, in the order in which the operator creates them; `namespace` is that of jobs that
    name none.
    """
    for job in jobs:
        if namespace and "namespace" not in job.metadata.model_fields_set:
            job.metadata.namespace = namespace
    documents = [document for job in jobs for document in _objects(job)]
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120)


def _objects(job: JobObject) -> Iterator[dict[str, Any]]:
    job.metadata.uid = job.metadata.uid or local_uid(job)
    job.status.pinned = provisional_pins(job)
    for step in plan(job.kind, job.spec, job.status.pinned).steps:
        for phase in step.phases:
            rendered = render_phase(job, phase, resolve(job, step, phase), RenderSettings(image=IMAGE))
            for item in rendered.objects():
                item["metadata"].setdefault("annotations", {})[PROVISIONAL] = "true"
                yield item


def provisional_pins(job: JobObject) -> Pinned:
    """Pins that stand in for what inspect will find."""
    inputs = expected_inputs(job.spec)
    shards = getattr(getattr(job.spec, "sharding", None), "shards", None) or 1
    steps = {step.name: digest({"unpinned": step.name}) for steps in STEPS.values() for step in steps}
    return Pinned(
        inspect=digest({"unpinned": job.reference}),
        inputs={name: digest({"unpinned": name}) for name, upstream in inputs.items() if upstream is None},
        upstream={reference: steps | {"uid": digest({"unpinned": reference})} for reference in references(job)},
        shards={name: shards for name in inputs if name == "corpora" or name.startswith("mix/")},
    )
