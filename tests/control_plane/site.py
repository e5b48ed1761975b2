"""What the tests of the operator share: a namespace with a store, the operator as a process, and ways to look and wait."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from minio import Minio
from tests.cluster.control_plane import ControlPlane
from tests.cluster.s3 import S3Server, free_port
from tests.control_plane.kubelet import TestKubelet
from tests.forks import fork, preload

from nativealign_api.kinds import KINDS
from nativealign_api.vocabulary import API_VERSION
from nativealign_operator.conditions import ENDED
from nativealign_operator.main import main
from nativealign_operator.paths import path_of

if TYPE_CHECKING:
    from tests.control_plane.campaign import PlayedPods

Json = dict[str, Any]
T = TypeVar("T")
WAIT_SECONDS = 1500.0
LOOK_SECONDS = 0.2
SECRET = "s3"
KILLED, HANDED_OVER = "killed", "handed-over"
"""Namespaces of tests that start operators of their own."""
IMAGE = "registry.example/workloads:test"
preload([main.__module__])


@dataclass(frozen=True)
class Site:
    """One namespace."""

    plane: ControlPlane
    kubelet: "TestKubelet | PlayedPods"
    s3: S3Server
    namespace: str

    def manifest(self, kind: str, name: str, spec: Json) -> Json:
        return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": self.namespace}, "spec": spec}

    def apply(self, kind: str, name: str, spec: Json, manager: str = "user") -> Json:
        """As by `kubectl apply --server-side`."""
        query = f"?fieldManager={manager}&force=true&fieldValidation=Strict"
        manifest = self.manifest(kind, name, spec)
        path = path_of(kind, self.namespace, name) + query
        status, found = self.plane.request("PATCH", path, manifest, form="application/apply-patch+yaml")
        assert status in (200, 201), found
        return dict(found)

    def get(self, kind: str, name: str) -> Json | None:
        status, found = self.plane.request("GET", path_of(kind, self.namespace, name))
        return dict(found) if status == 200 else None

    def status(self, kind: str, name: str) -> Json:
        return dict((self.get(kind, name) or {}).get("status") or {})

    def every(self, kind: str) -> list[Json]:
        return list(self.plane.request("GET", path_of(kind, self.namespace))[1]["items"])

    def delete(self, kind: str, name: str) -> None:
        options = {"propagationPolicy": "Background"}
        self.plane.request("DELETE", path_of(kind, self.namespace, name), options)

    def merge(self, kind: str, name: str, change: Json) -> tuple[int, Json]:
        path = path_of(kind, self.namespace, name)
        return self.plane.request("PATCH", path, change, form="application/merge-patch+json")

    def wait(self, look: Callable[[], T | None], what: str, seconds: float = WAIT_SECONDS) -> T:
        """Looks until there is something."""
        return poll(look, what, seconds, self.told)

    def finished(self, kind: str, name: str) -> Json:
        """The status of a job that has ended."""

        def look() -> Json | None:
            status = self.status(kind, name)
            return status if status.get("state") in ENDED else None

        return self.wait(look, f"end of {kind}/{name}")

    def reaches(self, kind: str, name: str, state: str, reason: str = "") -> Json:
        def look() -> Json | None:
            status = self.status(kind, name)
            told = next((c["reason"] for c in status.get("conditions", []) if c["type"] == "Ready"), "")
            return status if status.get("state") == state and reason in ("", told) else None

        return self.wait(look, f"{kind}/{name} {state} {reason}")

    def jobs(self) -> list[str]:
        return sorted(job["metadata"]["name"] for job in self.every("Job"))

    def told(self) -> str:
        """Everything that helps to see what went wrong."""
        kinds = [self.every(kind) for kind in KINDS]
        states = [
            f"{item['kind']}/{item['metadata']['name']}: {json.dumps(item.get('status'))}" for found in kinds for item in found
        ]
        events = [f"{event['reason']}: {event['message']}" for event in self.every("Event")]
        return "\n".join([*states, *events[-20:], *self.jobs()])

    def put(self, key: str, content: bytes) -> None:
        """An object in the bucket, for input."""
        import io

        self.minio().put_object(self.s3.bucket, key, io.BytesIO(content), len(content))

    def minio(self) -> Minio:
        address = self.s3.endpoint.removeprefix("http://")
        return Minio(address, self.s3.access_key, self.s3.secret_key, secure=False, region=self.s3.region)

    def objects(self, prefix: str) -> list[str]:
        return sorted(str(item.object_name) for item in self.minio().list_objects(self.s3.bucket, prefix, recursive=True))


def poll(look: Callable[[], T | None], what: str, seconds: float, told: Callable[[], str], pause: float = LOOK_SECONDS) -> T:
    """Looks until there is something; `told` says what there was instead."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(pause)
    raise AssertionError(f"no {what} after {seconds:.0f} s:\n{told()}")


def make_namespace(plane: ControlPlane, s3: S3Server, name: str = "") -> str:
    """A namespace under the restricted Pod Security Standard, with the store's keys in a Secret."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": name} if name else {"generateName": "team-"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {**metadata, "labels": labels}}
    status, found = plane.request("POST", "/api/v1/namespaces", body)
    assert status == 201, found
    name = str(found["metadata"]["name"])
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": keys}
    status, found = plane.request("POST", f"/api/v1/namespaces/{name}/secrets", secret)
    assert status == 201, found
    return name


@dataclass
class Operator:
    """The operator as a process."""

    process: BaseProcess
    log: Path
    port: int

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def stop(self) -> int | None:
        """SIGTERM, as the kubelet does; the exit code, or None if it does not end."""
        self.process.terminate()
        self.process.join(30)
        return self.process.exitcode

    def lines(self) -> list[Json]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def errors(self) -> list[Json]:
        """What it told as an error, without requests that kopf tries again: an apiserver closes idle connections when it likes."""
        told = [line for line in self.lines() if line["level"] in ("error", "critical")]
        return [line for line in told if not re.match(r"Request attempt #\d+/\d+ failed; (?!escalating)", line["message"])]


def operator_environment(plane: ControlPlane, s3: S3Server, folder: Path, **settings: str) -> dict[str, str]:
    """With a kubeconfig, and a home of its own."""
    store = {"bucket": s3.bucket, "endpoint": s3.endpoint, "region": s3.region, "credentialsSecret": {"name": SECRET}}
    given = {
        "image": IMAGE,
        "store": json.dumps(store),
        "namespace": "default",
        "identity": "operator-0",
        "lease_seconds": "15",
        **settings,
    }
    environment = {f"NATIVEALIGN_OPERATOR_{name.upper()}": value for name, value in given.items()}
    return environment | {"KUBECONFIG": str(plane.kubeconfig), "PATH": os.environ["PATH"], "HOME": str(folder)}


def start_operator(plane: ControlPlane, s3: S3Server, folder: Path, program: Callable[[], int] = main, **settings: str) -> Operator:
    """The operator, or another program in its place."""
    folder.mkdir(parents=True, exist_ok=True)
    log, port = folder / "operator.log", free_port()
    environment = operator_environment(plane, s3, folder, port=str(port), **settings)
    return Operator(fork(program, (), environment, log), log, port)


@contextmanager
def running_operator(plane: ControlPlane, s3: S3Server, folder: Path, **settings: str) -> Iterator[Operator]:
    operator = start_operator(plane, s3, folder, **settings)
    try:
        yield operator
    finally:
        operator.kill()
