"""The real Kueue on a test's control plane: the objects of its own chart, and its controller as a process on this machine.

CRDs, webhooks and configuration come out of Kueue's module in the version that kueue/go.mod pins. Only what ties them to pods is
changed: webhooks are reached by URL. Kueue keeps a certificate that it finds valid, so it is given one for 127.0.0.1.
"""

import base64
import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .build import CONTROLLERS, binary
from .control_plane import ControlPlane
from .s3 import free_port
from .servers import Server, answers, running, wait_for
from .webhooks import apply_objects, chart_objects, make_certificates, reached, with_webhooks

Json = dict[str, Any]
NAMESPACE = "kueue-system"
SERVICE = f"kueue-webhook-service.{NAMESPACE}.svc"


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
    objects = chart_objects(CONTROLLERS, "sigs.k8s.io/kueue", "charts/kueue", NAMESPACE)
    authority = make_certificates(folder, SERVICE, "kueue-ca")
    crds = [reached(one, port, authority) for one in objects if one["kind"] == "CustomResourceDefinition"]
    webhooks = [reached(one, port, authority) for one in with_webhooks(objects)]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    apply_objects(plane, [namespace, _secret(folder), *crds])
    plane.wait_for_crds()
    apply_objects(plane, webhooks)
    (config,) = [one for one in objects if one["kind"] == "ConfigMap"]
    chart = yaml.safe_load(config["data"]["controller_manager_config.yaml"])
    return Kueue(plane, folder, port, chart | _on_this_machine(folder, port))


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


def _secret(folder: Path) -> Json:
    """Where Kueue expects what it would make itself."""
    data = {name: base64.b64encode((folder / name).read_bytes()).decode() for name in ("ca.crt", "ca.key", "tls.crt", "tls.key")}
    metadata = {"name": "kueue-webhook-server-cert", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
