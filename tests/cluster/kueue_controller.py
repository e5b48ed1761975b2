"""The real Kueue on a test's control plane: the objects of its own chart, and its controller as a process on this machine.

CRDs, webhooks and configuration come out of Kueue's module in the version that kueue/go.mod pins. Only what ties them to pods is
changed: webhooks are reached by URL. Kueue keeps a certificate that it finds valid, so it is given one for 127.0.0.1.
"""

import base64
import json
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .build import KUBERNETES_VERSION, KUEUE, binary, module_folder
from .control_plane import ControlPlane
from .s3 import free_port
from .servers import Server, answers, running, wait_for

Json = dict[str, Any]
NAMESPACE = "kueue-system"
SERVICE = f"kueue-webhook-service.{NAMESPACE}.svc"
WEBHOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")


@dataclass(frozen=True)
class Kueue:
    """Kueue as it is installed on a control plane."""

    plane: ControlPlane
    folder: Path
    port: int
    """Of its webhooks."""
    configuration: Json
    """As its chart has it, on ports of this machine."""

    _process: ExitStack = field(default_factory=ExitStack)

    def start(self, **changes: Any) -> None:
        """The controller, anew if it runs, until its webhooks answer; with fields of its Configuration changed."""
        self.stop()
        health = free_port()
        configuration = self.configuration | {"health": {"healthProbeBindAddress": f"127.0.0.1:{health}"}} | changes
        file = self.folder / "configuration.json"
        file.write_text(json.dumps(configuration))
        flags = [f"--config={file}", f"--kubeconfig={self.plane.kubeconfig}", "--zap-log-level=2"]
        server = self._process.enter_context(running(Server("kueue", [binary("kueue"), *flags], self.folder)))
        wait_for(lambda: answers(f"http://127.0.0.1:{health}/readyz"), "Kueue", server.log)

    def stop(self) -> None:
        self._process.close()


def install(plane: ControlPlane, folder: Path) -> Kueue:
    """CRDs and webhooks; from then on Jobs can be created only while the controller runs."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    objects = _chart_objects()
    _make_certificates(folder)
    authority = base64.b64encode((folder / "ca.crt").read_bytes()).decode()
    crds = [_reached(one, port, authority) for one in objects if one["kind"] == "CustomResourceDefinition"]
    webhooks = [_reached(one, port, authority) for one in objects if one["kind"] in WEBHOOKS]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    _apply(plane, [namespace, _secret(folder), *crds])
    established = plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    assert established.returncode == 0, established.stderr
    _apply(plane, webhooks)
    (config,) = [one for one in objects if one["kind"] == "ConfigMap"]
    chart = yaml.safe_load(config["data"]["controller_manager_config.yaml"])
    return Kueue(plane, folder, port, chart | _on_this_machine(folder, port))


def _chart_objects() -> list[Json]:
    chart = module_folder(KUEUE, "sigs.k8s.io/kueue") / "charts" / "kueue"
    command = [binary("helm"), "template", "kueue", chart, "--namespace", NAMESPACE, "--kube-version", KUBERNETES_VERSION]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [one for one in yaml.load_all(done.stdout, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if one]


def _on_this_machine(folder: Path, port: int) -> Json:
    """The parts of the Configuration that suppose a pod. The visibility server would need an aggregated API."""
    return {
        "namespace": NAMESPACE,
        "leaderElection": {"leaderElect": False},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(folder)},
        "integrations": {"frameworks": ["batch/job"]},
        "featureGates": {"VisibilityOnDemand": False},
    }


def _reached(value: Any, port: int, authority: str) -> Any:
    """With every `clientConfig` turned from a Service to a URL of this machine."""
    if isinstance(value, list):
        return [_reached(item, port, authority) for item in value]
    if not isinstance(value, dict):
        return value
    if "service" in value.get("clientConfig", {}):
        url = f"https://127.0.0.1:{port}{value['clientConfig']['service']['path']}"
        return {**value, "clientConfig": {"url": url, "caBundle": authority}}
    return {name: _reached(item, port, authority) for name, item in value.items()}


def _make_certificates(folder: Path) -> None:
    """An authority and a server's certificate, with the names that Kueue looks for, and the address that the apiserver calls."""
    signed = "req -x509 -nodes -days 400"
    commands = (
        "genrsa -traditional -out ca.key 2048",  # Kueue reads no other form
        f"{signed} -key ca.key -out ca.crt -subj /CN=kueue-ca -addext subjectAltName=DNS:kueue-ca",
        f"{signed} -newkey rsa:2048 -keyout tls.key -out tls.crt -CA ca.crt -CAkey ca.key -subj /CN={SERVICE} "
        f"-addext subjectAltName=DNS:{SERVICE},IP:127.0.0.1",
    )
    for command in commands:
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


def _secret(folder: Path) -> Json:
    """Where Kueue expects what it would make itself."""
    data = {name: base64.b64encode((folder / name).read_bytes()).decode() for name in ("ca.crt", "ca.key", "tls.crt", "tls.key")}
    metadata = {"name": "kueue-webhook-server-cert", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def _apply(plane: ControlPlane, objects: list[Json]) -> None:
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    applied = plane.kubectl("apply", "--server-side", "-f", "-", given=given)
    assert applied.returncode == 0, applied.stderr
