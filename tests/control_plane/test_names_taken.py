"""Somebody else's objects under the names of a job's children, on a real control plane."""

import pytest
from tests.control_plane.site import Json, Site
from tests.control_plane.test_operator_lives import align

from nativealign_operator.paths import path_of

pytestmark = pytest.mark.usefixtures("operator")
NAME = "aj-web-inspect-list-0"


def somebodys_job() -> Json:
    """A Job that runs nothing."""
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "backup", "image": "registry.example/backup", "securityContext": closed}
    pod = {"restartPolicy": "Never", "securityContext": security, "containers": [container]}
    return {"metadata": {"name": NAME}, "spec": {"suspend": True, "template": {"spec": pod}}}


def reasons(site: Site) -> list[str]:
    return [event["reason"] for event in site.every("Event")]


def test_a_job_of_somebody_else_is_left_alone_told_once_and_waited_for(site: Site) -> None:
    code, others = site.plane.request("POST", path_of("Job", site.namespace), somebodys_job())
    assert code == 201, others
    site.apply("AlignJob", "web", align(site))
    status = site.reaches("AlignJob", "web", "Stalled", "NameConflict")
    (ready,) = [c for c in status["conditions"] if c["type"] == "Ready"]
    assert (ready["status"], f"Job/{NAME}" in ready["message"]) == ("False", True)
    site.merge("AlignJob", "web", {"spec": {"parallelism": 1}})

    def looked_again() -> bool:
        status = site.status("AlignJob", "web")
        return (status.get("observedGeneration"), status.get("state")) == (2, "Stalled")

    site.wait(looked_again, "another look")
    assert "PodsCreated" not in reasons(site)
    assert (site.get("Job", NAME) or {})["metadata"]["uid"] == others["metadata"]["uid"]
    site.delete("Job", NAME)
    site.merge("AlignJob", "web", {"spec": {"parallelism": 2}})
    site.reaches("AlignJob", "web", "Running", "PodsRunning")
    assert reasons(site).count("NameConflict") == 1
