"""What may happen to a job and to the operator at any moment: everything ends as if it had not happened."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.cluster.s3 import S3Server
from tests.control_plane.kubelet import TestKubelet
from tests.control_plane.site import HANDED_OVER, KILLED, WAIT_SECONDS, Operator, Site, make_namespace, poll, start_operator
from tests.control_plane.test_operator_lives import align


@pytest.fixture
def shared(operator: Operator) -> Operator:
    return operator


def running_step(site: Site, name: str, step: str) -> str | None:
    """Name of the Job of a step whose pods run."""
    jobs = [job for job in site.every("Job") if job["metadata"]["name"].startswith(f"aj-{name}-{step}-")]
    return next((job["metadata"]["name"] for job in jobs if job["status"].get("active")), None)


def test_suspend_and_resume_go_on_from_what_is_committed_once_what_was_stopped_has_ended(site: Site, shared: Operator) -> None:
    first, second = "aj-web-rewrite-rewrite-0", "aj-web-rewrite-rewrite-1"
    site.kubelet.stopped.add(first)
    try:
        site.apply("AlignJob", "web", align(site))
        stopped = site.wait(lambda: site.kubelet.process_of(first, site.namespace), "rewrite")
        site.apply("AlignJob", "web", align(site, suspend=True))
        site.reaches("AlignJob", "web", "Suspended")
        site.apply("AlignJob", "web", align(site))
        site.reaches("AlignJob", "web", "Waiting", "ChildDeleted")
        assert second not in site.jobs()
        os.killpg(stopped.process.pid, signal.SIGCONT)
    finally:
        site.kubelet.stopped.discard(first)
    status = site.finished("AlignJob", "web")
    assert status["state"] == "Complete"
    assert (first in site.jobs(), second in site.jobs()) == (False, True)
    assert [name for name in site.jobs() if "-dedup-sign-" in name] == ["aj-web-dedup-sign-0"]


def test_a_deleted_job_takes_its_children_with_it_and_another_of_its_name_reuses_the_data(site: Site, shared: Operator) -> None:
    spec = align(site)
    site.kubelet.held.add("rewrite")
    try:
        site.apply("AlignJob", "web", spec)
        site.wait(lambda: running_step(site, "web", "rewrite"), "rewrite")
        site.delete("AlignJob", "web")
        site.apply("AlignJob", "web", spec)
    finally:
        site.kubelet.held.discard("rewrite")
    status = site.finished("AlignJob", "web")
    assert status["state"] == "Complete"
    assert [step["reused"] for step in status["steps"]] == [False, True, True, False, False]
    uid = (site.get("AlignJob", "web") or {})["metadata"]["uid"]
    site.wait(
        lambda: {job["metadata"]["ownerReferences"][0]["uid"] for job in site.every("Job")} == {uid}, "only the new job's children"
    )


def test_a_child_that_is_deleted_by_hand_is_made_again(site: Site, shared: Operator) -> None:
    site.kubelet.held.add("dedup")
    try:
        site.apply("AlignJob", "web", align(site))
        name = site.wait(lambda: running_step(site, "web", "dedup"), "dedup")
        before = (site.get("Job", name) or {})["metadata"]["uid"]
        site.delete("Job", name)
        site.wait(
            lambda: (site.get("Job", name) or {"metadata": {"uid": before}})["metadata"]["uid"] != before, "the same Job anew"
        )
    finally:
        site.kubelet.held.discard("dedup")
    assert site.finished("AlignJob", "web")["state"] == "Complete"


def test_a_lost_status_is_found_again(site: Site, shared: Operator) -> None:
    site.apply("AlignJob", "web", align(site))
    first = site.finished("AlignJob", "web")
    for job in site.every("Job"):
        site.delete("Job", job["metadata"]["name"])
    site.wait(lambda: not site.every("Job"), "no Job")
    path = f"/apis/nativealign.dev/v1alpha1/namespaces/{site.namespace}/alignjobs/web/status"
    code, answer = site.plane.request("PUT", path, {**(site.get("AlignJob", "web") or {}), "status": {}})
    assert code == 200, answer
    again = site.finished("AlignJob", "web")
    assert again["outputs"] == first["outputs"]
    (job,) = site.jobs()
    assert job.startswith("aj-web-inspect-list-")


def test_a_missing_secret_is_told_and_the_job_goes_on_when_it_comes(site: Site, shared: Operator) -> None:
    path = f"/api/v1/namespaces/{site.namespace}/secrets"
    code, secret = site.plane.request("GET", f"{path}/s3")
    assert code == 200
    site.plane.request("DELETE", f"{path}/s3")
    site.apply("AlignJob", "web", align(site, deadlines={"startSeconds": 10}))
    status = site.reaches("AlignJob", "web", "Stalled", "CreateContainerConfigError")
    (ready,) = [c for c in status["conditions"] if c["type"] == "Ready"]
    assert (ready["status"], "secret 's3' not found" in ready["message"]) == ("False", True)
    code, _ = site.plane.request("POST", path, {"metadata": {"name": "s3"}, "data": secret["data"]})
    assert code == 201
    assert site.finished("AlignJob", "web")["state"] == "Complete"


def test_an_identity_field_is_refused_once_the_job_has_started(site: Site, shared: Operator) -> None:
    site.apply("AlignJob", "web", align(site))
    site.wait(lambda: site.status("AlignJob", "web").get("startTime"), "start")
    code, answer = site.merge("AlignJob", "web", {"spec": {"clean": {"minWords": 99}}})
    assert code == 422
    assert "spec.clean is immutable once the job has started; create a new job" in answer["message"]


def test_the_same_manifest_again_changes_nothing(site: Site, shared: Operator) -> None:
    """Applied over and over while the job runs, by another manager; once it has ended a re-apply leads to no write of anybody's."""
    spec = align(site)
    site.apply("AlignJob", "web", spec)
    again = partial(site.apply, "AlignJob", "web", spec, manager="gitops")
    poll(lambda: again()["status"].get("completionTime"), "end", WAIT_SECONDS, site.told, pause=1)
    before = site.get("AlignJob", "web") or {}
    assert (before["status"]["state"], before["metadata"]["generation"]) == ("Complete", 1)
    managers = {entry["manager"]: entry.get("subresource", "") for entry in before["metadata"]["managedFields"]}
    assert managers == {"user": "", "gitops": "", "nativealign-operator": "status"}
    for manager in ("user", "gitops"):
        site.apply("AlignJob", "web", spec, manager=manager)
    assert (site.get("AlignJob", "web") or {})["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


# The operator itself, in a namespace that the shared one leaves alone


def test_an_operator_that_is_killed_again_and_again_does_everything_once(
    plane: ControlPlane, node: TestKubelet, s3: S3Server, tmp_path: Path
) -> None:
    """It watches this namespace alone, under a Lease of its own."""
    site = Site(plane, node, s3, make_namespace(plane, s3, KILLED))
    settings = {"watch_namespaces": site.namespace, "lease_name": site.namespace, "lease_seconds": "3", "identity": "killed"}
    site.apply("AlignJob", "web", align(site))
    uids: dict[str, set[str]] = {}

    def note() -> bool:
        for job in site.every("Job"):
            uids.setdefault(job["metadata"]["name"], set()).add(job["metadata"]["uid"])
        return site.status("AlignJob", "web").get("state") == "Complete"

    lives = 0
    while not note():
        operator = start_operator(plane, s3, tmp_path, **settings)
        known = len(uids)
        site.wait(lambda known=known: note() or len(uids) > known + 1, "two more children")
        operator.kill()
        lives += 1
    assert lives > 3
    assert {name: len(found) for name, found in uids.items()} == dict.fromkeys(uids, 1)
    assert len(uids) == len(site.jobs()) == 13


def test_only_the_holder_of_the_lease_works_and_a_stop_hands_over(
    plane: ControlPlane, node: TestKubelet, s3: S3Server, tmp_path: Path
) -> None:
    site = Site(plane, node, s3, make_namespace(plane, s3, HANDED_OVER))
    settings = {"watch_namespaces": site.namespace, "lease_name": site.namespace, "lease_seconds": "60"}
    first = start_operator(plane, s3, tmp_path / "first", identity="first", **settings)
    lease = f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{site.namespace}"

    def holder() -> str:
        return str(plane.request("GET", lease)[1].get("spec", {}).get("holderIdentity"))

    site.wait(lambda: holder() == "first", "first leader")
    second = start_operator(plane, s3, tmp_path / "second", identity="second", **settings)
    try:
        site.apply("AlignJob", "web", align(site))
        site.reaches("AlignJob", "web", "Running")
        assert first.stop() == 0
        site.wait(lambda: holder() == "second", "second leader", 40)
        assert site.finished("AlignJob", "web")["state"] == "Complete"
        assert not second.errors()
    finally:
        first.kill()
        second.kill()
