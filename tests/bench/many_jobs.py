"""`make bench-operator`: many jobs at once on one control plane: how long until each has its first child, and what that takes.

JobSets under JobSet's controller, then EvalJobs under the operator, on the same control plane. JobSet comes first, since it keeps
every Job and pod of the cluster in memory, and would keep the operator's too. Pods are not run: the controllers' work is what is
measured. Prints JSON: for each, the seconds until all objects are created and until every first child Job exists, and the
controller's largest resident set in MiB until each Job has its pod; their ratios; and the operator's API writes, counted by a proxy
in a small run of its own: for each child, and the most in one transition, a write of the status and what follows it.
"""

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.bench.load import Json, create_all, number_of, operator_of_image, resident, until
from tests.cluster.control_plane import ControlPlane, control_plane
from tests.cluster.jobset_controller import job_set, jobset_controller, jobsets
from tests.control_plane.campaign import JOBS, NOWHERE, STORE, PlayedPods, run_once

from nativealign_api.kinds import KINDS
from nativealign_api.vocabulary import API_VERSION
from nativealign_operator.paths import path_of

PEER_QPS = 10_000
"""The operator has no limit of its own; this one is never reached."""


def eval_job(number: int) -> Json:
    spec = JOBS["EvalJob"] | {"store": STORE}
    return {"apiVersion": API_VERSION, "kind": "EvalJob", "metadata": {"name": f"job-{number}"}, "spec": spec}


def burst(plane: ControlPlane, namespace: str, path: str, manifests: list[Json], pid: int) -> dict[str, float]:
    """Creates the objects in a namespace of their own, and counts its Jobs. Returns once each Job has its pod."""
    plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    began = time.monotonic()
    create_all(plane, path, manifests)
    created = time.monotonic() - began
    until(lambda: number_of(plane, path_of("Job", namespace)) >= len(manifests), f"a child of each job in {namespace}")
    seconds = time.monotonic() - began
    until(lambda: number_of(plane, path_of("Pod", namespace)) >= len(manifests), f"a pod of each job in {namespace}")
    return {"secondsToCreate": round(created, 1), "secondsToFirstChildren": round(seconds, 1), "MiB": round(resident(pid))}


def ours(plane: ControlPlane, folder: Path, count: int) -> dict[str, float]:
    with operator_of_image(plane, folder) as operator:
        manifests = [eval_job(number) for number in range(count)]
        return burst(plane, "ours", path_of("EvalJob", "ours"), manifests, operator.process.pid)


def peers(plane: ControlPlane, folder: Path, count: int) -> dict[str, float]:
    with jobset_controller(plane, folder, PEER_QPS) as server:
        assert server.process
        return burst(plane, "peers", jobsets("peers"), [job_set(f"job-{number}") for number in range(count)], server.process.pid)


def at_once(folder: Path, count: int) -> Json:
    """Both controllers, each alone; the objects of the first stay, with pods that nobody runs."""
    with control_plane(folder / "plane", controllers=True) as plane:
        plane.install_crds()
        found = {"jobset": peers(plane, folder / "jobset", count), "nativealign": ours(plane, folder / "nativealign", count)}
    ratio = {key: round(found["nativealign"][key] / found["jobset"][key], 2) for key in ("secondsToFirstChildren", "MiB")}
    return {"jobs": count, **found, "ratio": ratio}


def writes(folder: Path) -> Json:
    """API writes of the operator, events included."""
    with ExitStack() as stack:
        plane = stack.enter_context(control_plane(folder / "small", controllers=True))
        plane.install_crds()
        pods = PlayedPods(plane)
        pods.start()
        stack.callback(pods.stop)
        runs = {kind: run_once(plane, NOWHERE, pods, folder, kind, None) for kind in KINDS}
    return {kind: _counts(run.writes, len(run.outcome["Job"])) for kind, run in runs.items()}


def _counts(writes: list[str], children: int) -> Json:
    starts = [number for number, write in enumerate(writes) if write.startswith("PATCH")]
    transitions = [writes[start:end] for start, end in zip(starts, [*starts[1:], len(writes)], strict=True)]
    sizes: dict[bool, list[int]] = {True: [0], False: [0]}
    for transition in transitions:
        sizes[any(write.endswith("/jobs") for write in transition)].append(len(transition))
    return {"perChild": round(len(writes) / children, 2), "mostWithChild": max(sizes[True]), "mostWithoutChild": max(sizes[False])}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(at_once(Path(name), given.jobs)), flush=True)
        print(json.dumps({"writes": writes(Path(name))}))


if __name__ == "__main__":
    main()
