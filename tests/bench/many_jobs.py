"""`make bench-operator`: many jobs at once on one control plane: how long until each has its first child, and what that takes.

Pods are not run: the operator's work is all that is measured. Prints JSON: jobs, seconds until every first child Job exists, the
operator's largest resident set in MiB, and its API writes for each child, counted by a proxy in a small run of its own.
"""

import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import ControlPlane, control_plane
from tests.control_plane.campaign import JOBS, NOWHERE, STORE, PlayedPods, run_once
from tests.control_plane.site import running_operator

from nativealign_api.kinds import KINDS
from nativealign_api.vocabulary import API_VERSION
from nativealign_operator.paths import path_of

COUNT = 1000
THREADS = 8
LIMIT_SECONDS = 600.0


def create_all(plane: ControlPlane, count: int) -> None:
    """EvalJobs, as fast as the apiserver takes them."""

    def create(numbers: range) -> None:
        api = ControlPlane(plane.connect, plane.connect(), plane.token, plane.kubeconfig)
        for number in numbers:
            spec = JOBS["EvalJob"] | {"store": STORE}
            manifest = {"apiVersion": API_VERSION, "kind": "EvalJob", "metadata": {"name": f"job-{number}"}, "spec": spec}
            code, answer = api.request("POST", path_of("EvalJob", "default"), manifest)
            assert code == 201, answer

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(create, [range(start, count, THREADS) for start in range(THREADS)]))


def children(plane: ControlPlane) -> int:
    """Number of Jobs, by the count that a list of one gives."""
    found: Any = plane.request("GET", f"{path_of('Job', 'default')}?limit=1")[1]
    return len(found["items"]) + int(found["metadata"].get("remainingItemCount") or 0)


def resident(pid: int) -> float:
    """Largest resident set so far, in MiB."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def many(folder: Path) -> dict[str, float]:
    with control_plane(folder / "plane", controllers=True) as plane:
        plane.install_crds()
        with running_operator(plane, NOWHERE, folder / "operator") as operator:
            began = time.monotonic()
            create_all(plane, COUNT)
            created = time.monotonic() - began
            while children(plane) < COUNT:
                if time.monotonic() - began > LIMIT_SECONDS:
                    sys.exit(f"only {children(plane)} of {COUNT} jobs have a child after {LIMIT_SECONDS:.0f} s")
                time.sleep(0.2)
            seconds = time.monotonic() - began
            return {
                "jobs": COUNT,
                "secondsToCreate": round(created, 1),
                "secondsToFirstChildren": round(seconds, 1),
                "operatorMiB": round(resident(operator.process.pid)),
            }


def writes(folder: Path) -> dict[str, float]:
    """API writes of the operator for each child, events included."""
    with control_plane(folder / "small", controllers=True) as plane:
        plane.install_crds()
        pods = PlayedPods(plane)
        pods.start()
        runs = {kind: run_once(plane, NOWHERE, pods, folder, kind, None) for kind in KINDS}
        pods.stop()
    return {f"writesPerChild{kind}": round(len(run.writes) / len(run.outcome["Job"]), 2) for kind, run in runs.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(many(Path(name)) | writes(Path(name))))


if __name__ == "__main__":
    main()
