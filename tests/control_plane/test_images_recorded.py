"""Which image a step ran, as the kubelet reports it, on a real control plane."""

import pytest
from tests.control_plane.kubelet import STRATEGIC
from tests.control_plane.site import Site
from tests.control_plane.test_operator_lives import align

pytestmark = pytest.mark.usefixtures("operator")
DIGEST = "registry.example/workloads@sha256:" + "a" * 64


def test_a_step_says_by_digest_which_image_it_runs(site: Site) -> None:
    site.kubelet.held.add("inspect")
    try:
        site.apply("AlignJob", "web", align(site))
        (pod,) = site.wait(lambda: site.every("Pod"), "pod")
        container = {"name": pod["spec"]["containers"][0]["name"], "imageID": DIGEST, "image": "registry.example/workloads:test"}
        state = {"restartCount": 0, "ready": True, "state": {"running": {"startedAt": pod["metadata"]["creationTimestamp"]}}}
        path = f"/api/v1/namespaces/{site.namespace}/pods/{pod['metadata']['name']}/status"
        status = {"phase": "Running", "containerStatuses": [container | state]}
        code, answer = site.plane.request("PATCH", path, {"status": status}, form=STRATEGIC)
        assert code == 200, answer
        (step,) = site.reaches("AlignJob", "web", "Running", "PodsRunning")["steps"]
    finally:
        site.kubelet.held.discard("inspect")
        site.delete("AlignJob", "web")
    assert step["images"] == [DIGEST]
