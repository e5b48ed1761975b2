"""The rendered objects before judges: kubeconform with an apiserver's own schemas, the apiserver itself, kube-score."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.chart.helm import MATRIX, objects
from tests.chart.schemas import FILE
from tests.cluster.build import binary
from tests.cluster.control_plane import ControlPlane

EXCEPTIONS = {
    "container-image-pull-policy": "tags are versions, and digests can be given; Always would need the registry at every start",
    "container-resources": "no CPU limit: it would delay the renewal of the Lease; memory and disk are limited",
    "networkpolicy-targets-pod": "jobs' pods are not in the chart; test_selectors_choose_the_right_pods looks at the others",
}
"""Critical findings of kube-score that stay, and why."""


@pytest.mark.parametrize("name", MATRIX)
def test_kubeconform_accepts_every_object(name: str, schemas: Path) -> None:
    command = [binary("kubeconform"), "-strict", "-summary", "-output", "json", "-schema-location", f"{schemas}/{FILE}", "-"]
    done = subprocess.run(command, input=yaml.safe_dump_all(objects(MATRIX[name])), capture_output=True, text=True, timeout=60)
    answer = json.loads(done.stdout)
    assert done.returncode == 0, answer["resources"]
    assert answer["summary"] == {"valid": len(objects(MATRIX[name])), "invalid": 0, "errors": 0, "skipped": 0}


def test_kubeconform_refuses_an_unknown_field(schemas: Path) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"prots": []}}
    command = [binary("kubeconform"), "-strict", "-schema-location", f"{schemas}/{FILE}", "-"]
    done = subprocess.run(command, input=json.dumps(service), capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "prots" in done.stdout


@pytest.mark.parametrize("name", MATRIX)
def test_the_apiserver_accepts_every_object(name: str, plane: ControlPlane) -> None:
    """Also what schemas do not say: names, references between fields, CEL."""
    text = yaml.safe_dump_all(objects(MATRIX[name]))
    done = plane.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-", given=text)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(MATRIX.keys() - {"bare"}))
def test_kube_score_finds_nothing_critical(name: str) -> None:
    """But in `bare`, where network policies are switched off, which it would complain of."""
    ignored = [flag for check in EXCEPTIONS for flag in ("--ignore-test", check)]
    command = [binary("kube-score"), "score", "--output-format", "ci", *ignored, "-"]
    done = subprocess.run(command, input=yaml.safe_dump_all(objects(MATRIX[name])), capture_output=True, text=True, timeout=60)
    critical = [line for line in done.stdout.splitlines() if line.startswith("[CRITICAL]")]
    assert not critical
    assert "[OK]" in done.stdout, done.stderr
