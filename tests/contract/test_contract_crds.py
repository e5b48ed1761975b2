"""The generated CRDs in a real kube-apiserver: what it accepts, fills in, refuses and shows."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests import specs
from tests.cluster.control_plane import ControlPlane
from tests.cluster.servers import wait_for
from tests.contract.objects import create, merge, path, replace_spec

from nativealign_api.kinds import KINDS
from nativealign_api.loader import load_manifests, parse_job
from nativealign_api.plan import plan
from nativealign_api.status import Pinned

EXAMPLES = Path(__file__).parents[2] / "examples"

MINIMAL: dict[str, dict[str, Any]] = {
    "AlignJob": {"corpora": [{"name": "web", "uri": "s3://corpora/web/**"}], "expert": {"rules": {}}},
    "PretrainJob": {"base": {"uri": "s3://models/llama"}, "mix": [{"alignJob": "web"}], "tokens": "20B"},
    "EvalJob": {"model": {"uri": "s3://models/llama"}, "heldOut": {"alignJob": "web"}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_crd_is_structural_and_its_names_are_accepted(plane: ControlPlane, kind: str) -> None:
    name = f"{KINDS[kind].plural}.nativealign.dev"
    _, crd = plane.request("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
    conditions = {entry["type"]: entry["status"] for entry in crd["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_apiserver_fills_in_the_defaults_of_the_models(plane: ControlPlane, namespace: str, kind: str) -> None:
    status, stored = create(plane, namespace, specs.job(kind, MINIMAL[kind]))
    assert status == 201, stored
    assert _without_empty(stored["spec"]) == _without_empty(_dump(kind, MINIMAL[kind]))


def _dump(kind: str, spec: dict[str, Any]) -> Any:
    dumped = specs.parse(kind, spec).spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dumped | {name: spec[name] for name in spec if isinstance(spec[name], str | list)}


def _without_empty(value: Any) -> Any:
    """Without empty lists, maps and strings, which the CRD does not write into the object."""
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item not in ([], {}, "") or key == "rules"}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", [MINIMAL, specs.SPECS], ids=["minimal", "full"])
def test_kubectl_calls_what_is_applied_again_unchanged(plane: ControlPlane, namespace: str, kind: str, spec: Any) -> None:
    """Which a default within a list would prevent."""
    given = json.dumps(specs.job(kind, spec[kind], namespace=namespace))
    said = [plane.kubectl("apply", "--filename=-", given=given).stdout.split()[-1] for _ in range(2)]
    assert said == ["created", "unchanged"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_with_every_field_is_accepted_and_kept(plane: ControlPlane, namespace: str, kind: str) -> None:
    status, stored = create(plane, namespace, specs.job(kind, specs.SPECS[kind]))
    assert status == 201, stored
    assert specs.parse(kind, stored["spec"]).spec == specs.parse(kind, specs.SPECS[kind]).spec


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("AlignJob", {"paralelism": 3}, 'unknown field "spec.paralelism"'),
    ("AlignJob", {"expert": {}}, "exactly one of rules, openai, transformers, vllm must be set"),
    (
        "AlignJob",
        {"expert": {"rules": {}, "openai": specs.ENDPOINT}},
        "exactly one of rules, openai, transformers, vllm must be set",
    ),
    ("AlignJob", {"seed": {"strategy": "HighPerplexity"}}, "strategy needs perplexityModel"),
    (
        "AlignJob",
        {"seed": {"strategy": "HighPerplexty"}},
        'supported values: "Random", "Stratified", "HighPerplexity", "LowPerplexity"',
    ),
    ("AlignJob", {"seed": {"documents": "0k"}}, "must be at least 1"),
    ("AlignJob", {"seed": {"documents": "many"}}, "spec.seed.documents"),
    ("AlignJob", {"sharding": {"targetBytes": "2T"}}, "must be at most 1000000000000"),
    ("AlignJob", {"rewrite": {"transformers": {}}}, "rewrite.transformers, rewrite.vllm and rewrite.openai need worker"),
    ("AlignJob", {"rewrite": {"vllm": {}}}, "rewrite.transformers, rewrite.vllm and rewrite.openai need worker"),
    ("AlignJob", {"rewrite": {"openai": specs.SERVED}}, "rewrite.transformers, rewrite.vllm and rewrite.openai need worker"),
    ("AlignJob", {"rewrite": {"vllm": {}, "openai": specs.SERVED}}, "rewrite has one engine: transformers, vllm or openai"),
    ("AlignJob", {"rewrite": {"vllm": {}, "transformers": {}}}, "rewrite has one engine: transformers, vllm or openai"),
    ("AlignJob", {"corpora": [specs.CORPUS, specs.CORPUS]}, "Duplicate value"),
    ("AlignJob", {"corpora": [{"name": "web", "uri": "https://example.org/x"}]}, "spec.corpora[0].uri"),
    ("AlignJob", {"resources": {"environment": {"LD_PRELOAD": "x"}}}, "environment takes NCCL_*"),
    ("AlignJob", {"resources": {"networkAnnotations": {"a/b": "x"}}}, "networkAnnotations takes keys of k8s.v1.cni.cncf.io only"),
    ("AlignJob", {"resources": {"memory": "8 Gigs"}}, "spec.resources.memory"),
    ("AlignJob", {"store": {"bucket": "data", "endpoint": "https://user:key@minio"}}, "spec.store.endpoint"),
    ("AlignJob", {"expert": {"openai": {**specs.ENDPOINT, "budget": {"usd": 5}}}}, "usd needs promptUsdPerMillionTokens"),
    ("AlignJob", {"decontamination": {"words": 20}}, "benchmarks or items must be given"),
    ("AlignJob", {"decontamination": {"benchmarks": ["mmlu"]}}, "benchmarks and data belong together"),
    ("PretrainJob", {"mix": []}, "should have at least 1 items"),
    ("PretrainJob", {"mix": [{"weight": 1}]}, "exactly one of alignJob, corpus must be set"),
    ("PretrainJob", {"mix": [{"alignJob": "web"}, {"alignJob": "web", "view": "Aligned"}]}, "mix entries must be different"),
    ("PretrainJob", {"tokens": 0}, "should be greater than or equal to 1"),
    ("PretrainJob", {"resources": {"memory": "512m"}}, "spec.resources.memory in body should match"),
    ("PretrainJob", {"optimizer": {"learningRate": 0}}, "should be greater than 0"),
    (
        "PretrainJob",
        {"base": {"fromConfig": {"hiddenSize": 64, "attentionHeads": 3}}},
        "hiddenSize must be a multiple of twice attentionHeads",
    ),
    ("PretrainJob", {"base": {"fromConfig": {"maxPosition": 64}}}, "sequenceLength must not exceed base.fromConfig.maxPosition"),
    ("EvalJob", {"benchmarks": [{"name": "mmlu"}]}, "data must be given, here or for each benchmark"),
    ("EvalJob", {"heldOut": None}, "benchmarks or heldOut must be given"),
    ("EvalJob", {"gate": {"nonInferior": {}}}, "gate needs baseline"),
    ("EvalJob", {"benchmarks": [{"name": "acva-clean"}], "data": {"uri": "x"}}, "acva-clean needs idList"),
    ("EvalJob", {"benchmarks": [{"name": "ar-beavertails"}], "data": {"uri": "x"}}, "ar-beavertails needs judge"),
]


@pytest.mark.parametrize(("kind", "fields", "message"), REFUSED)
def test_a_mistake_is_refused_when_it_is_applied(plane: ControlPlane, kind: str, fields: dict[str, Any], message: str) -> None:
    spec = {name: value for name, value in (MINIMAL[kind] | fields).items() if value is not None}
    status, answer = create(plane, "default", specs.job(kind, spec), dry_run=True)
    assert status in (400, 422)
    assert message in answer["message"]


@pytest.mark.parametrize("name", ["with.dots", "a" * 64])
def test_a_name_that_no_label_can_hold_is_refused(plane: ControlPlane, name: str) -> None:
    status, answer = create(
        plane, "default", specs.job("AlignJob", MINIMAL["AlignJob"]) | {"metadata": {"name": name}}, dry_run=True
    )
    assert status == 422
    assert "metadata.name must be at most 63 characters of a-z, 0-9 and '-'" in answer["message"]


PLACE = {"store.bucket", "store.prefix"}
"""Where results lie is fixed after the start, though it is no part of what they are."""
MOOT = {"mix[].acceptFailedGate"}
"""Operational, in a list that is compared as a whole; after the start it has no effect."""


@pytest.mark.parametrize("kind", KINDS)
def test_identity_fields_are_fixed_once_the_job_has_started_and_operational_ones_are_not(
    plane: ControlPlane, namespace: str, kind: str
) -> None:
    jobs: list[tuple[dict[str, Any], str, str]] = []
    wrong = []
    for leaf, name in specs.leaves(kind):
        before, after = specs.changed(kind, leaf)
        if not any(spec == before for spec, _, _ in jobs):
            jobs.append((before, *_waiting_and_started(plane, namespace, kind, before, len(jobs))))
        waiting, started = next(names for spec, *names in jobs if spec == before)
        early, answer = replace_spec(plane, path(kind, namespace, waiting), after, dry_run=True)
        assert early == 200, (leaf, answer)
        late, answer = replace_spec(plane, path(kind, namespace, started), after, dry_run=True)
        top = leaf.split(".")[0].removesuffix("[]")
        refused = late == 422 and f"spec.{top} is immutable once the job has started; create a new job" in answer["message"]
        if leaf in PLACE:
            refused = not (late == 422 and "spec.store.bucket and spec.store.prefix are immutable" in answer["message"])
        if refused != (name == "identity" or leaf in MOOT) or late not in (200, 422):
            wrong.append((leaf, name, late, answer.get("message")))
    assert not wrong


def test_a_store_without_a_prefix_stays_so_and_may_get_another_endpoint_after_the_start(
    plane: ControlPlane, namespace: str
) -> None:
    store = {"bucket": "aligned", "endpoint": "https://minio.storage:9000"}
    spec = MINIMAL["AlignJob"] | {"store": store}
    _, started = _waiting_and_started(plane, namespace, "AlignJob", spec, 0)

    def replaced(**changes: str) -> int:
        return replace_spec(plane, path("AlignJob", namespace, started), spec | {"store": store | changes}, dry_run=True)[0]

    assert replaced(endpoint="https://minio.elsewhere:9000") == 200
    assert replaced(prefix="team") == 422


def _waiting_and_started(plane: ControlPlane, namespace: str, kind: str, spec: dict[str, Any], number: int) -> tuple[str, str]:
    """Names of two jobs of this spec."""
    names = f"waiting-{number}", f"started-{number}"
    for name in names:
        status, answer = create(plane, namespace, specs.job(kind, spec, name=name))
        assert status == 201, answer
    _start(plane, path(kind, namespace, names[1]))
    return names


def _start(plane: ControlPlane, at: str) -> None:
    status, answer = merge(plane, f"{at}/status", {"status": {"startTime": "2026-01-01T00:00:00Z"}})
    assert status == 200, answer


def test_another_part_of_a_choice_cannot_be_taken_after_the_start(plane: ControlPlane, namespace: str) -> None:
    create(plane, namespace, specs.job("AlignJob", MINIMAL["AlignJob"]))
    at = path("AlignJob", namespace, "web")
    _start(plane, at)
    expert, answer = merge(plane, at, {"spec": {"expert": {"rules": None, "openai": specs.ENDPOINT}}})
    assert (expert, "spec.expert is immutable" in answer["message"]) == (422, True)
    worker, answer = merge(plane, at, {"spec": {"worker": {"base": {"uri": "s3://models/qwen"}}}})
    assert (worker, "spec.worker is immutable" in answer["message"]) == (422, True)


def test_server_side_apply_merges_lists_by_name_and_conditions_by_type(plane: ControlPlane, namespace: str) -> None:
    at = path("AlignJob", namespace, "web")
    apply = "application/apply-patch+yaml"
    manifest = specs.job("AlignJob", MINIMAL["AlignJob"])
    assert plane.request("PATCH", f"{at}?fieldManager=team", manifest, form=apply)[0] == 201
    for manager, condition in (("operator", "Ready"), ("other", "Finished")):
        entry = {"type": condition, "status": "True", "reason": "Running", "message": "x" * 20000}
        body = specs.job("AlignJob", {}) | {"status": {"conditions": [entry]}}
        del body["spec"]
        status, answer = plane.request("PATCH", f"{at}/status?fieldManager={manager}&force=true", body, form=apply)
        assert status == 200, answer
    status, found = plane.request("PATCH", f"{at}?fieldManager=team", manifest, form=apply)
    assert status == 200
    assert [entry["type"] for entry in found["status"]["conditions"]] == ["Ready", "Finished"]
    assert found["metadata"]["generation"] == 1


def test_the_status_of_a_job_is_not_written_with_its_spec(plane: ControlPlane, namespace: str) -> None:
    status, stored = create(plane, namespace, specs.job("EvalJob", MINIMAL["EvalJob"]) | {"status": {"state": "Complete"}})
    assert status == 201
    assert stored["status"] == {"observedGeneration": 0}


def test_kubectl_get_shows_state_step_progress_and_eta(plane: ControlPlane, namespace: str) -> None:
    job = specs.parse("AlignJob", MINIMAL["AlignJob"])
    create(plane, namespace, specs.job("AlignJob", MINIMAL["AlignJob"]))
    running = {"name": "rewrite", "state": "Running", "progressPercent": 41.7, "etaSeconds": 22335.0}
    ready = {"type": "Ready", "status": "True", "reason": "PodsRunning"}
    given = {"state": "Running", "steps": [{"name": "clean", "state": "Committed"}, running], "conditions": [ready]}
    status = type(job.status).model_validate(given).dump()
    code, answer = merge(plane, path("AlignJob", namespace, "web", "status"), {"status": status})
    assert code == 200, answer
    for name in ("aj", "alignjob", "alignjobs", "nativealign"):
        header, row = plane.kubectl("get", name, "-n", namespace).stdout.splitlines()
        assert header.split() == ["NAME", "STATE", "STEP", "PROGRESS", "ETA", "AGE"]
        assert row.split()[1:5] == ["Running", "rewrite", "41%", "6h12m"]
    wide = plane.kubectl("get", "aj", "-o", "wide", "-n", namespace).stdout
    assert "PodsRunning" in wide


def test_kubectl_explain_answers_with_the_docstrings(plane: ControlPlane) -> None:
    field = "alignjob.spec.dedup.fuzzy.similarity"
    # the schema is published some time after the CRD
    wait_for(lambda: plane.kubectl("explain", field).returncode == 0, "the apiserver's OpenAPI")
    text = " ".join(plane.kubectl("explain", field).stdout.split())
    assert "Lowest Jaccard similarity of two duplicates, as sketches estimate it." in text


def test_every_example_is_accepted_and_means_the_same_as_on_a_laptop(plane: ControlPlane) -> None:
    files = [file for file in sorted(EXAMPLES.rglob("*.yaml")) if _holds_jobs(file)]
    assert len(files) >= 5
    for file in files:
        result = plane.kubectl("create", "--dry-run=server", "-o", "json", "-f", str(file))
        assert result.returncode == 0, f"{file}: {result.stderr}"
        found = _objects(result.stdout)
        manifests = load_manifests(file.read_text(), str(file))
        assert [parse_job(manifest).spec for manifest in manifests] == [
            specs.parse(stored["kind"], stored["spec"]).spec for stored in found
        ]


def _holds_jobs(file: Path) -> bool:
    """Not what other tools are told in examples/gitops."""
    return all(manifest.value.get("kind") in KINDS for manifest in load_manifests(file.read_text(), str(file)))


def _objects(text: str) -> list[dict[str, Any]]:
    """kubectl prints one JSON object after another, or a list."""
    decoder, found, start = json.JSONDecoder(), [], 0
    while text[start:].strip():
        value, start = decoder.raw_decode(text, start + len(text[start:]) - len(text[start:].lstrip()))
        found += value["items"] if value["kind"] == "List" else [value]
    return found


def test_the_ablations_are_one_kustomization_whose_arms_differ_in_one_thing(plane: ControlPlane) -> None:
    built = plane.kubectl("kustomize", str(EXAMPLES / "ablations"))
    assert built.returncode == 0, built.stderr
    accepted = plane.kubectl("create", "--dry-run=server", "-o", "name", "-f", "-", given=built.stdout)
    assert accepted.returncode == 0, accepted.stderr
    found = {job.reference: job for job in map(parse_job, load_manifests(built.stdout, "ablations"))}
    arms = {name.partition("/")[2] for name in found if name.startswith("PretrainJob/")}
    assert {f"EvalJob/{arm}" for arm in arms} | {f"PretrainJob/{arm}" for arm in arms} < found.keys()
    aligned = found["PretrainJob/mix-aligned"].spec.model_dump()
    changed = {arm: [n for n, v in found[f"PretrainJob/{arm}"].spec.model_dump().items() if v != aligned[n]] for arm in arms}
    assert changed.pop("mix-aligned") == []
    assert all(fields == (["tokens"] if arm.startswith("volume") else ["mix"]) for arm, fields in changed.items())
    assert {found[f"EvalJob/{arm}"].spec.model.pretrain_job for arm in arms} == arms
    inputs = dict.fromkeys(("corpora", "conduct", "worker.base", "seed.perplexityModel", "decontamination.data"), "0" * 32)
    runs = [plan("AlignJob", found[f"AlignJob/seed-{side}"].spec, Pinned(inputs=inputs)) for side in ("random", "high", "low")]
    assert len({run.step("dedup").digest for run in runs}) == 1
    assert len({run.step("annotate").digest for run in runs}) == 3
