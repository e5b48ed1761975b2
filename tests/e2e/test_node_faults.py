"""What happens to running pods, and to the job, when parts of the cluster fail under a real kubelet."""

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.cluster.control_plane import compact
from tests.cluster.node import Cluster
from tests.cluster.servers import wait_for
from tests.e2e.people import WAIT_SECONDS, Json, Person, Team
from tests.workloads.pipeline import RULES, TINY, TRAINING, make_corpus, manifest_of

LOST_SECONDS = 10
FROZEN_SECONDS = 120
"""Longer than a start of the ranks takes on a busy machine; no progress is told in it."""
GANG = TRAINING | {
    "base": {"fromConfig": TINY},
    "sequenceLength": 64,
    "tokens": "100k",
    "globalBatch": 4,
    "checkpoints": {"everySteps": 50},
    "resources": {"nodes": 2},
    "nodeLostAfterSeconds": LOST_SECONDS,
    "deadlines": {"progressSeconds": FROZEN_SECONDS},
}
OUTAGE_SECONDS = 60
wait = partial(wait_for, seconds=WAIT_SECONDS, pause=3.0)
"""By kubectl, whose start takes a good part of a second of the processors that the pods need."""


def apply(team: Team, kind: str, name: str, spec: Json) -> None:
    manifest = manifest_of(kind, name, spec)
    team.member.kubectl("apply", "--filename=-", "-n", team.namespace, given=json.dumps(manifest))


@pytest.fixture
def corpus(team: Team, tmp_path: Path) -> Json:
    """Of 120 documents."""
    make_corpus(tmp_path / "corpus", 120)
    team.upload(team.namespace, tmp_path / "corpus")
    return {"name": "web", "uri": f"s3://nativealign/{team.namespace}/"}


def running(team: Team) -> dict[str, Json]:
    """Pods whose container runs, by uid."""
    found = team.admin.get("pods", "-n", team.namespace)["items"]
    return {pod["metadata"]["uid"]: pod for pod in found if pod["status"]["phase"] == "Running"}


def running_jobs(team: Team) -> list[str]:
    """The Job of each pod that runs and is not about to end."""
    found = [pod["metadata"] for pod in running(team).values()]
    return [metadata["labels"]["batch.kubernetes.io/job-name"] for metadata in found if "deletionTimestamp" not in metadata]


def has_checkpoint(team: Team, reference: str) -> bool:
    steps = team.member.get(reference, "-n", team.namespace).get("status", {}).get("steps", [])
    digest = next((step["digest"] for step in steps if step["name"] == "train" and "digest" in step), None)
    return digest is not None and any("/checkpoints/" in key for key in team.stored(f"steps/train/{digest}/"))


def test_a_gang_with_a_stopped_rank_and_then_a_lost_node_trains_to_the_end(
    node: Cluster, team: Team, corpus: Json, admin: Person
) -> None:
    """Two pods find each other by the headless Service's name. First the second one's rank is stopped, so that the first waits for
    it; in the next attempt their kubelet is killed, until the operator has given them up and made a third.
    """
    apply(team, "PretrainJob", "web", GANG | {"mix": [{"corpus": corpus}]})
    wait(lambda: has_checkpoint(team, "pretrainjob/web"), "checkpoint")
    assert signal_processes(is_second_rank, signal.SIGSTOP)
    wait(lambda: running_jobs(team).count("pj-web-train-train-1") == 2, "second attempt")
    node.kubelet.kill()
    wait(lambda: not node.is_ready(), "loss of the node")
    third = "pj-web-train-train-2"
    wait(lambda: third in team.admin.kubectl("get", "jobs", "-n", team.namespace), "third attempt")
    node.kubelet.start()
    job = team.wait("pretrainjob/web")
    assert job["status"]["state"] == "Complete", admin.told(team.namespace)
    assert {step["name"]: (step["failures"], step["disruptions"]) for step in job["status"]["steps"]}["train"] == (1, 1)


def test_operator_killed_and_apiserver_gone(node: Cluster, team: Team, corpus: Json, admin: Person) -> None:
    """etcd starts anew, too, and forgets the past. Pods run on, and the operator is back at work; how soon is printed.

    The apiserver is killed: one that is asked to stop takes itself out of its Service, by which pods reach it, and kube-proxy needs
    up to 30 s to put it back.
    """
    by_rules = RULES | {"corpora": [corpus], "sharding": {"shards": 1}, "nodeLostAfterSeconds": LOST_SECONDS}
    apply(team, "AlignJob", "web", by_rules)
    wait(lambda: bool(running(team)), "pod")
    before = running(team)
    service = (admin.get("service/kubernetes", "-n", "default")["spec"]["clusterIP"], 443)
    apiserver, etcd = node.plane.servers["kube-apiserver"], node.plane.servers["etcd"]
    assert signal_processes(is_operator, signal.SIGKILL)
    apiserver.kill()
    etcd.stop()
    etcd.start()
    time.sleep(OUTAGE_SECONDS)
    compact(etcd)
    apiserver.start()
    node.plane.wait_until_ready()
    back = time.monotonic()
    apply(team, "AlignJob", "later", by_rules)
    wait_for(lambda: answers(service), "Service of the apiserver", seconds=WAIT_SECONDS)
    served = time.monotonic()
    wait_for(
        lambda: "aj-later-inspect-list-0" in team.admin.kubectl("get", "jobs", "-n", team.namespace),
        "first child",
        seconds=WAIT_SECONDS,
    )
    child = time.monotonic()
    print(f"first child of a new job {child - back:.1f} s after the apiserver, {child - served:.1f} s after its Service")
    assert team.wait("alignjob/web")["status"]["state"] == "Complete", admin.told(team.namespace)
    assert team.wait("alignjob/later")["status"]["state"] == "Complete", admin.told(team.namespace)
    after = {pod["metadata"]["uid"]: pod["status"] for pod in team.admin.get("pods", "-n", team.namespace)["items"]}
    assert all(after[uid]["phase"] == "Succeeded" for uid in before)
    assert not [uid for uid, status in after.items() if status["containerStatuses"][0]["restartCount"]]


def answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def is_operator(process: Path) -> bool:
    return (process / "cmdline").read_bytes().endswith(b"-m\0nativealign_operator\0")


def is_second_rank(process: Path) -> bool:
    is_rank = b"nativealign_workloads.training.launch\0" in (process / "cmdline").read_bytes()
    return is_rank and b"RANK=1" in (process / "environ").read_bytes().split(b"\0")


def signal_processes(which: Callable[[Path], bool], number: signal.Signals) -> list[int]:
    """From outside of their containers; the ids of the processes, whose folders in /proc are asked."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # any other process may end meanwhile
            if which(process):
                os.kill(int(process.name), number)
                found.append(int(process.name))
    return found
