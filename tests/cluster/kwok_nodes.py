"""Nodes of kwok on a control plane: pods are scheduled by the real scheduler, and run, without a process, as kwok's stages say.

A pod runs as soon as it is bound, and goes as soon as it is deleted. It never ends by itself: kwok's stage that lets a Job's pod
succeed at once is left out. Pods that train run for hours, so of jobs that are created at once all run at once; and a pod that
ended would lack the termination message from which the operator reads results, which only the real commands write.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from .build import CONTROLLERS, binary, module_folder
from .control_plane import ControlPlane
from .s3 import free_port
from .servers import Server, answers, running, wait_for

NODES = 10
PODS = "127.201.0.0/16"
"""Addresses of pods are this machine's, so that whoever asks a pod asks nobody else."""
STAGES = ("node/fast/node-initialize", "pod/fast/pod-ready", "pod/fast/pod-delete")
MERGE = "application/merge-patch+json"


@contextmanager
def kwok_nodes(plane: ControlPlane, folder: Path) -> Iterator[Server]:
    """Ready nodes, and a scheduler that binds pods to them."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    stages = module_folder(CONTROLLERS, "sigs.k8s.io/kwok") / "kustomize" / "stage"
    flags = [
        f"--kubeconfig={plane.kubeconfig}",
        *(f"--config={stages / name}.yaml" for name in STAGES),
        "--manage-all-nodes=true",
        f"--cidr={PODS}",
        f"--server-address=127.0.0.1:{port}",
        "--v=WARN",  # else it tells of every pod
    ]
    with running(Server("kwok", [binary("kwok"), *flags], folder)) as kwok, running(_scheduler(plane, folder)):
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/healthz"), "kwok", kwok.log)
        for number in range(NODES):
            _create_node(plane, f"kwok-{number}")
        wait_for(lambda: _ready(plane) >= NODES, "kwok's nodes", kwok.log)
        yield kwok


def _scheduler(plane: ControlPlane, folder: Path) -> Server:
    """Limited as the controller manager of control_plane.py is."""
    flags = ["--leader-elect=false", "--secure-port=0", "--kube-api-qps=200", "--kube-api-burst=400"]
    return Server("kube-scheduler", [binary("kube-scheduler"), f"--kubeconfig={plane.kubeconfig}", *flags], folder)


def _create_node(plane: ControlPlane, name: str) -> None:
    code, answer = plane.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    assert code == HTTPStatus.CREATED, answer
    # the apiserver taints a new node as not ready; the controller that takes it back does not run on this control plane
    code, answer = plane.request("PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": None}}, form=MERGE)
    assert code == HTTPStatus.OK, answer


def _ready(plane: ControlPlane) -> int:
    """Number of nodes that kwok has made ready."""
    nodes = plane.request("GET", "/api/v1/nodes")[1]["items"]
    conditions = [condition for node in nodes for condition in node["status"].get("conditions", [])]
    return sum(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
