"""`make bench-operator`, second part: ten thousand jobs of which 5 % change in a minute: the operator's delay and its memory.

Four of five EvalJobs are finished, with the status of one that went through all its steps; the others wait for a PretrainJob that
does not exist. The operator starts over all of them. A change sets or takes back `spec.suspend` of a waiting job; its status
has followed when a write of it tells the changed generation (`status.observedGeneration`), as a watch sees it. Prints JSON: the
seconds from the start until every job has its status; the number of changes, and of those that no status followed; the delays in
seconds, from the apiserver's answer to the change; the operator's resident set in MiB: the largest, and that of every minute.
"""

import argparse
import contextlib
import json
import math
import random
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.load import Json, anew, operator_of_image, resident, until, with_connections
from tests.bench.many_jobs import eval_job
from tests.cluster.control_plane import ControlPlane, control_plane
from tests.control_plane.campaign import NOWHERE, PlayedPods, run_once
from tests.control_plane.kubelet import NODE

from nativealign_api.vocabulary import API_VERSION
from nativealign_operator.paths import path_of

NAMESPACE = "default"
JOBS = path_of("EvalJob", NAMESPACE)
MERGE = "application/merge-patch+json"
CHANGING = 0.05
"""Part of all jobs that changes in a minute."""
FINISHED_OF = 5
"""One of so many waits; the others are finished."""
LAST_SECONDS = 60.0
"""For the statuses of the last changes."""


@dataclass
class Delays:
    """Changes that wait for their status, and how late the others' came. Filled by two threads."""

    seconds: list[float] = field(default_factory=list)
    _asked: dict[tuple[str, int], float] = field(default_factory=dict)
    """When the apiserver had answered, by name and generation."""
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    """The newest observed generation, and when it came: it may be here before the answer to the change is."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self, name: str, generation: int, at: float) -> None:
        with self._lock:
            observed, came = self._seen.get(name, (0, 0.0))
            if observed >= generation:
                self.seconds.append(max(0.0, came - at))
            else:
                self._asked[name, generation] = at

    def observed(self, name: str, generation: int, at: float) -> None:
        with self._lock:
            if self._seen.get(name, (0, 0.0))[0] >= generation:
                return
            self._seen[name] = (generation, at)
            for key in [key for key in self._asked if key[0] == name and key[1] <= generation]:
                self.seconds.append(at - self._asked.pop(key))

    @property
    def open(self) -> int:
        return len(self._asked)

    def at(self, part: float) -> float:
        """The delay that this part of all does not exceed."""
        return round(sorted(self.seconds)[max(0, math.ceil(part * len(self.seconds)) - 1)], 3)


def finished_status(plane: ControlPlane, folder: Path) -> Json:
    """Of a job that went through all its steps, with played pods."""
    plane.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    pods = PlayedPods(plane)
    pods.start()
    run_once(plane, NOWHERE, pods, folder, "EvalJob", None)
    pods.stop()
    (job,) = plane.request("GET", f"/apis/{API_VERSION}/evaljobs")[1]["items"]
    plane.request("DELETE", f"/api/v1/namespaces/{job['metadata']['namespace']}")
    return dict(job["status"])


def waiting_job(number: int) -> Json:
    job = eval_job(number)
    return job | {"spec": job["spec"] | {"model": {"pretrainJob": "none"}}}


def create_jobs(plane: ControlPlane, status: Json, count: int) -> list[str]:
    """Returns the names of those that wait."""

    def create(api: ControlPlane, number: int) -> None:
        waits = number % FINISHED_OF == 0
        code, answer = api.request("POST", JOBS, waiting_job(number) if waits else eval_job(number))
        assert code == 201, answer
        if not waits:
            path = path_of("EvalJob", NAMESPACE, answer["metadata"]["name"])
            code, answer = api.request("PATCH", f"{path}/status", {"status": status}, form=MERGE)
            assert code == 200, answer

    with_connections(plane, range(count), create)
    return [waiting_job(number)["metadata"]["name"] for number in range(0, count, FINISHED_OF)]


def watch(plane: ControlPlane, delays: Delays, stop: threading.Event) -> None:
    """Notes the generation that each job's status tells, until `stop`."""
    version = plane.request("GET", f"{JOBS}?limit=1")[1]["metadata"]["resourceVersion"]
    while not stop.is_set():
        connection = plane.connect()
        query = f"?watch=1&timeoutSeconds=20&allowWatchBookmarks=1&resourceVersion={version}"
        with contextlib.closing(connection):
            connection.request("GET", JOBS + query, headers={"Authorization": f"Bearer {plane.token}"})
            for line in connection.getresponse():
                event = json.loads(line)
                assert event["type"] != "ERROR", event
                at, metadata = time.monotonic(), event["object"]["metadata"]
                version = metadata["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    delays.observed(metadata["name"], event["object"].get("status", {}).get("observedGeneration", 0), at)


def change(plane: ControlPlane, names: list[str], per_second: float, seconds: float, delays: Delays) -> None:
    """Sets or takes back `spec.suspend` of jobs that a seed draws, evenly over the time."""
    draw, suspended = random.Random(0), set[str]()
    began = time.monotonic()
    for number in range(round(per_second * seconds)):
        time.sleep(max(0.0, began + number / per_second - time.monotonic()))
        name = draw.choice(names)
        suspended ^= {name}
        path = path_of("EvalJob", NAMESPACE, name)
        code, answer = plane.request("PATCH", path, {"spec": {"suspend": name in suspended}}, form=MERGE)
        assert code == 200, answer
        delays.asked(name, answer["metadata"]["generation"], time.monotonic())


def unseen(plane: ControlPlane) -> int:
    """Jobs whose status is not of their generation, by a complete list in pages."""
    found, query = 0, "?limit=500"
    while True:
        page = plane.request("GET", JOBS + query)[1]
        found += sum(job["status"].get("observedGeneration") != job["metadata"]["generation"] for job in page["items"])
        if not page["metadata"].get("continue"):
            return found
        query = f"?limit=500&continue={page['metadata']['continue']}"


def minutes(pid: int, stop: threading.Event, found: list[int]) -> None:
    """Notes the resident set every minute."""
    while not stop.is_set():
        found.append(round(resident(pid, "VmRSS")))
        stop.wait(60)


def churn(plane: ControlPlane, folder: Path, count: int, seconds: float) -> Json:
    names = create_jobs(plane, finished_status(plane, folder), count)
    delays, stop, sizes = Delays(), threading.Event(), list[int]()
    with operator_of_image(plane, folder / "operator") as operator:
        began = time.monotonic()
        api = anew(plane)
        until(lambda: unseen(api) == 0, "the status of each job")
        started = time.monotonic() - began
        threads = [
            threading.Thread(target=watch, args=(anew(plane), delays, stop)),
            threading.Thread(target=minutes, args=(operator.process.pid, stop, sizes)),
        ]
        for thread in threads:
            thread.start()
        per_second = count * CHANGING / 60
        change(api, names, per_second, seconds, delays)
        deadline = time.monotonic() + LAST_SECONDS
        while delays.open and time.monotonic() < deadline:
            time.sleep(0.1)
        stop.set()
        for thread in threads:
            thread.join()
        return {
            "jobs": count,
            "waiting": len(names),
            "secondsToStatusOfAll": round(started, 1),
            "changes": round(per_second * seconds),
            "neverFollowed": delays.open,
            "delay": {"p50": delays.at(0.5), "p99": delays.at(0.99), "max": delays.at(1.0)},
            "MiB": {"largest": round(resident(operator.process.pid)), "eachMinute": sizes},
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, control_plane(Path(name) / "plane", controllers=True) as plane:
        plane.install_crds()
        print(json.dumps(churn(plane, Path(name), given.jobs, given.minutes * 60)))


if __name__ == "__main__":
    main()
