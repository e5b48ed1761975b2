"""What the chart makes of its values, by Helm 3 and Helm 4."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.helm import (
    CHART,
    DEV_STORE,
    HELMS,
    MATRIX,
    ROOT,
    SCOPED,
    documents,
    helm,
    identity,
    objects,
    of_kind,
    operator_of,
    render,
)
from tests.cluster.build import KUBERNETES_VERSION

CLUSTER_KINDS = ("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")


@pytest.mark.parametrize("tool", HELMS)
@pytest.mark.parametrize("name", MATRIX)
def test_helm_lint_has_nothing_to_say(tool: str, name: str, tmp_path: Path) -> None:
    command = ["lint", "--strict", "--quiet", str(CHART), "--kube-version", KUBERNETES_VERSION]
    done = helm(tool, *command, folder=tmp_path, given=MATRIX[name])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", MATRIX)
def test_helm_3_and_helm_4_make_the_same_objects(name: str) -> None:
    three, four = ({identity(value): value for value in objects(MATRIX[name], tool=tool)} for tool in HELMS)
    assert three == four
    assert len(three) == len(objects(MATRIX[name]))


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    package = f'version = "{chart["version"]}"'
    assert package in (ROOT / "pyproject.toml").read_text()
    assert chart["appVersion"] == chart["version"]


# releases side by side


def test_a_namespaced_release_has_no_cluster_wide_object() -> None:
    for name in ("scoped", "monitored-scoped"):
        found = objects(MATRIX[name])
        assert not of_kind(found, *CLUSTER_KINDS)
        assert all(value["metadata"]["namespace"] in ("system", "team-a", "team-b") for value in found)


RELEASES: list[tuple[dict[str, Any], str, str]] = [
    ({"monitoring": MATRIX["monitored"]["monitoring"], "devStore": DEV_STORE}, "demo", "system"),
    # the same release name elsewhere, over the same namespaces
    (MATRIX["monitored-scoped"], "demo", "elsewhere"),
    (MATRIX["monitored-scoped"], "demo", "team-a"),
    # another name beside the first
    (MATRIX["monitored-scoped"], "other", "system"),
    ({"crds": {"enabled": False}}, "nativealign", "system"),
    # long names that differ at their ends only, and names that would meet if they were put together without care
    ({"crds": {"enabled": False}}, "a" * 52 + "b", "system"),
    ({"crds": {"enabled": False}}, "a" * 52 + "c", "system"),
    ({"crds": {"enabled": False}}, "a-b", "c"),
    ({"crds": {"enabled": False}}, "b", "c-a"),
    (SCOPED | {"networkPolicy": {"workloads": {"namespaces": ["team-a"]}}}, "a", "team-a-b"),
]


def test_no_two_releases_have_an_object_in_common() -> None:
    seen: dict[tuple[str, str, str, str], int] = {}
    for number, (values, release, namespace) in enumerate(RELEASES):
        for value in objects(values, release=release, namespace=namespace):
            assert seen.setdefault(identity(value), number) == number, identity(value)


def test_names_fit_their_limits() -> None:
    for value in objects({"devStore": DEV_STORE, "monitoring": MATRIX["monitored"]["monitoring"]}, release="r" * 53):
        limit = 63 if value["kind"] == "Service" else 253
        assert len(value["metadata"]["name"]) <= limit
        assert all(len(str(label)) <= 63 for label in value["metadata"].get("labels", {}).values())


# upgrades


@pytest.fixture
def next_chart(tmp_path: Path) -> Path:
    """The chart as its next version."""
    copy = tmp_path / "nativealign"
    copy.mkdir()
    for path in (item for item in CHART.rglob("*") if item.is_file()):
        target = copy / path.relative_to(CHART)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    described = (copy / "Chart.yaml").read_text()
    version = yaml.safe_load(described)["version"]
    (copy / "Chart.yaml").write_text(described.replace(version, "99.0.0"))
    return copy


def selectors(found: list[dict[str, Any]]) -> dict[tuple[str, str, str, str], Any]:
    """Selectors of all objects, and the pod labels that they must match."""
    chosen = {}
    for value in found:
        spec = value.get("spec", {})
        labels = spec.get("template", {}).get("metadata", {}).get("labels")
        chosen[identity(value)] = (spec.get("selector"), spec.get("podSelector"), labels)
    return chosen


def test_an_upgrade_changes_no_selector(next_chart: Path) -> None:
    values = {"devStore": DEV_STORE, "monitoring": MATRIX["monitored"]["monitoring"]}
    done = render(values, chart=next_chart)
    assert done.returncode == 0, done.stderr
    later = documents(done.stdout)
    assert selectors(later) == selectors(objects(values))
    assert operator_of(later)["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":99.0.0")


def test_selectors_choose_the_right_pods() -> None:
    found = objects({"devStore": DEV_STORE})
    pods = {value["metadata"]["name"]: value["spec"]["template"]["metadata"]["labels"] for value in of_kind(found, "Deployment")}
    pods |= {value["metadata"]["name"]: value["metadata"]["labels"] for value in of_kind(found, "Pod")}
    for value in of_kind(found, "Service", "PodDisruptionBudget", "NetworkPolicy"):
        selector = value["spec"].get("selector") or value["spec"]["podSelector"]
        wanted = selector.get("matchLabels", selector)
        assert [name for name, labels in pods.items() if wanted.items() <= labels.items()] == [value["metadata"]["name"]]


# generated files


def test_the_charts_crds_are_the_generated_ones_with_a_keep_policy() -> None:
    copies = {value["metadata"]["name"]: value for value in of_kind(objects({}), "CustomResourceDefinition")}
    originals = [value for path in sorted((ROOT / "crds").glob("*.yaml")) for value in documents(path.read_text())]
    assert len(originals) == len(copies) == 3
    for original in originals:
        copy = copies[original["metadata"]["name"]]
        assert copy["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert copy == original
