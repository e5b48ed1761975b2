"""The real Kubeflow Trainer (v2) on a control plane, as a peer to measure beside: CRDs, webhooks, and its controller as a process.

Trainer turns a TrainJob into a JobSet, and JobSet's controller (jobset_controller.py), which must run beside it, that into a Job.
What is installed comes from the module's manifests: its chart needs other charts, which the module does not carry.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from .build import CONTROLLERS, binary, module_folder
from .control_plane import ControlPlane
from .s3 import free_port
from .servers import Server, answers, running, wait_for
from .webhooks import apply_objects, make_certificates, objects_in, reached

Json = dict[str, Any]
API_VERSION = "trainer.kubeflow.org/v1alpha1"
SERVICE = "kubeflow-trainer-controller-manager.kubeflow-system.svc"
RUNTIME = "one-pod"
RUNTIMES = f"/apis/{API_VERSION}/clustertrainingruntimes"


@contextmanager
def trainer_controller(plane: ControlPlane, folder: Path, qps: int) -> Iterator[Server]:
    """CRDs, webhooks, controller, and a runtime of one pod; `qps` limits its requests to the apiserver, in bursts too."""
    certificates = folder / "k8s-webhook-server" / "serving-certs"  # below TMPDIR; no flag tells another place
    certificates.mkdir(parents=True)
    authority = make_certificates(certificates, SERVICE)
    manifests = module_folder(CONTROLLERS, "github.com/kubeflow/trainer/v2") / "manifests" / "base"
    apply_objects(plane, _kustomized(plane, manifests / "crds"))
    plane.wait_for_crds()
    webhook, health = free_port(), free_port()
    config = folder / "configuration.json"
    config.write_text(json.dumps(_configuration(manifests, webhook, health, qps)))
    environment = {**os.environ, "TMPDIR": str(folder), "KUBECONFIG": str(plane.kubeconfig)}
    command = [binary("trainer"), f"--config={config}", "--zap-devel=false"]
    with running(Server("trainer", command, folder, environment)) as server:
        wait_for(lambda: answers(f"http://127.0.0.1:{health}/readyz"), "Trainer", server.log)
        apply_objects(plane, [reached(one, webhook, authority) for one in _kustomized(plane, manifests / "webhook")])
        # it is ready before the webhooks have their paths
        for path, manifest in (RUNTIMES, _runtime()), (f"{train_jobs('default')}?dryRun=All", train_job("probe")):
            wait_for(partial(_created, plane, path, manifest), "Trainer's webhooks", server.log)
        yield server


def train_jobs(namespace: str) -> str:
    """Path of a namespace's TrainJobs."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/trainjobs"


def train_job(name: str) -> Json:
    """One pod."""
    spec = {"runtimeRef": {"name": RUNTIME}}
    return {"apiVersion": API_VERSION, "kind": "TrainJob", "metadata": {"name": name}, "spec": spec}


def _runtime() -> Json:
    """The template of its JobSets; its own runtimes differ from it in what they tell the frameworks that they are for."""
    pod = {"spec": {"restartPolicy": "Never", "containers": [{"name": "node", "image": "x"}]}}
    labels = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    job = {"name": "node", "template": {"metadata": {"labels": labels}, "spec": {"template": pod}}}
    spec = {"mlPolicy": {"numNodes": 1}, "template": {"spec": {"replicatedJobs": [job]}}}
    return {"apiVersion": API_VERSION, "kind": "ClusterTrainingRuntime", "metadata": {"name": RUNTIME}, "spec": spec}


def _created(plane: ControlPlane, path: str, manifest: Json) -> bool:
    return plane.request("POST", path, manifest)[0] == HTTPStatus.CREATED


def _kustomized(plane: ControlPlane, folder: Path) -> list[Json]:
    done = plane.kubectl("kustomize", str(folder))
    assert done.returncode == 0, done.stderr
    return objects_in(done.stdout)


def _configuration(manifests: Path, webhook: int, health: int, qps: int) -> Json:
    """Its own manifests', but for what supposes a pod, and the limit."""
    (own,) = objects_in((manifests / "manager" / "controller_manager_config.yaml").read_text())
    return own | {
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": webhook},
        "leaderElection": {"leaderElect": False},
        "certManagement": {"enable": False},
        "clientConnection": {"qps": qps, "burst": qps},
    }
