"""What the operator stands on goes away, changes or freezes while jobs run: no pod is harmed, and it is back at work soon.

Pods are played; etcd, apiserver and controllers are real, and stopped and started by these tests.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.control_plane import ControlPlane, compact
from tests.control_plane.campaign import JOBS, NOWHERE, STORE, PlayedPods, stage, until_finished
from tests.control_plane.site import IMAGE, WAIT_SECONDS, Operator, poll, start_operator

from nativealign_api.steps import STEPS
from nativealign_api.vocabulary import API_VERSION, LABEL_JOB
from nativealign_operator.main import main
from nativealign_operator.paths import path_of
from nativealign_workloads.progress import Progress
from nativealign_workloads.progress.server import serve

Json = dict[str, Any]
HELD = "evaluate"
LEASE_SECONDS = 15.0
"""As the chart sets it: an outage that is longer costs the Lease."""


class Scene:
    """A control plane on which a job runs, with an operator that can be started again."""

    def __init__(self, plane: ControlPlane, pods: PlayedPods, folder: Path) -> None:
        self.plane, self.pods, self.folder = plane, pods, folder
        self.operators: list[Operator] = []
        self.numbers = iter(range(100))

    def start_operator(self, image: str = IMAGE, program: Callable[[], int] = main) -> None:
        """`program`: what stands for the operator of another release."""
        settings = {"lease_seconds": str(LEASE_SECONDS), "progress_seconds": "1", "image": image}
        self.operators.append(start_operator(self.plane, NOWHERE, self.folder, program, **settings))

    def create(self, name: str, kind: str = "EvalJob", **more: Any) -> None:
        spec = JOBS[kind] | {"store": STORE} | more
        manifest = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        code, answer = self.plane.request("POST", path_of(kind, "default"), manifest)
        assert code == 201, answer

    def status(self, kind: str, name: str) -> Json:
        return dict(self.plane.request("GET", path_of(kind, "default", name))[1].get("status") or {})

    def uids(self) -> dict[str, str]:
        """Of Jobs and pods."""
        found = [item for kind in ("Job", "Pod") for item in self.plane.request("GET", path_of(kind, "default"))[1]["items"]]
        return {item["metadata"]["name"]: item["metadata"]["uid"] for item in found}

    def running(self, name: str) -> list[str]:
        """Child Jobs of a job that have a running pod."""
        pods = self.plane.request("GET", path_of("Pod", "default"))[1]["items"]
        labels = [pod["metadata"]["labels"] for pod in pods if pod["status"]["phase"] == "Running"]
        return [found["batch.kubernetes.io/job-name"] for found in labels if found[LABEL_JOB] == name]

    def images(self, name: str) -> set[str]:
        """Of all pods that a job was given."""
        jobs = self.plane.request("GET", path_of("Job", "default"))[1]["items"]
        specs = [job["spec"]["template"]["spec"] for job in jobs if job["metadata"]["labels"][LABEL_JOB] == name]
        return {spec["containers"][0]["image"] for spec in specs}

    def is_back(self) -> None:
        """A new job gets its first child; prints how long it took."""
        name, begun = f"new-{next(self.numbers)}", time.monotonic()
        self.create(name)
        poll(lambda: f"ej-{name}-inspect-list-0" in self.uids(), f"child of {name}", WAIT_SECONDS, self.told)
        print(f"first child of a new job after {time.monotonic() - begun:.1f} s")

    def told(self) -> str:
        return self.operators[-1].log.read_text()[-3000:]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("outages")
    with stage(folder) as (plane, _, pods):
        found = Scene(plane, pods, folder / "operator")
        found.start_operator()
        try:
            yield found
        finally:
            found.operators[-1].kill()


@pytest.fixture
def running(scene: Scene) -> Iterator[str]:
    """Name of a job whose second step runs. In the end its children and their pods are the same, and it completes."""
    name = f"job-{next(scene.numbers)}"
    scene.pods.held = {HELD}
    scene.create(name)

    poll(lambda: scene.running(name), "running pod", WAIT_SECONDS, scene.told)
    before = scene.uids()
    yield name
    after = scene.uids()
    assert {child: after.get(child) for child in before} == before
    scene.pods.held = set()
    until_finished(scene.plane, "EvalJob", "default", name)
    lines = scene.operators[-1].lines()
    assert not [
        line for line in lines if line["level"] == "error" and line["logger"].startswith("nativealign")
    ]  # kopf's are of the outage


def test_etcd_is_restarted(scene: Scene, running: str) -> None:
    etcd = scene.plane.servers["etcd"]
    etcd.stop()
    etcd.start()
    scene.plane.wait_until_ready()
    scene.is_back()


def test_the_apiserver_is_away_and_the_past_is_forgotten(scene: Scene, running: str) -> None:
    """No longer than the Lease holds, but the watches cannot go on where they were."""
    etcd, apiserver = scene.plane.servers["etcd"], scene.plane.servers["kube-apiserver"]
    jobs = path_of("EvalJob", "default")
    version = scene.plane.request("GET", jobs)[1]["metadata"]["resourceVersion"]
    apiserver.stop()
    compact(etcd)
    apiserver.start()
    scene.plane.wait_until_ready()
    scene.is_back()
    gone = scene.plane.request("GET", f"{jobs}?watch=1&timeoutSeconds=5&resourceVersion={version}")[1]
    assert (gone["type"], gone["object"]["code"]) == ("ERROR", HTTPStatus.GONE)


def test_the_apiserver_is_away_until_the_lease_is_lost(scene: Scene, running: str) -> None:
    """The watches must begin anew."""
    operator, apiserver = scene.operators[-1], scene.plane.servers["kube-apiserver"]
    lost = operator.log.read_text().count("the Lease is lost")
    apiserver.stop()
    poll(lambda: operator.log.read_text().count("the Lease is lost") > lost, "loss of the Lease", WAIT_SECONDS, scene.told)
    apiserver.start()
    scene.plane.wait_until_ready()
    scene.is_back()
    assert operator.process.exitcode is None


def test_the_operator_is_killed(scene: Scene, running: str) -> None:
    scene.operators[-1].kill()
    scene.start_operator()
    scene.is_back()


NEXT = "registry.example/workloads:next"


def next_release() -> int:
    """Release N: every step has a new version, so that a run which begins with it has other digests."""
    for kind, found in STEPS.items():
        STEPS[kind] = tuple(dataclasses.replace(step, version=step.version + 1) for step in found)
    return main()


def test_another_release_of_the_operator_and_back_again(scene: Scene, running: str) -> None:
    """There is no earlier release to take: N-1 is this code; N is this code with other step versions and another default image.
    The running job keeps pods, digests and image over N-1, N, N-1; one that begins under N has others.
    """
    before = scene.status("EvalJob", running)
    scene.operators[-1].stop()
    scene.start_operator(NEXT, next_release)
    scene.pods.step_version = 2
    under_next = f"new-{next(scene.numbers)}"
    scene.create(under_next)
    scene.pods.held = {"report"}
    poll(lambda: f"ej-{running}-report-report-0" in scene.running(running), "next step under N", WAIT_SECONDS, scene.told)
    poll(lambda: len(scene.status("EvalJob", under_next).get("steps", [])) > 1, "digests under N", WAIT_SECONDS, scene.told)
    scene.pods.step_version = 1
    assert scene.images(under_next) == {NEXT}
    assert not set(digests(scene.status("EvalJob", under_next))[1:]) & set(digests(before)[1:])
    scene.operators[-1].stop()
    scene.start_operator()
    scene.pods.held = set()
    until_finished(scene.plane, "EvalJob", "default", running)
    after = scene.status("EvalJob", running)
    assert (digests(after), after["pinned"]) == (digests(before), before["pinned"])
    assert scene.images(running) == {IMAGE}


def digests(status: Json) -> list[str]:
    return [step["digest"] for step in status["steps"]]


@pytest.fixture
def frozen(scene: Scene, tmp_path: Path) -> Iterator[None]:
    """Pods that answer, and always the same: as the main process of a node with a stopped rank does."""
    scene.pods.address = "127.93.7.1"
    progress = tmp_path / "progress.json"
    Progress(progress, step="train", phase="train", index=0).begin(40, "steps", done=10)
    serve(progress, scene.pods.address)
    yield
    scene.pods.address = "127.0.0.1"


@pytest.mark.usefixtures("frozen")
def test_a_gang_that_comes_no_further_is_noticed_and_started_again(scene: Scene) -> None:
    name = f"job-{next(scene.numbers)}"
    scene.pods.held = {"train"}
    scene.create(name, "PretrainJob", deadlines={"progressSeconds": 10})
    poll(lambda: "25%" in str(scene.status("PretrainJob", name)), "progress", WAIT_SECONDS, scene.told)
    poll(lambda: f"pj-{name}-train-train-1" in scene.running(name), "second attempt", WAIT_SECONDS, scene.told)
    scene.pods.held = set()
    until_finished(scene.plane, "PretrainJob", "default", name)
    (train,) = [step for step in scene.status("PretrainJob", name)["steps"] if step["name"] == "train"]
    assert (train["state"], train["failures"]) == ("Committed", 1)
