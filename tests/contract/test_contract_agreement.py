"""`nativealign validate` and the local runner read with pydantic, the cluster with the CRD: both must say the same."""

import json
from typing import Any

from tests import generated, specs
from tests.cluster.control_plane import ControlPlane
from tests.contract.objects import create, names_field

from nativealign_api.base import model_of
from nativealign_api.kinds import KINDS
from nativealign_api.loader import Manifest, ManifestError, load_manifests, parse_job

VALUES: list[Any] = ["x", "4", "", "1.5k", "0", 0, -1, 1.5, 10**13, True, ["x"], {"x": "y"}, {"x": None}, [None]]


def test_the_apiserver_and_the_models_refuse_the_same_values(plane: ControlPlane) -> None:
    """Every leaf of every kind is null once; of leaves that are declared alike one gets every other value, too."""
    seen: set[str] = set()
    differences = []
    for kind, leaf in [(name, path) for name in KINDS for path, _ in specs.leaves(name)]:
        keys = {".".join(leaf.split(".")[-2:]): [None], _declaration(kind, leaf): VALUES}
        spec = specs.with_leaf(kind, leaf)
        holder, name = specs.holder_of(spec, leaf)
        for value in [value for key, values in keys.items() if key not in seen for value in values]:
            holder[name] = value
            manifest = specs.job(kind, spec)
            status, answer = create(plane, "default", manifest, dry_run=True)
            if (status == 201) != _accepted(manifest):
                differences.append((kind, leaf, value, status, answer.get("message", "")))
        seen |= keys.keys()
    assert not differences


def _declaration(kind: str, leaf: str) -> str:
    """All that the model says of the leaf itself; what it says of several fields together shows where one is null."""
    model = KINDS[kind].spec
    for name in leaf.replace("[]", "").split("."):
        field = next(field for own, field in model.model_fields.items() if name in (own, field.alias))
        model = model_of(field.annotation)
    return repr((field.annotation, field.metadata, field.is_required()))


def test_a_value_that_the_schema_refuses_is_refused_with_its_path(plane: ControlPlane) -> None:
    silent = []
    for kind, leaf, _ in generated.fields():
        for value in generated.refused(generated.schema_of(kind, leaf)):
            spec = specs.with_value(specs.with_leaf(kind, leaf), leaf, value)
            code, answer = create(plane, "default", specs.job(kind, spec), dry_run=True)
            if code not in (400, 422) or not names_field(answer["message"], leaf):
                silent.append((kind, leaf, str(value)[:40], code, answer.get("message")))
    assert silent == []


def _accepted(manifest: dict[str, Any]) -> bool:
    """By the models; how the loader reads a text is tested below."""
    try:
        parse_job(Manifest("job.json", manifest, {}))
    except ManifestError:
        return False
    return True


SCALARS = """
1e-5 1E5 1e3 2.50 .5 5. 1_000 0x1F 0o17 017 089 0b101 +3 -3 -0 +1.5 1.5e+3 1e21 1e22 12345678901234567 9223372036854775807
yes Yes YES no No NO on off On OFF true True TRUE false y Y n N null Null NULL ~ tRue
.inf -.inf .nan 1:30 2026-01-01 12e03 1e 0x 0xG 1__0 _1 0.1.2 1.0 100.0 1_0.5 =
"""


def test_yaml_scalars_are_read_as_kubectl_reads_them(plane: ControlPlane) -> None:
    """Each scalar is put where the apiserver keeps whatever it gets, through kubectl; a spec's fields would hide the type."""
    name = "scalars.test.nativealign.dev"
    schema = {"type": "object", "properties": {"value": {"x-kubernetes-preserve-unknown-fields": True}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "Scalar", "plural": "scalars"}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {"group": "test.nativealign.dev", "scope": "Cluster", "names": names, "versions": [version]},
    }
    assert plane.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)[0] in (201, 409)
    assert plane.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=30s").returncode == 0

    def theirs(scalars: list[str]) -> list[Any]:
        done = plane.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", given=_holding(scalars))
        return json.loads(done.stdout)["value"] if done.returncode == 0 else []

    accepted = [scalar for scalar in SCALARS.split() if _read([scalar])]
    refused = [scalar for scalar in SCALARS.split() if scalar not in accepted]
    ours, found = _read(accepted), theirs(accepted)
    assert [(type(value), value) for value in ours] == [(type(value), value) for value in found]
    assert [scalar for scalar in refused if theirs([scalar])] == []


def _holding(scalars: list[str]) -> str:
    return f"apiVersion: test.nativealign.dev/v1\nkind: Scalar\nmetadata: {{name: x}}\nvalue: [{', '.join(scalars)}]\n"


def _read(scalars: list[str]) -> list[Any]:
    """What the loader makes of them; empty if it refuses one."""
    try:
        return list(load_manifests(_holding(scalars), "x.yaml")[0].value["value"])
    except ManifestError:
        return []
