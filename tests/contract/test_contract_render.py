"""What render.py makes is accepted by a real apiserver, its pods by the restricted Pod Security Standard."""

import pytest
from tests import specs
from tests.cluster.control_plane import ControlPlane

from nativealign_api.kinds import KINDS
from nativealign_api.plan import plan
from nativealign_api.resolved import resolve
from nativealign_operator.render import RenderSettings, render_phase

PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "Pod": "/api/v1/namespaces/{}/pods",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_phase_of_a_job_with_every_field_is_accepted(plane: ControlPlane, namespace: str, kind: str) -> None:
    spec = specs.SPECS[kind] | {"resources": specs.RESOURCES | {"runtimeClassName": None, "priorityClassName": None}}
    job = specs.parse(kind, spec)
    job.metadata.namespace = namespace
    for step in plan(kind, job.spec, job.status.pinned).steps:
        for phase in step.phases:
            rendered = render_phase(job, phase, resolve(job, step, phase), RenderSettings("registry.example/workloads"))
            template = rendered.job["spec"]["template"]
            pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "pod"}}
            for name in ("runtimeClassName", "priorityClassName"):  # they must exist when a pod is made
                template["spec"].pop(name, None)
            for made in (*rendered.objects(), pod):
                query = "?fieldValidation=Strict&dryRun=All"
                status, answer = plane.request("POST", PATHS[made["kind"]].format(namespace) + query, made)
                assert status == 201, (step.name, phase.name, made["kind"], answer)
