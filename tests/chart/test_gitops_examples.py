"""The GitOps examples: jobs that validate, health that is the chart's own, values that the chart takes."""

from pathlib import Path

from tests.chart.helm import documents, objects, of_kind

from nativealign_api.loader import load_jobs

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "gitops"
FILES = ROOT / "charts" / "nativealign" / "files"


def test_the_jobs_are_valid_and_all_listed() -> None:
    listed = documents((EXAMPLES / "jobs" / "kustomization.yaml").read_text())[0]["resources"]
    assert sorted(listed) == sorted(path.name for path in (EXAMPLES / "jobs").glob("*.yaml") if path.name != "kustomization.yaml")
    assert len(load_jobs([EXAMPLES / "jobs" / name for name in listed])) == len(listed)


def test_argo_cd_gets_the_charts_health_script_for_every_kind() -> None:
    (config,) = documents((EXAMPLES / "argocd" / "argocd-cm.yaml").read_text())
    kinds = ("AlignJob", "PretrainJob", "EvalJob")
    script = (FILES / "argocd-health.lua").read_text()
    assert config["data"] == {f"resource.customizations.health.nativealign.dev_{kind}": script for kind in kinds}


def test_what_flux_brings_is_there_and_depends_on_what_it_brings() -> None:
    brought = [part for path in (EXAMPLES / "flux").glob("*.yaml") for part in documents(path.read_text())]
    parts = of_kind(brought, "Kustomization")
    assert all(list((EXAMPLES / part["spec"]["path"]).glob("*.yaml")) for part in parts)
    names = {part["metadata"]["name"] for part in parts}
    assert {needed["name"] for part in parts for needed in part["spec"].get("dependsOn", [])} <= names
    sources = {(part["kind"], part["metadata"]["name"]) for part in brought}
    assert {(source["kind"], source["name"]) for part in parts for source in [part["spec"]["sourceRef"]]} <= sources


def test_the_chart_takes_the_examples_values() -> None:
    (application, _) = of_kind(documents((EXAMPLES / "argocd" / "applications.yaml").read_text()), "Application")
    (release,) = documents((EXAMPLES / "release" / "nativealign.yaml").read_text())
    values = application["spec"]["source"]["helm"]["valuesObject"]
    assert release["spec"]["values"] == values
    assert objects(values)
