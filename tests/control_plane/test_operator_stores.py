"""Jobs and their store: several writers of one result, and a store that is gone. Real pods, real S3 servers."""

import contextlib
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.cluster.s3 import S3Server, s3_server
from tests.cluster.servers import freeze
from tests.control_plane.kubelet import TestKubelet
from tests.control_plane.site import SECRET, Site, make_namespace
from tests.control_plane.test_operator_lives import align

from nativealign_api.vocabulary import ExitCode

pytestmark = pytest.mark.usefixtures("operator")

GONE_SECONDS = 60.0
"""The bound of the requirement: from the deletion of an object to the end of its children."""


def commits(site: Site, status: dict[str, Any]) -> dict[str, str | None]:
    """Manifests and shard records of a job's results, with their ETags: what decides which parts there are."""
    found = [
        item for prefix in status["outputs"].values() for item in site.minio().list_objects(site.s3.bucket, prefix, recursive=True)
    ]
    records = [item for item in found if re.search(r"/(manifest|shards/\d+)\.json$", str(item.object_name))]
    return {str(item.object_name): item.etag for item in records}


def test_two_jobs_of_equal_digests_in_two_namespaces_make_one_result(
    site: Site, plane: ControlPlane, s3: S3Server, node: TestKubelet
) -> None:
    other = Site(plane, node, s3, make_namespace(plane, s3))
    spec = align(site, sharding={"shards": 2})
    for place in (site, other):
        place.apply("AlignJob", "web", spec)
    ended = [place.finished("AlignJob", "web") for place in (site, other)]
    assert [status["state"] for status in ended] == ["Complete", "Complete"], site.told() + other.told()
    assert ended[0]["outputs"] == ended[1]["outputs"]
    assert [step["counts"] for step in ended[0]["steps"]] == [step["counts"] for step in ended[1]["steps"]]
    records = [name for name in commits(site, ended[0]) if f"{ended[0]['outputs']['rewrite']}/rewrite/shards/" in name]
    assert len(records) == 2
    for name in records:  # each names parts that are there
        parts = json.loads(site.minio().get_object(s3.bucket, name).read())["parts"]
        assert all(site.objects(part["key"]) for part in parts.values())


def test_a_job_made_anew_while_the_old_pods_end_makes_one_result(site: Site) -> None:
    spec = align(site)
    job = "aj-web-rewrite-rewrite-0"
    site.kubelet.stopped.add(job)
    try:
        site.apply("AlignJob", "web", spec)
        old = site.wait(lambda: site.kubelet.process_of(job, site.namespace), f"pod of {job}")
    finally:
        site.kubelet.stopped.discard(job)
    site.delete("AlignJob", "web")
    site.apply("AlignJob", "web", spec)
    status = site.finished("AlignJob", "web")
    assert status["state"] == "Complete", site.told()
    assert [step["reused"] for step in status["steps"]] == [False, True, True, False, False]
    before = commits(site, status)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(old.process.pid, signal.SIGCONT)
    site.wait(lambda: old.process.exitcode is not None, "end of the old pod")
    assert commits(site, status) == before


def test_a_job_whose_store_is_gone_can_be_deleted(site: Site, tmp_path: Path) -> None:
    """Its pods give up flushing by themselves, before they are killed."""
    with s3_server(tmp_path / "s3") as server:
        assert server.process
        there = Site(site.plane, site.kubelet, server, make_namespace(site.plane, server))
        store = {"bucket": server.bucket, "endpoint": server.endpoint, "credentialsSecret": {"name": SECRET}}
        there.kubelet.held.add("clean")
        try:
            there.apply("AlignJob", "web", align(there, store=store))
            there.wait(lambda: "aj-web-clean-filter-0" in there.jobs() or None, "first phase of clean")
            freeze(server.process)
        finally:
            there.kubelet.held.discard("clean")
        pod = there.wait(lambda: there.kubelet.process_of("aj-web-clean-filter-0", there.namespace), "running pod")
        there.wait(lambda: takes_sigterm(pod.process.pid), "pod that flushes")
        there.delete("AlignJob", "web")
        there.wait(lambda: not children(there), "end of all children", GONE_SECONDS)
        assert pod.process.exitcode == ExitCode.TEMPORARY
        server.process.send_signal(signal.SIGCONT)


def takes_sigterm(pid: int) -> bool:
    """Whether a process has a handler for it."""
    (caught,) = re.findall(r"^SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def children(site: Site) -> list[str]:
    """The job's objects that are still there."""
    found = [item["metadata"] for kind in ("AlignJob", "Job", "Pod", "ConfigMap") for item in site.every(kind)]
    return [metadata["name"] for metadata in found if metadata["name"] != "kube-root-ca.crt"]
