"""What the operator stands on goes away while jobs run: no pod is harmed, and it is back at work soon.

Pods are played; etcd, apiserver and controllers are real, and stopped and started by these tests.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.control_plane.campaign import JOBS, NOWHERE, STORE, PlayedPods, stage, until_finished
from tests.control_plane.site import Operator, poll, start_operator

from nativealign_api.vocabulary import API_VERSION, LABEL_JOB, LABEL_STEP
from nativealign_operator.paths import path_of

Json = dict[str, Any]
HELD = "evaluate"
BACK_SECONDS = 15.0
"""The bound of the requirement: from the apiserver's return to the first child of a new job."""
LEASE_SECONDS = 15.0
"""As the chart sets it: an outage that is longer costs the Lease."""


class Scene:
    """A control plane on which a job runs, with an operator that can be started again."""

    def __init__(self, plane: ControlPlane, pods: PlayedPods, folder: Path) -> None:
        self.plane, self.pods, self.folder = plane, pods, folder
        self.operators: list[Operator] = []
        self.numbers = iter(range(100))

    def start_operator(self) -> None:
        self.operators.append(start_operator(self.plane, NOWHERE, self.folder, lease_seconds=str(LEASE_SECONDS)))

    def create(self, name: str) -> None:
        manifest = {
            "apiVersion": API_VERSION,
            "kind": "EvalJob",
            "metadata": {"name": name},
            "spec": JOBS["EvalJob"] | {"store": STORE},
        }
        code, answer = self.plane.request("POST", path_of("EvalJob", "default"), manifest)
        assert code == 201, answer

    def uids(self) -> dict[str, str]:
        """Of Jobs and pods."""
        found = [item for kind in ("Job", "Pod") for item in self.plane.request("GET", path_of(kind, "default"))[1]["items"]]
        return {item["metadata"]["name"]: item["metadata"]["uid"] for item in found}

    def runs(self, name: str) -> bool:
        """Whether a pod of the job's held step runs."""
        pods = self.plane.request("GET", path_of("Pod", "default"))[1]["items"]
        labels = [pod["metadata"]["labels"] for pod in pods if pod["status"]["phase"] == "Running"]
        return any((found[LABEL_JOB], found[LABEL_STEP]) == (name, HELD) for found in labels)

    def is_back(self, seconds: float) -> None:
        """A new job gets its first child in time."""
        name = f"new-{next(self.numbers)}"
        self.create(name)
        poll(lambda: f"ej-{name}-inspect-list-0" in self.uids(), f"child of {name}", seconds, self.told)

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
def running(scene: Scene) -> Iterator[dict[str, str]]:
    """Uids of a job's children while its second step runs. In the end all are the same, and every job completes."""
    name = f"job-{next(scene.numbers)}"
    scene.pods.held = {HELD}
    scene.create(name)

    poll(lambda: scene.runs(name), "running pod", 60, scene.told)
    before = scene.uids()
    yield before
    after = scene.uids()
    assert {child: after.get(child) for child in before} == before
    scene.pods.held = set()
    until_finished(scene.plane, "EvalJob", "default", name)
    lines = scene.operators[-1].lines()
    assert not [
        line for line in lines if line["level"] == "error" and line["logger"].startswith("nativealign")
    ]  # kopf's are of the outage


def test_etcd_is_restarted(scene: Scene, running: dict[str, str]) -> None:
    etcd = scene.plane.servers["etcd"]
    etcd.stop()
    etcd.start()
    scene.plane.wait_until_ready()
    scene.is_back(BACK_SECONDS)


def test_the_apiserver_is_away_until_the_lease_is_lost(scene: Scene, running: dict[str, str]) -> None:
    """More than 10 s of the minute that the requirement allows; and the watches must begin anew."""
    operator, apiserver = scene.operators[-1], scene.plane.servers["kube-apiserver"]
    lost = operator.log.read_text().count("the Lease is lost")
    apiserver.stop()
    poll(lambda: operator.log.read_text().count("the Lease is lost") > lost, "loss of the Lease", 60, scene.told)
    apiserver.start()
    scene.plane.wait_until_ready()
    scene.is_back(BACK_SECONDS)
    assert operator.process.poll() is None


def test_the_operator_is_killed(scene: Scene, running: dict[str, str]) -> None:
    scene.operators[-1].kill()
    scene.start_operator()
    scene.is_back(60)
