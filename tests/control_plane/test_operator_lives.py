"""Jobs on a real control plane: the operator as a process, pods that run the real steps against a real S3 server."""

import json
import urllib.request
from typing import Any

import pytest
from tests.control_plane.site import Operator, Site
from tests.workloads.desk import jsonl, texts

from nativealign_api.kinds import KINDS
from nativealign_api.vocabulary import GROUP
from nativealign_operator.paths import path_of

pytestmark = pytest.mark.usefixtures("operator")


def align(site: Site, **more: Any) -> dict[str, Any]:
    """A small AlignJob over a corpus of the site's own."""
    site.put(f"{site.namespace}/a.jsonl", jsonl(texts(8, seed=1)))
    site.put(f"{site.namespace}/b.jsonl", jsonl(texts(8, seed=2)))
    return {
        "corpora": [{"name": "web", "uri": f"s3://{site.s3.bucket}/{site.namespace}/*.jsonl"}],
        "expert": {"rules": {}},
        "sharding": {"shards": 1},
        "heldOut": {"documents": 0},
        **more,
    }


def test_an_align_job_runs_to_its_end(site: Site, operator: Operator) -> None:
    site.apply("AlignJob", "web", align(site, sharding={"shards": 2}))
    status = site.finished("AlignJob", "web")
    assert status["state"] == "Complete", site.told()
    assert [step["state"] for step in status["steps"]] == ["Committed"] * 5
    assert site.objects(f"{status['outputs']['rewrite']}/manifest.json")
    wanted = {"Started", "StepCommitted", "StepsCommitted"}  # events come after the status that they tell of
    site.wait(lambda: wanted <= {e["reason"] for e in site.every("Event") if e["involvedObject"]["kind"] == "AlignJob"}, "events")
    waited = site.plane.kubectl("wait", "--for=condition=Finished", "-n", site.namespace, "alignjob/web", "--timeout=5s")
    assert waited.returncode == 0
    shown = site.plane.kubectl("get", "aj", "-n", site.namespace).stdout
    assert shown.splitlines()[1].split()[:2] == ["web", "Complete"]
    assert not operator.errors()


def test_the_same_job_again_computes_nothing(site: Site) -> None:
    spec = align(site)
    site.apply("AlignJob", "first", spec)
    first = site.finished("AlignJob", "first")
    site.apply("AlignJob", "second", spec)
    second = site.finished("AlignJob", "second")
    assert second["outputs"] == first["outputs"]
    assert [step["reused"] for step in second["steps"][1:]] == [True] * 4
    assert [name for name in site.jobs() if "second" in name] == ["aj-second-inspect-list-0"]
    assert [step.get("counts") for step in second["steps"]] == [step.get("counts") for step in first["steps"]]


def test_a_mistake_ends_with_its_cause(site: Site) -> None:
    spec = align(site) | {"corpora": [{"name": "web", "uri": f"s3://{site.s3.bucket}/nothing/*.jsonl"}]}
    site.apply("AlignJob", "web", spec)
    status = site.finished("AlignJob", "web")
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert (status["state"], ready["status"], ready["reason"]) == ("Failed", "False", "InputEmpty"), json.dumps(status)
    assert "nothing/*.jsonl" in ready["message"]


def test_a_spec_that_an_older_schema_took_is_invalid_and_counted(site: Site, operator: Operator) -> None:
    """The schema is loose until the job is there."""

    def counted() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}/metrics", timeout=30) as answer:
            return 'nativealign_jobs{kind="AlignJob",state="Invalid"} 1.0' in answer.read().decode()

    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{KINDS['AlignJob'].plural}.{GROUP}"
    shards = "spec/properties/sharding/properties/shards"

    def may_be(least: int) -> None:
        place = f"/spec/versions/0/schema/openAPIV3Schema/properties/{shards}/minimum"
        change = [{"op": "replace", "path": place, "value": least}]
        code, told = site.plane.request("PATCH", path, change, form="application/json-patch+json")
        assert code == 200, told

    manifest = site.manifest("AlignJob", "web", align(site) | {"sharding": {"shards": -1}})
    may_be(-1)
    try:
        site.wait(
            lambda: site.plane.request("POST", path_of("AlignJob", site.namespace), manifest)[0] == 201, "the loosened schema"
        )
    finally:
        may_be(1)
    site.reaches("AlignJob", "web", "Invalid", "InvalidSpec")
    site.wait(counted, "metric")
    site.delete("AlignJob", "web")
    site.wait(lambda: not counted(), "end of the metric")
