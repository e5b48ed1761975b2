"""What happens to running pods, and to the job, when parts of the cluster fail under a real kubelet."""

import contextlib
import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from tests.cluster.node import Cluster
from tests.cluster.servers import wait_for
from tests.e2e.people import Json, Person, Team
from tests.workloads.pipeline import RULES, TINY, TRAINING, make_corpus, manifest_of

LOST_SECONDS = 10
GANG = TRAINING | {
    "base": {"fromConfig": TINY},
    "mix": [{"alignJob": "web"}],
    "sequenceLength": 64,
    "tokens": "100k",
    "globalBatch": 4,
    "checkpoints": {"everySteps": 50},
    "resources": {"nodes": 2},
    "nodeLostAfterSeconds": LOST_SECONDS,
}
OUTAGE_SECONDS = 30
BACK_SECONDS = 15


def apply(team: Team, kind: str, name: str, spec: Json) -> None:
    manifest = manifest_of(kind, name, spec)
    team.member.kubectl("apply", "--filename=-", "-n", team.namespace, given=json.dumps(manifest))


@pytest.fixture
def corpus(team: Team, tmp_path: Path) -> Json:
    """An AlignJob's spec for 120 documents, as far as they are cleaned, deduplicated and rewritten by rules."""
    make_corpus(tmp_path / "corpus", 120)
    team.upload(team.namespace, tmp_path / "corpus")
    corpora = [{"name": "web", "uri": f"s3://nativealign/{team.namespace}/"}]
    return RULES | {"corpora": corpora, "sharding": {"shards": 1}, "nodeLostAfterSeconds": LOST_SECONDS}


def running(team: Team) -> dict[str, Json]:
    """Pods whose container runs, by uid."""
    found = team.admin.get("pods", "-n", team.namespace)["items"]
    return {pod["metadata"]["uid"]: pod for pod in found if pod["status"]["phase"] == "Running"}


def has_checkpoint(team: Team, reference: str) -> bool:
    steps = team.member.get(reference, "-n", team.namespace).get("status", {}).get("steps", [])
    digest = next((step["digest"] for step in steps if step["name"] == "train" and "digest" in step), None)
    return digest is not None and any("/checkpoints/" in key for key in team.stored(f"steps/train/{digest}/"))


def test_a_gang_whose_node_is_lost_trains_to_the_end(node: Cluster, team: Team, corpus: Json, admin: Person) -> None:
    """Two pods find each other by the headless Service's name; then their kubelet is killed for as long as it takes to notice."""
    apply(team, "AlignJob", "web", corpus)
    apply(team, "PretrainJob", "web", GANG)
    assert team.wait("alignjob/web")["status"]["state"] == "Complete", admin.told(team.namespace)
    wait_for(lambda: has_checkpoint(team, "pretrainjob/web"), "checkpoint", seconds=180)
    node.kubelet.stop()
    wait_for(lambda: not node.is_ready(), "loss of the node", seconds=120)
    lost = partial(_deleted, team, set(running(team)))
    wait_for(lost, "eviction of the pods", seconds=120)
    node.kubelet.start()
    job = team.wait("pretrainjob/web")
    assert job["status"]["state"] == "Complete", admin.told(team.namespace)
    assert not any(step.get("failures") for step in job["status"]["steps"])


def test_operator_killed_and_apiserver_gone(node: Cluster, team: Team, corpus: Json, admin: Person) -> None:
    """Pods run on; the operator is at work within 15 s of the apiserver's return."""
    apply(team, "AlignJob", "web", corpus)
    wait_for(lambda: bool(running(team)), "pod", seconds=120)
    before = running(team)
    apiserver = node.plane.servers["kube-apiserver"]
    assert kill_operators()
    apiserver.stop()
    time.sleep(OUTAGE_SECONDS)
    apiserver.start()
    node.plane.wait_until_ready()
    back = time.monotonic()
    apply(team, "AlignJob", "later", corpus)
    wait_for(lambda: "aj-later-inspect-list-0" in team.admin.kubectl("get", "jobs", "-n", team.namespace), "operator")
    seconds = time.monotonic() - back
    assert team.wait("alignjob/web")["status"]["state"] == "Complete", admin.told(team.namespace)
    assert team.wait("alignjob/later")["status"]["state"] == "Complete", admin.told(team.namespace)
    after = {pod["metadata"]["uid"]: pod["status"] for pod in team.admin.get("pods", "-n", team.namespace)["items"]}
    assert all(after[uid]["phase"] == "Succeeded" for uid in before)
    assert not [uid for uid, status in after.items() if status["containerStatuses"][0]["restartCount"]]
    assert seconds < BACK_SECONDS


def kill_operators() -> list[int]:
    """SIGKILL, from outside of their containers; their process ids."""
    killed = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # any other process may end meanwhile
            if path.read_bytes().endswith(b"-m\0nativealign_operator\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)
                killed.append(int(path.parent.name))
    return killed


def _deleted(team: Team, uids: set[str]) -> bool:
    found = team.admin.get("pods", "-n", team.namespace)["items"]
    return all("deletionTimestamp" in pod["metadata"] for pod in found if pod["metadata"]["uid"] in uids)
