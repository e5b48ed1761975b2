"""`make bench-operator`, second part: ten thousand jobs of which 5 % change in a minute: the operator's delay and its memory.

Of twenty EvalJobs one runs: its first child has a pod of kwok's (kwok_nodes.py), which is asked for its progress and answers with
news each time. Four wait for a PretrainJob that does not exist. The others are finished, with the status of one that went through
all its steps; their Jobs and pods are gone, as after their time to live. The operator starts over all of them; the changes begin
when it has looked at each.

A change sets or takes back `spec.suspend` of a waiting job; its status has followed when a write of it tells the changed generation
(`status.observedGeneration`), as a watch sees it. Prints JSON: the seconds from the start until every job has its status and every
first pod of a running job is seen to run; the number of changes, and of those that no status followed; the delays in seconds, from
the apiserver's answer to the change; what the same watch saw of running jobs, whose status nothing but progress changes: statuses
in all, most of one job, and how often the operator may ask in that time; and the operator's resident set in MiB: the largest, and
that of every minute.
"""

import argparse
import json
import math
import random
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from tests.bench.load import Json, operator_of_image, resident, until, with_connections
from tests.bench.many_jobs import NAMESPACE, eval_job
from tests.cluster.control_plane import ControlPlane, control_plane
from tests.cluster.kwok_nodes import MERGE, kwok_nodes
from tests.cluster.s3 import free_port
from tests.cluster.servers import answers, wait_for
from tests.control_plane.campaign import NOWHERE, PlayedPods, run_once
from tests.control_plane.kubelet import NODE

from nativealign_api.vocabulary import API_VERSION, PROGRESS_PORT
from nativealign_operator.paths import path_of
from nativealign_operator.settings import OperatorSettings
from nativealign_workloads.progress import Progress
from nativealign_workloads.progress.server import serve

JOBS = path_of("EvalJob", NAMESPACE)
CHANGING = 0.05
"""Part of all jobs that changes in a minute."""
PARTS = ["runs", *["waits"] * 4, *["is finished"] * 15]
"""What becomes of each twenty jobs."""
PROGRESS_SECONDS = OperatorSettings.model_fields["progress_seconds"].default
LAST_SECONDS = 60.0
"""For the statuses of the last changes."""


@dataclass
class Delays:
    """Changes that wait for their status, and how late the others' came. Filled by two threads."""

    seconds: list[float] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    """Of each job, by name."""
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
            self.versions[name] += 1
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
    run_once(plane, NOWHERE, pods, folder, "EvalJob")
    pods.stop()
    (job,) = plane.request("GET", f"/apis/{API_VERSION}/evaljobs")[1]["items"]
    plane.request("DELETE", f"/api/v1/namespaces/{job['metadata']['namespace']}")
    return dict(job["status"]) | {"observedGeneration": 1}  # the run's was suspended; the new jobs' specs do not change


@contextmanager
def answering_pods(folder: Path) -> Iterator[None]:
    """What a pod answers when it is asked how far it is: its own server, for all pods at once, and a number that grows."""
    progress, stop = Progress(folder / "progress.json"), threading.Event()

    def go_on() -> None:
        progress.begin(1_000_000, "files")
        while not stop.wait(1):
            progress.advance(100)

    serve(folder / "progress.json", "0.0.0.0")  # each pod has an address of its own
    wait_for(partial(answers, f"http://127.0.0.1:{PROGRESS_PORT}/progress"), f"what answers at port {PROGRESS_PORT}", seconds=5)
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def create_jobs(plane: ControlPlane, status: Json, count: int) -> dict[str, list[str]]:
    """Returns names by what becomes of the jobs."""
    names: dict[str, list[str]] = {part: [] for part in PARTS}

    def create(api: ControlPlane, number: int) -> None:
        part, job = PARTS[number % len(PARTS)], eval_job(f"job-{number}")
        if part == "waits":
            job["spec"]["model"] = {"pretrainJob": "none"}
        code, answer = api.request("POST", JOBS, job)
        assert code == 201, answer
        if part == "is finished":
            path = path_of("EvalJob", NAMESPACE, f"job-{number}")
            code, answer = api.request("PATCH", f"{path}/status", {"status": status}, form=MERGE)
            assert code == 200, answer
        names[part].append(f"job-{number}")

    with_connections(plane, range(count), create)
    return {part: sorted(found) for part, found in names.items()}


def watch(plane: ControlPlane, delays: Delays, stop: threading.Event) -> None:
    """Notes the generation that each job's status tells, until `stop`."""
    version = plane.request("GET", f"{JOBS}?limit=1")[1]["metadata"]["resourceVersion"]
    while not stop.is_set():
        connection = plane.connect()
        query = f"?watch=1&timeoutSeconds=20&allowWatchBookmarks=1&resourceVersion={version}"
        with closing(connection):
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


def jobs_looked_at(port: int) -> float:
    """What the operator's metrics say: a job counts once it has been reconciled."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return sum(sample.value for family in families if family.name == "nativealign_jobs" for sample in family.samples)


def unsettled(plane: ControlPlane, running: set[str]) -> int:
    """Jobs whose status is not of their generation, or that should run and do not yet, by a complete list in pages."""
    found, query = 0, "?limit=500"
    while True:
        page = plane.request("GET", JOBS + query)[1]
        found += sum(not _is_settled(job, running) for job in page["items"])
        if not page["metadata"].get("continue"):
            return found
        query = f"?limit=500&continue={page['metadata']['continue']}"


def _is_settled(job: Json, running: set[str]) -> bool:
    status, metadata = job["status"], job["metadata"]
    runs = any(condition["type"] == "Running" and condition["status"] == "True" for condition in status.get("conditions", []))
    return status.get("observedGeneration") == metadata["generation"] and runs is (metadata["name"] in running)


def minutes(pid: int, stop: threading.Event, found: list[int]) -> None:
    """Notes the resident set every minute."""
    while not stop.is_set():
        found.append(round(resident(pid, "VmRSS")))
        stop.wait(60)


def churn(plane: ControlPlane, folder: Path, count: int, seconds: float) -> Json:
    names = create_jobs(plane, finished_status(plane, folder), count)
    running, port = set(names["runs"]), free_port()
    delays, stop, sizes = Delays(), threading.Event(), list[int]()
    with (
        kwok_nodes(plane, folder / "kwok"),
        answering_pods(folder),
        operator_of_image(plane, folder / "operator", port) as operator,
    ):
        began = time.monotonic()
        api = plane.anew()
        until(lambda: jobs_looked_at(port) == count, "each job was looked at")
        until(lambda: unsettled(api, running) == 0, "the status of each job")
        started = time.monotonic()
        threads = [
            threading.Thread(target=watch, args=(plane.anew(), delays, stop)),
            threading.Thread(target=minutes, args=(operator.pid, stop, sizes)),
        ]
        for thread in threads:
            thread.start()
        per_second = count * CHANGING / 60
        change(api, names["waits"], per_second, seconds, delays)
        deadline = time.monotonic() + LAST_SECONDS
        while delays.open and time.monotonic() < deadline:
            time.sleep(0.1)
        watched = time.monotonic() - started
        stop.set()
        for thread in threads:
            thread.join()
        return {
            "jobs": {part: len(found) for part, found in names.items()},
            "secondsToStatusOfAll": round(started - began, 1),
            "changes": round(per_second * seconds),
            "neverFollowed": delays.open,
            "delay": {"p50": delays.at(0.5), "p99": delays.at(0.99), "max": delays.at(1.0)},
            "progress": progress_statuses(delays, running, watched),
            "MiB": {"largest": round(resident(operator.pid)), "eachMinute": sizes},
        }


def progress_statuses(delays: Delays, running: set[str], watched: float) -> Json:
    written = [delays.versions[name] for name in running]
    return {"statuses": sum(written), "mostOfOneJob": max(written), "mayAsk": math.floor(watched / PROGRESS_SECONDS) + 1}


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
