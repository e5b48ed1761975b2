"""The real JobSet on a control plane, as a peer to measure beside: its chart's CRD and webhooks, its controller as a process."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from .build import CONTROLLERS, binary
from .control_plane import ControlPlane
from .s3 import free_port
from .servers import Server, answers, running, wait_for
from .webhooks import apply_objects, chart_objects, make_certificates, reached, with_webhooks

NAMESPACE = "jobset-system"
FLAGS = ("--leader-elect=false", "--metrics-bind-address=0", "--zap-devel=false")


@contextmanager
def jobset_controller(plane: ControlPlane, folder: Path, qps: int) -> Iterator[Server]:
    """CRD, webhooks and controller; `qps` limits its requests to the apiserver, in bursts too."""
    folder.mkdir(parents=True, exist_ok=True)
    webhook, health = free_port(), free_port()
    objects = chart_objects(CONTROLLERS, "sigs.k8s.io/jobset", "charts/jobset", NAMESPACE)
    authority = make_certificates(folder, f"jobset-webhook-service.{NAMESPACE}.svc")
    apply_objects(plane, [one for one in objects if one["kind"] == "CustomResourceDefinition"])
    plane.wait_for_crds()
    config = folder / "configuration.json"
    config.write_text(json.dumps(_configuration(folder, webhook)))
    flags = [
        f"--config={config}",
        f"--kubeconfig={plane.kubeconfig}",
        f"--health-probe-bind-address=127.0.0.1:{health}",
        f"--kube-api-qps={qps}",
        f"--kube-api-burst={qps}",
        *FLAGS,
    ]
    with running(Server("jobset", [binary("jobset"), *flags], folder)) as server:
        wait_for(lambda: answers(f"http://127.0.0.1:{health}/readyz"), "JobSet", server.log)
        apply_objects(plane, [reached(one, webhook, authority) for one in with_webhooks(objects)])
        # it is ready before the webhooks have their paths
        probe = f"{jobsets('default')}?dryRun=All", job_set("probe")
        wait_for(lambda: plane.request("POST", *probe)[0] == HTTPStatus.CREATED, "JobSet's webhooks", server.log)
        yield server


def jobsets(namespace: str) -> str:
    """Path of a namespace's JobSets."""
    return f"/apis/jobset.x-k8s.io/v1alpha2/namespaces/{namespace}/jobsets"


def job_set(name: str) -> dict[str, Any]:
    """One replicated Job of one pod."""
    pod = {"spec": {"restartPolicy": "Never", "containers": [{"name": "workload", "image": "x"}]}}
    job = {"name": "main", "replicas": 1, "template": {"spec": {"parallelism": 1, "completions": 1, "template": pod}}}
    spec = {"replicatedJobs": [job]}
    return {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": {"name": name}, "spec": spec}


def _configuration(folder: Path, port: int) -> dict[str, object]:
    return {
        "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(folder)},
        "internalCertManagement": {"enable": False},
    }
