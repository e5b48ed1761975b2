"""The chart through Helm: rendered objects, and the values that the tests render it with."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.build import KUBERNETES_VERSION, binary

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "nativealign"
HELMS = ("helm", "helm4")
SCOPED: Json = {"scope": {"namespaces": ["team-a", "team-b"]}, "crds": {"enabled": False}}
DIGEST = "sha256:" + "0123456789abcdef" * 4
MONITORED: Json = {name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "prometheusRule", "dashboard")}
STORE: Json = {
    "bucket": "aligned",
    "prefix": "team/one",
    "endpoint": "https://minio.storage:9000",
    "existingSecret": "s3",
    "caBundle": {"name": "kube-root-ca.crt"},
}
DEV_STORE: Json = {"enabled": True, "image": "registry.example/versitygw:v1.8.0", "existingSecret": "s3"}

MATRIX: dict[str, Json] = {
    "defaults": {},
    "scoped": SCOPED,
    "scoped-with-crds": {"scope": {"namespaces": ["team-a"]}},
    "store": {"store": STORE},
    "digests": {
        "image": {"operator": {"digest": DIGEST}, "workloads": {"tag": "gpu"}, "pullSecrets": [{"name": "registry.example"}]}
    },
    "monitored": {"monitoring": MONITORED},
    "monitored-scoped": {"monitoring": MONITORED, **SCOPED},
    "dev-store": {"devStore": DEV_STORE, "store": {"existingSecret": "s3"}},
    "dev-store-kept": {"devStore": DEV_STORE | {"persistence": {"enabled": True, "storageClassName": "fast"}}},
    "gc": {"store": STORE, "gc": {"enabled": True, "delete": True}},
    "gc-scoped": {"devStore": DEV_STORE, "store": {"existingSecret": "s3"}, "gc": {"enabled": True}, **SCOPED},
    "bare": {
        "crds": {"enabled": False},
        "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": "given"},
        "userRoles": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "kueue": {"enabled": False},
        "operator": {"topologySpreadConstraints": [], "replicas": 1},
    },
    "placed": {
        "fullnameOverride": "aligner",
        "kueue": {"shortQueue": "short"},
        "serviceAccount": {"annotations": {"example.org/role": "aligner"}},
        "podDisruptionBudget": {"maxUnavailable": "50%"},
        "operator": {
            "priorityClassName": "system-cluster-critical",
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "control", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "podLabels": {"team": "platform"},
            "podAnnotations": {"example.org/note": "yes"},
        },
    },
    "closed": {
        "networkPolicy": {
            "scrapers": [],
            "apiServer": {"cidrs": ["10.0.0.10/32"], "ports": [6443]},
            "workloads": {"namespaces": ["team-a"], "egress": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}]},
        }
    },
}


def helm(tool: str, *arguments: str, folder: Path, given: Json | None = None) -> subprocess.CompletedProcess[str]:
    """Run Helm without any settings of the user's, with `given` as values. The caller looks at the return code."""
    env = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    values = ["--values", "-"] if given is not None else []
    command = [str(binary(tool)), *arguments, *values]
    text = None if given is None else json.dumps(given)
    return subprocess.run(command, input=text, env=env, capture_output=True, text=True, timeout=300)


def render(
    values: Json, *, tool: str = "helm", release: str = "demo", namespace: str = "system", chart: Path = CHART
) -> subprocess.CompletedProcess[str]:
    """`helm template`."""
    arguments = ["template", release, str(chart), "--namespace", namespace, "--kube-version", KUBERNETES_VERSION]
    return helm(tool, *arguments, folder=Path("/nonexistent"), given=values)


@cache
def _objects(values: str, tool: str, release: str, namespace: str) -> str:
    done = render(json.loads(values), tool=tool, release=release, namespace=namespace)
    assert done.returncode == 0, done.stderr
    return json.dumps(documents(done.stdout))


def objects(values: Json, *, tool: str = "helm", release: str = "demo", namespace: str = "system") -> list[Json]:
    """What the chart makes of values, the pod of `helm test` included."""
    found: list[Json] = json.loads(_objects(json.dumps(values), tool, release, namespace))
    return found


def documents(text: str) -> list[Json]:
    """The objects of a manifest; by libyaml, which reads a CRD ten times as fast."""
    return [value for value in yaml.load_all(text, Loader=yaml.CSafeLoader) if value]


def manifest(found: list[Json]) -> str:
    """Objects as a manifest; JSON is YAML, too."""
    return "\n---\n".join(map(json.dumps, found))


def identity(value: Json) -> tuple[str, str, str, str]:
    """What makes an object one in a cluster: group, kind, namespace, name."""
    metadata = value["metadata"]
    group = value["apiVersion"].rpartition("/")[0]
    return group, value["kind"], metadata.get("namespace", ""), metadata["name"]


def of_kind(found: list[Json], *kinds: str) -> list[Json]:
    return [value for value in found if value["kind"] in kinds]


def operator_of(found: list[Json]) -> Json:
    """The operator's Deployment."""
    deployments = of_kind(found, "Deployment")
    return next(value for value in deployments if value["metadata"]["labels"]["app.kubernetes.io/component"] == "operator")


def environment(found: list[Json]) -> dict[str, str]:
    """The operator's environment; what comes from a field of the pod as that field's path."""
    entries = operator_of(found)["spec"]["template"]["spec"]["containers"][0]["env"]
    return {entry["name"]: entry["value"] if "value" in entry else entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in entries}
