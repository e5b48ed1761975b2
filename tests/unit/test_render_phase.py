"""The Kubernetes objects of a phase."""

import copy
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests import specs

from nativealign_api.common import Store
from nativealign_api.kinds import KINDS
from nativealign_api.loader import load_jobs
from nativealign_api.plan import plan
from nativealign_api.resolved import ResolvedJob, resolve
from nativealign_api.vocabulary import LABEL_JOB
from nativealign_cli.rendering import render_jobs
from nativealign_operator.render import Rendered, RenderSettings, render_phase

GOLDEN = Path(__file__).with_name("render_two_nodes_rdma.yaml")
SETTINGS = RenderSettings("registry.example/nativealign-workloads:0.1.0", Store.model_validate(specs.STORE | {"bucket": "default"}))


def _render(kind: str, step: str, phase: str, fields: dict[str, Any] | None = None, attempt: int = 0) -> Rendered:
    given = {name: value for name, value in (specs.SPECS[kind] | (fields or {})).items() if value is not None}
    job = specs.parse(kind, given)
    job.metadata.namespace = "research"
    found = plan(kind, job.spec, job.status.pinned).step(step)
    wanted = next(entry for entry in found.phases if entry.name == phase)
    return render_phase(job, wanted, resolve(job, found, wanted, attempt=attempt), SETTINGS)


def _pod(rendered: Rendered) -> dict[str, Any]:
    found: dict[str, Any] = rendered.job["spec"]["template"]["spec"]
    return found


def _environment(rendered: Rendered) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in _pod(rendered)["containers"][0]["env"]}


def _secret_paths(rendered: Rendered) -> list[str]:
    volumes = [volume for volume in _pod(rendered)["volumes"] if volume["name"] == "secrets"]
    sources = volumes[0]["projected"]["sources"] if volumes else []
    return [item["path"] for source in sources if "secret" in source for item in source["secret"]["items"]]


def test_a_gang_of_two_nodes_with_rdma_looks_like_the_golden_file() -> None:
    """After a change that is meant: `python -m tests.unit.test_render_phase > tests/unit/render_two_nodes_rdma.yaml`."""
    assert _golden() == GOLDEN.read_text()


def _golden() -> str:
    return yaml.safe_dump_all(_render("PretrainJob", "train", "train").objects(), sort_keys=False, width=120)


def test_the_pod_reads_exactly_the_job_that_was_resolved() -> None:
    rendered = _render("AlignJob", "clean", "filter")
    told = ResolvedJob.model_validate_json(rendered.config_map["data"]["job.json"])
    assert (told.step, told.phase, told.store and told.store.bucket) == ("clean", "filter", "alignment")
    assert rendered.config_map["immutable"] is True
    assert rendered.config_map["metadata"]["name"] in json.dumps(_pod(rendered)["volumes"])


def test_a_config_map_is_named_after_its_content() -> None:
    made = [_render("AlignJob", "clean", "filter", {"clean": {"minWords": words}}).config_map for words in (5, 5, 6)]
    names = [one["metadata"]["name"] for one in made]
    assert names[0] == names[1] != names[2]


def test_a_job_without_a_store_gets_that_of_the_installation() -> None:
    told = json.loads(_render("AlignJob", "clean", "filter", {"store": None}).config_map["data"]["job.json"])
    assert told["store"]["bucket"] == "default"


def test_a_sharded_job_lets_each_index_fail_alone_and_ignores_disruptions() -> None:
    spec = _render("AlignJob", "clean", "filter").job["spec"]
    rules = [(rule["action"], rule.get("onExitCodes", {}).get("values")) for rule in spec["podFailurePolicy"]["rules"]]
    assert rules == [("Ignore", None), ("FailJob", [64, 66, 77, 78]), ("FailIndex", [65])]
    assert (spec["backoffLimitPerIndex"], spec["podReplacementPolicy"], "backoffLimit" in spec) == (5, "Failed", False)
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 30


def test_a_gang_ends_with_its_first_lost_pod() -> None:
    spec = _render("PretrainJob", "train", "train").job["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (2, 2, 0)
    assert {rule["action"] for rule in spec["podFailurePolicy"]["rules"]} == {"FailJob"}
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 600


def test_the_ranks_of_a_gang_find_the_first_by_name() -> None:
    rendered = _render("PretrainJob", "train", "train")
    name = rendered.job["metadata"]["name"]
    assert rendered.service is not None
    assert rendered.service["metadata"]["name"] == _pod(rendered)["subdomain"] == name
    assert rendered.service["spec"]["publishNotReadyAddresses"] is True
    assert _environment(rendered)["MASTER_ADDR"] == f"{name}-0.{name}"


def test_a_gang_of_one_node_needs_no_service() -> None:
    rendered = _render("PretrainJob", "train", "train", {"trainResources": specs.RESOURCES | {"nodes": 1}})
    assert rendered.service is None
    assert "MASTER_ADDR" not in _environment(rendered)


def test_parallelism_never_exceeds_the_indexes() -> None:
    assert _render("AlignJob", "clean", "commit").job["spec"]["parallelism"] == 1


@pytest.mark.parametrize(("queue", "labelled"), [("research", True), (None, False)])
def test_kueue_gets_the_queue_and_may_admit_fewer_pods_of_a_sharded_job(queue: str | None, labelled: bool) -> None:
    job = specs.parse("AlignJob", {name: value for name, value in specs.SPECS["AlignJob"].items() if name != "queueName" or queue})
    job.status.pinned.shards = {"corpora": 12}
    step = plan("AlignJob", job.spec, job.status.pinned).step("rewrite")
    made = [render_phase(job, phase, resolve(job, step, phase), SETTINGS).job for phase in step.phases]
    assert [one["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") for one in made] == [queue, None]
    partial = ["kueue.x-k8s.io/job-min-parallelism" in one["metadata"]["annotations"] for one in made]
    assert partial == [labelled, False]
    assert all("suspend" not in one["spec"] for one in made)


@pytest.mark.parametrize("queue", ["research", None])
def test_short_jobs_of_queued_jobs_get_the_installations_queue(queue: str | None) -> None:
    job = specs.parse("AlignJob", {name: value for name, value in specs.SPECS["AlignJob"].items() if name != "queueName" or queue})
    settings = replace(SETTINGS, short_queue="short")
    step = plan("AlignJob", job.spec, job.status.pinned).step("rewrite")
    made = [render_phase(job, phase, resolve(job, step, phase), settings).job for phase in step.phases]
    assert [one["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") for one in made] == [queue, queue and "short"]


def test_a_pod_gets_only_the_secrets_that_its_phase_uses() -> None:
    store = ["store/AWS_ACCESS_KEY_ID", "store/AWS_SECRET_ACCESS_KEY"]
    assert _secret_paths(_render("AlignJob", "clean", "filter")) == store
    assert _secret_paths(_render("AlignJob", "annotate", "annotate")) == [*store, "expert/token"]
    assert _secret_paths(_render("AlignJob", "annotate", "sample")) == store
    served = {"rewrite": {"openai": specs.SERVED}}
    assert _secret_paths(_render("AlignJob", "rewrite", "rewrite", served)) == [*store, "expert/token", "worker/token"]
    assert _secret_paths(_render("AlignJob", "assess", "measure")) == [*store, "judge/token"]
    assert _secret_paths(_render("EvalJob", "evaluate", "evaluate")) == [*store, "judge/token"]


def test_a_token_is_mounted_only_for_a_service_account_and_bound_to_an_audience() -> None:
    pod = _pod(_render("AlignJob", "clean", "filter"))
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("aligner", False)
    assert "sts.amazonaws.com" in json.dumps(pod["volumes"])
    assert "serviceAccountToken" not in json.dumps(_pod(_render("AlignJob", "clean", "filter", {"serviceAccountName": None})))


def test_the_code_of_conduct_is_mounted_where_it_is_pinned() -> None:
    assert "ours.yaml" in json.dumps(_pod(_render("AlignJob", "inspect", "list"))["volumes"])
    assert "ours.yaml" not in json.dumps(_pod(_render("AlignJob", "rewrite", "rewrite"))["volumes"])


@pytest.mark.parametrize(
    ("step", "phase", "spec", "expected"),
    [
        ("rewrite", "rewrite", {}, "8"),
        ("rewrite", "rewrite", {"rewrite": {"openai": specs.SERVED, "resources": specs.RESOURCES}}, None),
        ("rewrite", "commit", {}, None),
        ("annotate", "draw", {}, "8"),  # by perplexity
        ("annotate", "draw", {"seed": {"documents": 10}}, None),
        ("annotate", "annotate", {}, None),
        ("annotate", "annotate", {"expert": {"vllm": specs.EXPERTS["vllm"], "resources": specs.RESOURCES}}, "8"),
        ("assess", "draw", {}, None),
        ("assess", "measure", {}, "8"),
        ("assess", "measure", {"assess": {"resources": specs.RESOURCES}, "gates": {}}, None),
    ],
)
def test_only_phases_that_compute_on_accelerators_ask_for_them(
    step: str, phase: str, spec: dict[str, Any], expected: str | None
) -> None:
    limits = _pod(_render("AlignJob", step, phase, spec))["containers"][0]["resources"]["limits"]
    assert (limits.get("nvidia.com/gpu"), limits.get("rdma/hca")) == (expected, expected and "1")


def test_phases_that_compute_have_the_memory_of_their_step_and_commits_that_of_the_job() -> None:
    spec = {"rewrite": {"resources": {"memory": "7Gi"}}, "worker": None, "resources": {"memory": "1Gi"}}
    for phase, expected in (("rewrite", "7Gi"), ("commit", "1Gi")):
        limits = _pod(_render("AlignJob", "rewrite", phase, spec))["containers"][0]["resources"]["limits"]
        assert limits["memory"] == expected


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"gpusPerNode": 1}, None),
        ({"gpusPerNode": 2}, {"medium": "Memory"}),
        ({"nodes": 2}, {"medium": "Memory"}),
        ({"gpusPerNode": 1, "sharedMemory": "8Gi"}, {"medium": "Memory", "sizeLimit": "8Gi"}),
    ],
)
def test_pods_of_several_accelerators_or_nodes_have_shared_memory(
    resources: dict[str, Any], expected: dict[str, str] | None
) -> None:
    pod = _pod(_render("PretrainJob", "train", "train", {"trainResources": resources}))
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume.get("emptyDir") for volume in pod["volumes"]}
    assert volumes.get(mounts.get("/dev/shm", "")) == expected


def test_environment_of_the_user_reaches_the_pod() -> None:
    rendered = _render("PretrainJob", "train", "train")
    assert _environment(rendered)["NCCL_IB_HCA"] == "mlx5"
    assert _environment(rendered)["NATIVEALIGN_WRITER"] == {"fieldRef": {"fieldPath": "metadata.uid"}}


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_is_owned_by_its_job_and_blocks_no_deletion(kind: str) -> None:
    job = specs.parse(kind, specs.SPECS[kind])
    for step in plan(kind, job.spec, job.status.pinned).steps:
        for phase in step.phases:
            for made in render_phase(job, phase, resolve(job, step, phase), SETTINGS).objects():
                [owner] = made["metadata"]["ownerReferences"]
                assert (owner["kind"], owner["name"], owner["uid"]) == (kind, "web", job.metadata.uid)
                assert (owner["controller"], owner["blockOwnerDeletion"]) == (True, False)
                assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", made["metadata"]["name"])
                assert all(len(value) <= 63 for value in made["metadata"]["labels"].values())


def test_rendering_twice_gives_the_same_bytes_and_changes_nothing() -> None:
    before = copy.deepcopy(specs.SPECS)
    first, second = (_render("PretrainJob", "train", "train").objects() for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert before == specs.SPECS


def test_rendering_loads_neither_the_workloads_nor_torch() -> None:
    check = "import sys, nativealign_operator.render; print({'torch', 'nativealign_workloads'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_job_that_names_no_namespace_is_rendered_in_the_one_asked_for(tmp_path: Path) -> None:
    manifest = """\
apiVersion: nativealign.dev/v1alpha1
kind: AlignJob
metadata: {{name: {name}}}
spec:
  corpora: [{{name: web, uri: "s3://corpora/web/"}}]
  expert: {{rules: {{}}}}
  store: {{endpoint: "https://s3", bucket: aligned}}
"""
    (tmp_path / "jobs.yaml").write_text(manifest.format(name="free") + "---\n" + manifest.format(name="bound, namespace: own"))
    objects = list(yaml.safe_load_all(render_jobs([job for job, _ in load_jobs([tmp_path / "jobs.yaml"])], "research")))
    where = {(item["metadata"]["labels"][LABEL_JOB], item["metadata"]["namespace"]) for item in objects}
    assert where == {("free", "research"), ("bound", "own")}


if __name__ == "__main__":
    print(_golden(), end="")
