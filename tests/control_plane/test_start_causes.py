"""Why pods do not start, where only events tell it, on a real control plane."""

import pytest
from tests.control_plane.site import Json, Site
from tests.control_plane.test_operator_lives import align

pytestmark = pytest.mark.usefixtures("operator")


def mount_failed(pod: Json, message: str) -> Json:
    """An event as a kubelet writes it."""
    about = {"apiVersion": "v1", "kind": "Pod"} | {name: pod["metadata"][name] for name in ("namespace", "name", "uid")}
    now = pod["metadata"]["creationTimestamp"]
    return {
        "metadata": {"generateName": f"{pod['metadata']['name']}.", "namespace": pod["metadata"]["namespace"]},
        "involvedObject": about,
        "type": "Warning",
        "reason": "FailedMount",
        "message": message,
        "source": {"component": "kubelet", "host": "test-node"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 3,
    }


def test_what_a_kubelet_tells_in_events_alone_stalls_the_job_until_its_pod_runs(site: Site) -> None:
    site.kubelet.held.add("inspect")
    try:
        site.apply("AlignJob", "web", align(site, deadlines={"startSeconds": 10}))
        (pod,) = site.wait(lambda: site.every("Pod"), "pod")
        path = f"/api/v1/namespaces/{site.namespace}/events"
        code, answer = site.plane.request("POST", path, mount_failed(pod, 'secret "s3" not found'))
        assert code == 201, answer
        status = site.reaches("AlignJob", "web", "Stalled", "FailedMount")
    finally:
        site.kubelet.held.discard("inspect")
    (ready,) = [c for c in status["conditions"] if c["type"] == "Ready"]
    assert (ready["status"], 'secret "s3" not found' in ready["message"]) == ("False", True)
    site.reaches("AlignJob", "web", "Running", "PodsRunning")
    told = [event["reason"] for event in site.every("Event") if event["involvedObject"]["kind"] == "AlignJob"]
    assert told.count("FailedMount") == 1


def test_a_pod_that_waits_is_made_anew_when_the_spec_is_mended(site: Site) -> None:
    site.kubelet.held.add("inspect")
    try:
        site.apply("AlignJob", "web", align(site, resources={"nodeSelector": {"disk": "sdd"}}))
        site.wait(lambda: site.every("Pod"), "pod")
        code, answer = site.merge("AlignJob", "web", {"spec": {"resources": {"nodeSelector": {"disk": "ssd"}}}})
        assert code == 200, answer

        def mended() -> bool:
            pods = [pod for pod in site.every("Pod") if "deletionTimestamp" not in pod["metadata"]]
            return [pod["spec"]["nodeSelector"] for pod in pods] == [{"disk": "ssd"}]

        site.wait(lambda: mended() or None, "pod by the mended spec")
    finally:
        site.kubelet.held.discard("inspect")
    status = site.reaches("AlignJob", "web", "Running", "PodsRunning")
    assert not status["steps"][0].get("failures")
    assert [event["reason"] for event in site.every("Event")].count("SpecChanged") == 1
