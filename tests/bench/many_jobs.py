"""`make bench-operator`: many jobs at once on one control plane: how long until each has its first child, and what that takes.

JobSets under JobSet's controller, TrainJobs under Kubeflow Trainer's and JobSet's, EvalJobs under the operator; each has one pod
to begin with. Each kind has a control plane of its own, with the same settings, so that none finds what another has left: these
controllers keep Jobs and pods of the whole cluster in memory. A controller is ready before the first object is created. Pods are
kwok's (kwok_nodes.py): they come, run, and go on running.

Prints JSON: for each kind the seconds until all objects are created, until every first child Job exists (of TrainJobs also until
every JobSet does) and until every pod runs, and the largest resident set of each controller until then, in MiB; the operator's
ratios to each peer, which is all the controllers that its objects need; and the operator's API writes, counted by a proxy in a
small run of its own whose pods are played to their end: for each child, and the most in one transition, a write of the status and
what follows it. Writes of progress are counted by churn.py.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench.load import Json, all_run, are_there, create_all, operator_of_image, resident, until
from tests.cluster.control_plane import ControlPlane, control_plane
from tests.cluster.jobset_controller import job_set, jobset_controller, jobsets
from tests.cluster.kwok_nodes import kwok_nodes
from tests.cluster.trainer_controller import train_job, train_jobs, trainer_controller
from tests.control_plane.campaign import JOBS, STORE, undisturbed

from nativealign_api.kinds import KINDS
from nativealign_api.vocabulary import API_VERSION
from nativealign_operator.paths import path_of

PEER_QPS = 10_000
"""The operator has no limit of its own; this one is never reached."""
NAMESPACE = "default"


@dataclass(frozen=True)
class Contestant:
    """Controllers that are ready, and the objects that they turn into Jobs."""

    path: str
    manifest: Callable[[str], Json]
    """An object of that name."""
    controllers: dict[str, int]
    """Process ids."""
    children: tuple[str, ...] = ("Jobs",)
    """What an object leads to, one after the other."""


PATHS = {"JobSets": jobsets(NAMESPACE), "Jobs": path_of("Job", NAMESPACE)}


def eval_job(name: str) -> Json:
    spec = JOBS["EvalJob"] | {"store": STORE}
    return {"apiVersion": API_VERSION, "kind": "EvalJob", "metadata": {"name": name}, "spec": spec}


@contextmanager
def ours(plane: ControlPlane, folder: Path) -> Iterator[Contestant]:
    plane.install_crds()
    with operator_of_image(plane, folder) as operator:
        yield Contestant(path_of("EvalJob", NAMESPACE), eval_job, {"nativealign": operator.pid})


@contextmanager
def jobset(plane: ControlPlane, folder: Path) -> Iterator[Contestant]:
    with jobset_controller(plane, folder, PEER_QPS) as server:
        yield Contestant(jobsets(NAMESPACE), job_set, {"jobset": server.pid})


@contextmanager
def trainer(plane: ControlPlane, folder: Path) -> Iterator[Contestant]:
    with (
        jobset_controller(plane, folder / "jobset", PEER_QPS) as below,
        trainer_controller(plane, folder / "trainer", PEER_QPS) as server,
    ):
        controllers = {"trainer": server.pid, "jobset": below.pid}
        yield Contestant(train_jobs(NAMESPACE), train_job, controllers, ("JobSets", "Jobs"))


CONTESTANTS: dict[str, Callable[[ControlPlane, Path], AbstractContextManager[Contestant]]] = {
    "jobset": jobset,
    "trainer": trainer,
    "nativealign": ours,
}


def burst(plane: ControlPlane, contestant: Contestant, count: int) -> Json:
    """Creates so many objects at once, and returns when all their pods run."""
    manifests = [contestant.manifest(f"job-{number}") for number in range(count)]
    began = time.monotonic()

    def seconds() -> float:
        return round(time.monotonic() - began, 1)

    create_all(plane, contestant.path, manifests)
    found: Json = {"secondsToCreate": seconds()}
    for children in contestant.children:
        until(partial(are_there, plane, PATHS[children], count), f"first {children}")
        found[f"secondsToFirst{children}"] = seconds()
    until(partial(all_run, plane, path_of("Pod", NAMESPACE), count), "pods that run")
    found["secondsToRunningPods"] = seconds()
    return found | {"MiB": {name: round(resident(pid)) for name, pid in contestant.controllers.items()}}


def at_once(folder: Path, name: str, count: int) -> Json:
    """One of CONTESTANTS, alone on its control plane."""
    with (
        control_plane(folder / "plane", controllers=True) as plane,
        kwok_nodes(plane, folder / "kwok"),
        CONTESTANTS[name](plane, folder / name) as contestant,
    ):
        return burst(plane, contestant, count)


def ratios(own: Json, peer: Json) -> Json:
    memory = sum(own["MiB"].values()) / sum(peer["MiB"].values())
    return {"secondsToFirstJobs": round(own["secondsToFirstJobs"] / peer["secondsToFirstJobs"], 2), "MiB": round(memory, 2)}


def writes() -> Json:
    """API writes of the operator, events included."""
    return {kind: _counts(run.writes, len(run.outcome["Job"])) for kind, run in undisturbed(list(KINDS)).items()}


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
        folder = Path(name)
        found = {contestant: at_once(folder / contestant, contestant, given.jobs) for contestant in CONTESTANTS}
        own = found["nativealign"]
        ratio = {peer: ratios(own, figures) for peer, figures in found.items() if figures is not own}
        print(json.dumps({"jobs": given.jobs, **found, "ratio": ratio}), flush=True)
        print(json.dumps({"writes": writes()}))


if __name__ == "__main__":
    main()
