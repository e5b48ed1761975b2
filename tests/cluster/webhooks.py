"""A controller of another project on a control plane without pods: its chart's objects, with webhooks reached by URL."""

import base64
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from .build import KUBERNETES_VERSION, binary, module_folder
from .control_plane import ControlPlane

Json = dict[str, Any]
WEBHOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")


def chart_objects(pinned: Path, module: str, chart: str, namespace: str) -> list[Json]:
    """Everything in the chart that lies in a module's folder, CRDs too, in the version that the go.mod in `pinned` names."""
    folder = module_folder(pinned, module) / chart
    flags = ["--include-crds", "--namespace", namespace, "--kube-version", KUBERNETES_VERSION]
    done = subprocess.run([binary("helm"), "template", folder.name, folder, *flags], check=True, capture_output=True, text=True)
    return objects_in(done.stdout)


def objects_in(text: str) -> list[Json]:
    """Objects of a YAML stream."""
    return [one for one in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if one]


def with_webhooks(objects: Iterable[Json]) -> list[Json]:
    return [one for one in objects if one["kind"] in WEBHOOKS]


def reached(value: Any, port: int, authority: str) -> Any:
    """With every `clientConfig` turned from a Service to a URL of this machine."""
    if isinstance(value, list):
        return [reached(item, port, authority) for item in value]
    if not isinstance(value, dict):
        return value
    if "service" in value.get("clientConfig", {}):
        url = f"https://127.0.0.1:{port}{value['clientConfig']['service']['path']}"
        return {**value, "clientConfig": {"url": url, "caBundle": authority}}
    return {name: reached(item, port, authority) for name, item in value.items()}


def make_certificates(folder: Path, service: str, authority: str = "ca") -> str:
    """An authority of that name and a server's certificate for the service's name and 127.0.0.1; the authority's, in base64."""
    signed = "req -x509 -nodes -days 400"
    commands = (
        "genrsa -traditional -out ca.key 2048",  # Kueue reads no other form
        f"{signed} -key ca.key -out ca.crt -subj /CN={authority} -addext subjectAltName=DNS:{authority}",
        f"{signed} -newkey rsa:2048 -keyout tls.key -out tls.crt -CA ca.crt -CAkey ca.key -subj /CN={service} "
        f"-addext subjectAltName=DNS:{service},IP:127.0.0.1",
    )
    for command in commands:
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return base64.b64encode((folder / "ca.crt").read_bytes()).decode()


def apply_objects(plane: ControlPlane, objects: list[Json]) -> None:
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    applied = plane.kubectl("apply", "--server-side", "-f", "-", given=given)
    assert applied.returncode == 0, applied.stderr
