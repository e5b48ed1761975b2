"""A real kube-apiserver with the CRDs of the Prometheus operator, for what only an apiserver can say of the chart."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chart.schemas import write_schemas
from tests.cluster import build
from tests.cluster.control_plane import ControlPlane, control_plane

MONITORING = "github.com/prometheus-operator/prometheus-operator"
CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("plane")) as plane:
        crds = monitoring_crds()
        names = [str(crds / f"monitoring.coreos.com_{name}.yaml") for name in ("podmonitors", "prometheusrules", "servicemonitors")]
        applied = plane.kubectl("apply", "--server-side", *(f"--filename={name}" for name in names))
        assert applied.returncode == 0, applied.stderr
        established = plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        assert established.returncode == 0, established.stderr
        for namespace in ("system", "team-a", "team-b"):
            assert plane.kubectl("create", "namespace", namespace).returncode == 0
        yield plane


@pytest.fixture(scope="session")
def schemas(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON schemas of all kinds that the apiserver knows, for kubeconform."""
    folder = tmp_path_factory.mktemp("schemas")
    _, openapi = plane.request("GET", "/openapi/v2")
    write_schemas(openapi, folder)
    return folder


def monitoring_crds() -> Path:
    """The Prometheus operator's own CRDs, from its pinned Go module."""
    return build.module_folder(build.HERE / "prometheus-operator", MONITORING) / "example" / "prometheus-operator-crd"
