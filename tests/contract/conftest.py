"""A real kube-apiserver with the generated CRDs, once for all contract tests."""

from collections.abc import Iterator

import pytest
from tests.cluster.control_plane import ControlPlane, cluster


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with cluster(tmp_path_factory.mktemp("plane")) as plane:
        plane.install_crds()
        yield plane


@pytest.fixture
def namespace(plane: ControlPlane) -> str:
    """A fresh namespace whose pods must meet the restricted Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-", "labels": labels}}
    status, found = plane.request("POST", "/api/v1/namespaces", body)
    assert status == 201, found
    return str(found["metadata"]["name"])
