"""The GitOps examples: jobs that validate, health that is the chart's own, values that the chart takes."""

from pathlib import Path
from typing import Any

import yaml
from tests.chart.helm import objects

from nativealign_api.loader import load_jobs

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "gitops"
FILES = ROOT / "charts" / "nativealign" / "files"


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def of_kind(path: Path, kind: str) -> list[dict[str, Any]]:
    return [document for document in documents(path) if document["kind"] == kind]


def test_the_jobs_are_valid_and_all_listed() -> None:
    listed = documents(EXAMPLES / "jobs" / "kustomization.yaml")[0]["resources"]
    assert sorted(listed) == sorted(path.name for path in (EXAMPLES / "jobs").glob("*.yaml") if path.name != "kustomization.yaml")
    assert len(load_jobs([EXAMPLES / "jobs" / name for name in listed])) == len(listed)


def test_argo_cd_gets_the_charts_health_script_for_every_kind() -> None:
    (config,) = documents(EXAMPLES / "argocd" / "argocd-cm.yaml")
    kinds = ("AlignJob", "PretrainJob", "EvalJob")
    script = (FILES / "argocd-health.lua").read_text()
    assert config["data"] == {f"resource.customizations.health.nativealign.dev_{kind}": script for kind in kinds}


def test_the_chart_takes_the_examples_values() -> None:
    (application, _) = of_kind(EXAMPLES / "argocd" / "applications.yaml", "Application")
    (release,) = of_kind(EXAMPLES / "flux" / "nativealign.yaml", "HelmRelease")
    values = application["spec"]["source"]["helm"]["valuesObject"]
    assert release["spec"]["values"] == values
    assert objects(values)
