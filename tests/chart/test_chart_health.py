"""The table of situations, judged by kstatus, by Flux with the expressions and by Argo CD's own Lua runner with the script that the
chart ships.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.build import binary
from tests.world import ALIGN, PRETRAIN, World, world

from nativealign_api.status import JobStatus
from nativealign_operator.conditions import say

FILES = Path(__file__).parents[2] / "charts" / "nativealign" / "files"
LUA = (FILES / "argocd-health.lua").read_text()
FLUX = {entry["kind"]: entry for entry in yaml.safe_load((FILES / "flux-health.yaml").read_text())["healthCheckExprs"]}


def waiting() -> World:
    found = world("PretrainJob", PRETRAIN)
    found.settle()
    return found


def upstream_failed() -> World:
    found = world("PretrainJob", PRETRAIN)
    found.upstream = {"AlignJob/corpus": JobStatus(state="Failed")}
    found.settle()
    return found


def started(**spec: Any) -> World:
    found = world(spec=ALIGN | spec)
    found.settle()
    return found


def running() -> World:
    found = started()
    found.run()
    found.settle()
    return found


def queued() -> World:
    found = started(queueName="research")
    found.jobs[found.current]["spec"]["suspend"] = True
    found.settle()
    return found


def retrying() -> World:
    found = started()
    found.complete()  # its words are lost
    found.look()
    return found


def suspended() -> World:
    found = running()
    found.job.spec = found.job.spec.model_copy(update={"suspend": True})
    found.settle()
    return found


def resumed() -> World:
    found = suspended()
    found.end_stopped()
    found.job.spec = found.job.spec.model_copy(update={"suspend": False})
    found.settle()
    return found


def complete() -> World:
    found = world()
    found.finish()
    return found


def failed() -> World:
    found = started()
    found.fail(66, {"code": "InputEmpty", "message": "no file"})
    found.settle()
    return found


def gate_failed() -> World:
    found = world()
    found.finish(gates=["maxFallbackPercent"])
    return found


def secret_missing() -> World:
    found = started(deadlines={"startSeconds": 60})
    found.pend("CreateContainerConfigError", "secret 's3' not found")
    found.wait(61)
    found.settle()
    return found


def invalid() -> World:
    found = world()
    found.status.observed_generation = 1
    say(found.status, "Invalid", "InvalidSpec", "spec.clean: wrong", found.now)
    return found


def edited() -> World:
    """The spec has changed since the operator looked."""
    found = running()
    found.job.metadata.generation = 2
    return found


SITUATIONS: list[tuple[Callable[[], World], str, str, str, str]] = [
    (world, "Waiting", "InProgress", "InProgress", "Progressing"),
    (edited, "Running", "InProgress", "InProgress", "Progressing"),
    (waiting, "Waiting", "Current", "InProgress", "Progressing"),
    (queued, "Queued", "Current", "InProgress", "Progressing"),
    (running, "Running", "Current", "InProgress", "Progressing"),
    (retrying, "Retrying", "Current", "InProgress", "Progressing"),
    (resumed, "Running", "Current", "InProgress", "Progressing"),
    (suspended, "Suspended", "Current", "Current", "Suspended"),
    (complete, "Complete", "Current", "Current", "Healthy"),
    (failed, "Failed", "Failed", "Failed", "Degraded"),
    (gate_failed, "GateFailed", "Failed", "Failed", "Degraded"),
    (invalid, "Invalid", "Failed", "Failed", "Degraded"),
    (upstream_failed, "Stalled", "Failed", "Failed", "Degraded"),
    (secret_missing, "Stalled", "Failed", "Failed", "Degraded"),
]


def judged(objects: list[dict[str, Any]]) -> list[dict[str, str]]:
    lines = "".join(json.dumps({"object": item, "flux": FLUX[item["kind"]], "lua": LUA}) + "\n" for item in objects)
    done = subprocess.run([binary("judges")], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def as_stored(found: World) -> dict[str, Any]:
    """As the apiserver gives it: one that nobody has seen has the default of the CRD."""
    job = found.job
    status = job.status.dump() if job.status.observed_generation is not None else {"observedGeneration": 0}
    metadata = {"name": "web", "namespace": "team", "generation": job.metadata.generation}
    return {"apiVersion": job.api_version, "kind": job.kind, "metadata": metadata, "spec": {}, "status": status}


def test_every_situation_is_seen_as_the_table_says() -> None:
    worlds = [make() for make, *_ in SITUATIONS]
    answers = judged([as_stored(found) for found in worlds])
    found = [
        (make.__name__, one.status.state, answer["kstatus"], answer["flux"], answer["argocd"])
        for (make, *_), one, answer in zip(SITUATIONS, worlds, answers, strict=True)
    ]
    assert found == [(make.__name__, *expected) for make, *expected in SITUATIONS]


@pytest.mark.parametrize(("make", "message"), [(failed, "no file"), (suspended, "spec.suspend is set")])
def test_argo_cd_shows_the_operators_words(make: Callable[[], World], message: str) -> None:
    (answer,) = judged([as_stored(make())])
    assert message in answer["message"]
