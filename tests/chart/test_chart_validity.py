"""The rendered objects before judges: kubeconform with an apiserver's own schemas, the apiserver itself, kube-score."""

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
from tests.chart.helm import MATRIX, manifest, objects
from tests.chart.schemas import FILE
from tests.cluster.build import binary
from tests.cluster.control_plane import ControlPlane

EXCEPTIONS = {
    "container-image-pull-policy": "tags are versions, and digests can be given; Always would need the registry at every start",
    "container-resources": "no CPU limit: it would delay the renewal of the Lease; memory and disk are limited",
    "networkpolicy-targets-pod": "jobs' pods are not in the chart; test_selectors_choose_the_right_pods looks at the others",
}
"""Critical findings of kube-score that stay, and why."""
OF_JOBS = {
    "container-image-tag": "the quickstart names no image; the installation's has a version or a digest",
    "container-ephemeral-storage-request-and-limit": "scratch has a size of its own; Kueue refuses what its queues do not cover",
    "pod-networkpolicy": "what a team's pods may reach is the team's to say",
    "service-targets-pod": "the Job controller sets the label of a gang's pods that its Service selects",
}
"""Further ones of the jobs' children."""
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", MATRIX)
def test_kubeconform_accepts_every_object(name: str, schemas: Path) -> None:
    command = [binary("kubeconform"), "-strict", "-summary", "-output", "json", "-schema-location", f"{schemas}/{FILE}", "-"]
    done = subprocess.run(command, input=manifest(objects(MATRIX[name])), capture_output=True, text=True, timeout=300)
    answer = json.loads(done.stdout)
    assert done.returncode == 0, answer["resources"]
    assert answer["summary"] == {"valid": len(objects(MATRIX[name])), "invalid": 0, "errors": 0, "skipped": 0}


def test_kubeconform_refuses_an_unknown_field(schemas: Path) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"prots": []}}
    command = [binary("kubeconform"), "-strict", "-schema-location", f"{schemas}/{FILE}", "-"]
    done = subprocess.run(command, input=json.dumps(service), capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "prots" in done.stdout


@pytest.mark.parametrize("name", MATRIX)
def test_the_apiserver_accepts_every_object(name: str, plane: ControlPlane) -> None:
    """Also what schemas do not say: names, references between fields, CEL."""
    text = manifest(objects(MATRIX[name]))
    done = plane.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-", given=text)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(MATRIX.keys() - {"bare"}))
def test_kube_score_finds_nothing_critical(name: str) -> None:
    """But in `bare`, where network policies are switched off, which it would complain of."""
    assert critical(manifest(objects(MATRIX[name])), EXCEPTIONS) == []


def test_kube_score_finds_nothing_critical_in_the_jobs() -> None:
    """Every child of the quickstart, and a gang with all fields of resources."""
    command = [sys.executable, "-m", "nativealign_cli.main", "render", ROOT / "examples" / "quickstart" / "quickstart.yaml"]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    gang = (ROOT / "tests" / "unit" / "render_two_nodes_rdma.yaml").read_text()
    assert critical(f"{rendered}\n---\n{gang}", EXCEPTIONS | OF_JOBS) == []


def critical(text: str, exceptions: Collection[str]) -> list[str]:
    ignored = [flag for check in exceptions for flag in ("--ignore-test", check)]
    command = [binary("kube-score"), "score", "--output-format", "ci", *ignored, "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300)
    assert "[OK]" in done.stdout, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("[CRITICAL]")]
