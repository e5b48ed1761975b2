"""One node of a gang phase: start the ranks, and commit what rank 0 wrote. Called by train-worker and by train.

The ranks get a JSON file with all that they need, since they are processes of their own.
"""

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nativealign_api.vocabulary import PROGRESS_PORT
from nativealign_workloads.commit import Json, ShardCommit
from nativealign_workloads.context import Context, from_environment
from nativealign_workloads.progress import Progress
from nativealign_workloads.training.checkpoint import ObjectCheckpoints
from nativealign_workloads.training.launch import launch, stop_flag
from nativealign_workloads.training.loop import Samples, StepMetrics, train
from nativealign_workloads.training.samples import Rows
from nativealign_workloads.training.settings import TrainingSettings

MEET_SECONDS = 1.0
"""Between two looks for the other nodes, and how long one may take."""
CURVE_POINTS = 400
"""Points of a loss curve that go into the manifest; metrics.jsonl has all."""


@dataclass(frozen=True)
class Run:
    """What every rank of a node is told."""

    model: Path
    settings: TrainingSettings
    folder: Path
    arguments: Json
    """What the step's own `samples` function needs."""


def run_gang(context: Context, entry: str, run: Run) -> None:
    """Starts the ranks of this node, each running `entry(path of the run's JSON)`."""
    plan = context.scratch / "run.json"
    facts = {"model": str(run.model), "settings": run.settings.model_dump(), "folder": str(run.folder), "arguments": run.arguments}
    plan.write_text(json.dumps(facts))
    resources, master = context.job.resources, os.environ.get("MASTER_ADDR", "127.0.0.1")
    _meet(context, [peer for index, peer in enumerate(_peers(master, resources.nodes)) if index != context.index])
    launch(
        entry,
        [str(plan)],
        resources.world_size // resources.nodes,
        nodes=resources.nodes,
        node_rank=context.index,
        master_addr=master,
    )


def _peers(master: str, nodes: int) -> list[str]:
    """Host names of the pods of a gang, `<gang>-<index>.<gang>`, by that of the first."""
    gang = master.partition(".")[2]
    return [f"{gang}-{index}.{gang}" for index in range(nodes)]


def _meet(context: Context, peers: list[str]) -> None:
    """Waits until the pods of all nodes serve their progress, however long one takes to be scheduled: ranks would give up on it."""
    for peer in peers:
        while not _serves(peer):
            context.check_stop()
            time.sleep(MEET_SECONDS)
    context.check_stop()


def _serves(host: str) -> bool:
    try:
        socket.create_connection((host, PROGRESS_PORT), MEET_SECONDS).close()
    except OSError:
        return False
    return True


def rank(path: str, samples: Callable[[Json], Samples], held_out: Callable[[Json], Rows | None] = lambda facts: None) -> None:
    """What each rank runs; the functions get the run's arguments."""
    stop = stop_flag()
    run = json.loads(Path(path).read_text())
    context = from_environment(os.environ, clean=False)
    if os.environ.get("RANK", "0") != "0":
        context.progress = Progress(None)  # one rank tells of the run
    settings = TrainingSettings(**run["settings"])
    result = train(
        Path(run["model"]),
        samples(run["arguments"]),
        settings,
        ObjectCheckpoints(context.store, f"{context.phase_prefix}/checkpoints", context.progress.alive),
        Path(run["folder"]),
        on_step=lambda metrics: _show(context, metrics, settings.total_steps),
        stop=stop,
        held_out=held_out(run["arguments"]),
    )
    if os.environ.get("RANK", "0") == "0":
        facts: Json = {"steps": result.steps, "tokens": result.tokens, "labelTokens": result.label_tokens}
        facts |= {"firstLoss": result.first_loss, "finalLoss": result.final_loss}
        facts |= {"heldOutCurve": result.held_out, "exportedStep": result.exported_step} if result.held_out else {}
        Path(run["folder"], "result.json").write_text(json.dumps(facts))


def _show(context: Context, metrics: StepMetrics, total: int) -> None:
    if metrics.step == 1 or not context.progress.started:
        context.progress.begin(total, "steps", done=metrics.step - 1)
    context.progress.advance(loss=metrics.loss, tokensPerSecond=metrics.tokens_per_second)


def commit_model(shard: ShardCommit, folder: Path, **more: Any) -> dict[str, Any]:
    """Commits model, metrics, result and further facts of a finished run as shard 0. `shard` knows when the phase began."""
    facts = json.loads((folder / "result.json").read_text())
    shard.folder("model", folder / "model")
    shard.file("metrics.jsonl", folder / "metrics.jsonl")
    shard.commit(**facts, **more, curve=curve(folder / "metrics.jsonl"))
    return {"metrics": {"firstLoss": facts["firstLoss"], "finalLoss": facts["finalLoss"]}, "counts": {"steps": facts["steps"]}}


def curve(metrics: Path) -> list[list[float]]:
    """[step, loss, learning rate] of evenly spaced steps, the last included."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    stride = max(1, len(rows) // CURVE_POINTS)
    chosen = rows[::stride] + ([rows[-1]] if (len(rows) - 1) % stride else [])
    return [[row["step"], row["loss"], row["learning_rate"]] for row in chosen]
