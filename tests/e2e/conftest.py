"""One real cluster with the chart installed as docs/install.md says, for all tests that need a kubelet."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chart.helm import CHART, helm
from tests.cluster.node import Cluster, one_node_cluster
from tests.e2e.people import RELEASE, RESTRICTED, SYSTEM, Person, Team, make_team


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with one_node_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="session")
def admin(node: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Person:
    return Person(node.plane.kubeconfig, tmp_path_factory.mktemp("admin"))


@pytest.fixture(scope="session")
def keys() -> dict[str, str]:
    """The development store's credentials."""
    return {"AWS_ACCESS_KEY_ID": secrets.token_hex(8), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}


@pytest.fixture(scope="session")
def values(node: Cluster) -> dict[str, object]:
    images = {}
    for name in ("operator", "workloads"):
        repository, digest = node.image(name)
        images[name] = {"repository": repository, "digest": digest}
    server, digest = node.image("versitygw")
    return {
        "image": images,
        "devStore": {"enabled": True, "image": f"{server}@{digest}", "existingSecret": "s3"},
        "store": {"existingSecret": "s3"},
        "operator": {"progressSeconds": 5},
    }


@pytest.fixture(scope="session")
def release(admin: Person, keys: dict[str, str], values: dict[str, object]) -> dict[str, object]:
    """Installed by Helm 3 under the restricted Pod Security Standard, and ready; its values."""
    admin.kubectl("create", "namespace", SYSTEM)
    admin.kubectl("label", "namespace", SYSTEM, RESTRICTED)
    admin.make_secret(SYSTEM, keys)
    install(admin, "helm", values)
    return values


def install(admin: Person, tool: str, values: dict[str, object]) -> None:
    arguments = ("upgrade", "--install", RELEASE, str(CHART), "--namespace", SYSTEM, "--wait", "--timeout", "100s")
    done = helm(tool, *arguments, "--kubeconfig", str(admin.kubeconfig), folder=admin.home, given=values)
    assert done.returncode == 0, done.stderr + admin.told(SYSTEM)


@pytest.fixture
def team(admin: Person, keys: dict[str, str], release: dict[str, object], tmp_path: Path) -> Team:
    """A namespace under the restricted Pod Security Standard, with one person who may edit there and no more."""
    return make_team(admin, keys, tmp_path)
