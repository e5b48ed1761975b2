"""A real control plane with controllers, a real S3 server and a test kubelet, once for all tests of the operator."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.control_plane import ControlPlane, cluster
from tests.cluster.s3 import S3Server, s3_server
from tests.control_plane.kubelet import TestKubelet, kubelet
from tests.control_plane.site import HANDED_OVER, KILLED, Operator, Site, make_namespace, running_operator

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One of pytest-xdist's workers gets all tests with real pods, which so share a control plane; the others are dealt by file."""
    for item in items:
        if HERE in item.path.parents:
            needs_node = "node" in getattr(item, "fixturenames", ())
            item.add_marker(pytest.mark.xdist_group("node" if needs_node else item.path.stem))


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with cluster(tmp_path_factory.mktemp("plane"), controllers=True) as plane:
        plane.install_crds()
        yield plane


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def node(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestKubelet]:
    with kubelet(plane, tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest.fixture
def site(plane: ControlPlane, s3: S3Server, node: TestKubelet) -> Site:
    """A fresh namespace."""
    return Site(plane, node, s3, make_namespace(plane, s3))


@pytest.fixture(scope="session")
def operator(plane: ControlPlane, s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One operator for all tests that leave it alone."""
    folder = tmp_path_factory.mktemp("operator")
    with running_operator(plane, s3, folder, excluded_namespaces=f"{KILLED},{HANDED_OVER}") as running:
        yield running
