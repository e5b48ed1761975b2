"""A test kubelet: runs the real command of every pod as a process on this machine, and writes the pod's status as a kubelet does.

It stands for node, scheduler and container runtime; everything else of the control plane is real. Files of projected volumes are
written into a folder of the pod, and paths in its environment are turned to that folder. A pod has a loopback address of its own.
Its process is a fork, which spares it the imports.
"""

import base64
import contextlib
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from multiprocessing.process import BaseProcess
from pathlib import Path
from ssl import SSLError
from typing import Any

from tests.cluster.control_plane import ControlPlane
from tests.forks import fork, preload

from nativealign_operator.paths import path_of
from nativealign_workloads.__main__ import PHASES, main

Json = dict[str, Any]
NODE = "test-node"
LOOK_SECONDS = 0.2
AWAY = (ConnectionError, TimeoutError, SSLError, HTTPException, json.JSONDecodeError)
"""What a request raises while the apiserver is away; one that has just begun also answers in plain text."""
STRATEGIC = "application/strategic-merge-patch+json"
COMMAND = ["python", "-m", "nativealign_workloads"]
preload(f"nativealign_workloads.{target.partition(':')[0]}" for target in PHASES.values())
preload(["minio", "pyarrow.parquet", "rensa", "scipy.sparse.csgraph"])


def living(api: ControlPlane) -> list[Json] | None:
    """Pods that have not ended; None while the apiserver, which has just begun, does not answer with them."""
    status, listed = api.request("GET", "/api/v1/pods?fieldSelector=status.phase!%3DSucceeded,status.phase!%3DFailed")
    return list(listed["items"]) if status == 200 else None


def rest(began: float) -> None:
    """Until the next look, which lists every pod: where there are hundreds, looking all the time would fill a processor."""
    time.sleep(min(1.0, max(LOOK_SECONDS, 4 * (time.monotonic() - began))))


@dataclass
class Running:
    """A pod's process."""

    pod: Json
    process: BaseProcess
    message: Path
    log: Path
    address: str
    started: str
    stopped: float | None = None
    """When SIGTERM was sent."""

    @property
    def job(self) -> tuple[str, str]:
        """Namespace and name."""
        metadata = self.pod["metadata"]
        return metadata["namespace"], metadata["labels"]["batch.kubernetes.io/job-name"]


@dataclass
class TestKubelet:
    """Runs pods until it is stopped."""

    __test__ = False

    plane: ControlPlane
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    """Further variables for every pod."""
    held: set[str] = field(default_factory=set)
    """Steps whose pods are left pending."""
    stopped: set[str] = field(default_factory=set)
    """Jobs whose pods' processes are stopped as they start."""
    running: dict[str, Running] = field(default_factory=dict)
    """By uid of the pod."""
    started: list[str] = field(default_factory=list)
    """Names of all pods that ever ran, in order."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """In a thread of its own."""
        api = self.plane.anew()
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._look(api)
            except AWAY:
                api.connection.close()
            rest(began)
        for running in self.running.values():
            running.process.kill()
            running.process.join()

    def stop(self) -> None:
        self._stop.set()

    def _look(self, api: ControlPlane) -> None:
        found = living(api)
        if found is None:
            return
        pods = {pod["metadata"]["uid"]: pod for pod in found}
        for uid, pod in pods.items():
            if uid not in self.running and pod["status"]["phase"] == "Pending":
                self._start(api, pod)
        for uid, running in list(self.running.items()):
            self._attend(api, running, pods.get(uid))

    def _start(self, api: ControlPlane, pod: Json) -> None:
        metadata = pod["metadata"]
        if metadata["labels"].get("nativealign.dev/step") in self.held or pod["spec"].get("schedulingGates"):
            return
        if "deletionTimestamp" in metadata:
            remove(api, pod)
            return
        bind(api, pod)
        problem = self._mount(api, pod)
        if problem:
            waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": problem}}
            self._write(api, pod, {"phase": "Pending", "containerStatuses": [_container(pod, waiting)]})
            return
        number = next(self._numbers)
        running = self._spawn(pod, f"127.{1 + number // 60000}.{number // 250 % 240}.{1 + number % 250}")
        if running.job[1] in self.stopped:
            os.killpg(running.process.pid, signal.SIGSTOP)
        self.running[metadata["uid"]] = running
        self.started.append(metadata["name"])
        state = {"running": {"startedAt": running.started}}
        ready = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")]
        facts = {"phase": "Running", "podIP": running.address, "podIPs": [{"ip": running.address}], "startTime": running.started}
        self._write(api, pod, facts | {"conditions": ready, "containerStatuses": [_container(pod, state, ready=True)]})

    def _home(self, pod: Json) -> Path:
        return self.folder / pod["metadata"]["uid"]

    def _mount(self, api: ControlPlane, pod: Json) -> str | None:
        """Writes the files of all volumes; says what is missing."""
        for volume in pod["spec"].get("volumes", []):
            target = self._home(pod) / volume["name"]
            target.mkdir(parents=True, exist_ok=True)
            for source in volume.get("projected", {}).get("sources", []):
                problem = _project(api, pod["metadata"]["namespace"], source, target)
                if problem:
                    return problem
        return None

    def _spawn(self, pod: Json, address: str) -> Running:
        home, (container,) = self._home(pod), pod["spec"]["containers"]
        mounts = {mount["mountPath"]: str(home / mount["name"]) for mount in container["volumeMounts"]}
        given = {item["name"]: _value(pod, item, address) for item in container.get("env", [])}
        environment = {name: _turned(value, mounts) for name, value in given.items()}
        message, log = home / "message", home / "log"
        everywhere = {"PATH": os.environ["PATH"], "NATIVEALIGN_TERMINATION_LOG": str(message), "OMP_NUM_THREADS": "1"}
        command = container["command"]
        assert command[: len(COMMAND)] == COMMAND
        process = fork(main, (command[len(COMMAND) :],), everywhere | environment | self.environment, log)
        return Running(pod, process, message, log, address, _now())

    def _attend(self, api: ControlPlane, running: Running, pod: Json | None) -> None:
        wanted_gone = pod is None or "deletionTimestamp" in pod["metadata"]
        if running.process.exitcode is None:
            if wanted_gone:
                self._end(running, by_force=pod is None)
            return
        if pod is not None and pod["status"]["phase"] not in ("Succeeded", "Failed"):
            self._finish(api, running)
        if pod is not None and wanted_gone:
            remove(api, pod)
        if pod is None or wanted_gone:
            self.running.pop(running.pod["metadata"]["uid"], None)

    def _end(self, running: Running, by_force: bool) -> None:
        """SIGTERM, and SIGKILL when the pod's time is over."""
        now = time.monotonic()
        grace = running.pod["spec"]["terminationGracePeriodSeconds"]
        with contextlib.suppress(ProcessLookupError):
            if by_force or (running.stopped is not None and now - running.stopped > grace):
                os.killpg(running.process.pid, signal.SIGKILL)
            elif running.stopped is None:
                running.stopped = now
                os.killpg(running.process.pid, signal.SIGTERM)

    def process_of(self, job: str, namespace: str) -> Running | None:
        """A running pod of a Job."""
        return next(
            (found for found in list(self.running.values()) if found.job == (namespace, job) and found.process.exitcode is None),
            None,
        )

    def _finish(self, api: ControlPlane, running: Running) -> None:
        code = running.process.exitcode
        assert code is not None
        code = 128 - code if code < 0 else code
        message = running.message.read_text() if running.message.is_file() else running.log.read_text(errors="replace")[-2048:]
        ended = {"exitCode": code, "message": message, "startedAt": running.started, "finishedAt": _now()}
        state = {"terminated": ended | {"reason": "Completed" if code == 0 else "Error"}}
        conditions = [{"type": kind, "status": "False"} for kind in ("ContainersReady", "Ready")]
        facts = {"phase": "Failed" if code else "Succeeded", "conditions": conditions}
        self._write(api, running.pod, facts | {"containerStatuses": [_container(running.pod, state)]})

    def _write(self, api: ControlPlane, pod: Json, status: Json) -> None:
        body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        api.request("PATCH", f"{path_of_pod(pod)}/status", body, form=STRATEGIC)


@contextlib.contextmanager
def kubelet(plane: ControlPlane, folder: Path) -> Iterator[TestKubelet]:
    """A test kubelet for the time of a block."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    plane.request("POST", "/api/v1/nodes", node)
    found = TestKubelet(plane, folder)
    thread = threading.Thread(target=found.run, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.stop()
        thread.join(30)


def bind(api: ControlPlane, pod: Json) -> None:
    """Gives a pod its node, as a scheduler does."""
    if not pod["spec"].get("nodeName"):
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}, "target": target}
        api.request("POST", f"{path_of_pod(pod)}/binding", body)


def remove(api: ControlPlane, pod: Json) -> None:
    """As a kubelet does in the end: at once, and no other pod of the name."""
    api.request("DELETE", path_of_pod(pod), {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}})


def path_of_pod(pod: Json) -> str:
    return path_of("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])


def _project(api: ControlPlane, namespace: str, source: Json, target: Path) -> str | None:
    for kind, plural in (("configMap", "configmaps"), ("secret", "secrets")):
        if kind not in source:
            continue
        name = source[kind]["name"]
        status, found = api.request("GET", f"/api/v1/namespaces/{namespace}/{plural}/{name}")
        if status != 200:
            return f"{kind.lower()} {name!r} not found"
        for item in source[kind]["items"]:
            if item["key"] not in found.get("data", {}):
                return f"references non-existent {kind} key: {item['key']}"
            content = found["data"][item["key"]]
            path = target / item["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(content) if kind == "secret" else content.encode())
    return None


def _value(pod: Json, item: Json, address: str) -> str:
    source = item.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
    if source is None:
        return str(item.get("value", ""))
    if source == "status.podIP":
        return address
    name, _, key = source.removeprefix("metadata.").partition("[")
    value = pod["metadata"][name]
    return str(value[key.strip("']")] if key else value)


def _turned(value: str, mounts: dict[str, str]) -> str:
    for path, folder in mounts.items():
        if value == path or value.startswith(f"{path}/"):
            return folder + value[len(path) :]
    return value


def _container(pod: Json, state: Json, *, ready: bool = False) -> Json:
    (container,) = pod["spec"]["containers"]
    facts = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
    return facts | {"ready": ready, "started": ready, "state": json.loads(json.dumps(state))}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
