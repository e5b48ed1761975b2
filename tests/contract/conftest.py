"""A real kube-apiserver with the generated CRDs, once for all contract tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.control_plane import ControlPlane, control_plane

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("plane")) as plane:
        applied = plane.kubectl("apply", "--server-side", "-f", str(CRDS))
        assert applied.returncode == 0, applied.stderr
        established = plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        assert established.returncode == 0, established.stderr
        yield plane


@pytest.fixture
def namespace(plane: ControlPlane) -> str:
    """A fresh namespace whose pods must meet the restricted Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-", "labels": labels}}
    status, found = plane.request("POST", "/api/v1/namespaces", body)
    assert status == 201, found
    return str(found["metadata"]["name"])
