"""What happens to running pods, and to the job, when parts of the cluster fail under a real kubelet."""

import json
from functools import partial
from pathlib import Path

import pytest
from tests.cluster.node import Cluster
from tests.cluster.servers import wait_for
from tests.e2e.people import Json, Person, Team
from tests.workloads.pipeline import RULES, make_corpus, manifest_of

LOST_SECONDS = 10


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


def test_a_killed_kubelet_is_recovered_from(node: Cluster, team: Team, corpus: Json, admin: Person) -> None:
    apply(team, "AlignJob", "web", corpus)
    wait_for(lambda: bool(running(team)), "pod", seconds=120)
    node.kubelet.stop()
    wait_for(lambda: not node.is_ready(), "loss of the node", seconds=120)
    lost = partial(_deleted, team, set(running(team)))
    wait_for(lost, "eviction of the pods", seconds=120)
    node.kubelet.start()
    job = team.wait("alignjob/web")
    assert job["status"]["state"] == "Complete", admin.told(team.namespace)
    assert not any(step.get("failures") for step in job["status"]["steps"])


def _deleted(team: Team, uids: set[str]) -> bool:
    found = team.admin.get("pods", "-n", team.namespace)["items"]
    return all("deletionTimestamp" in pod["metadata"] for pod in found if pod["metadata"]["uid"] in uids)
