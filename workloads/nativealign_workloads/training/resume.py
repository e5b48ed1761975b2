"""Saving and restoring a DeepSpeed engine through `checkpoint.ObjectCheckpoints`. Collective: all ranks call together.

The nodes share no disk. Each saves into its own scratch folder; its ranks upload what lies there, each a part. To
restore, each node downloads the union of all nodes' files.
"""

import contextlib
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nativealign_workloads.errors import UsageError
from nativealign_workloads.training import deepspeed_env, ranks
from nativealign_workloads.training.checkpoint import Checkpoint, ObjectCheckpoints
from nativealign_workloads.training.settings import TrainingSettings

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

log = logging.getLogger(__name__)
METRICS = "metrics.jsonl"


def save(
    engine: "DeepSpeedEngine",
    checkpoints: ObjectCheckpoints,
    settings: TrainingSettings,
    step: int,
    state: dict[str, Any],
    metrics: Path,
    scratch: Path,
    best: int | None,
) -> None:
    """Make a checkpoint that says: `step` steps are done. Returns after its manifest is durable; one of step `best` is kept."""
    name = ranks.broadcast(checkpoints.new_name(step))
    folder = scratch / name
    if deepspeed_env.local_rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    ranks.barrier()
    frozen = settings.lora_rank > 0
    engine.save_checkpoint(str(scratch), tag=name, client_state=state, save_latest=False, exclude_frozen_parameters=frozen)
    if deepspeed_env.rank() == 0:
        shutil.copyfile(metrics, folder / METRICS)
    ranks.barrier()
    mine = sorted(folder.iterdir())[deepspeed_env.local_rank() :: deepspeed_env.local_world_size()]
    files = [file for part in ranks.gather(checkpoints.put(name, mine)) for file in part]
    if deepspeed_env.rank() == 0:
        ordered = tuple(sorted(files, key=lambda file: file.name))
        checkpoint = Checkpoint(name, step, deepspeed_env.world_size(), settings.zero_stage, settings.precision, ordered)
        checkpoints.commit(checkpoint, settings.keep_checkpoints, best)
    ranks.barrier()
    if deepspeed_env.local_rank() == 0:
        shutil.rmtree(folder)


def restore(
    engine: "DeepSpeedEngine",
    checkpoints: ObjectCheckpoints,
    settings: TrainingSettings,
    metrics: Path,
    scratch: Path,
) -> tuple[int, dict[str, Any]]:
    """Load the newest checkpoint whose files are all sound; returns its steps and state, or (0, {}) without any."""
    for checkpoint in _complete(checkpoints):
        state = _load(engine, checkpoints, checkpoint, settings, scratch, metrics)
        if state is not None:
            return checkpoint.step, state
    return 0, {}


def restore_step(
    engine: "DeepSpeedEngine", checkpoints: ObjectCheckpoints, settings: TrainingSettings, step: int, scratch: Path
) -> bool:
    """Load the checkpoint of a step; whether there is a sound one."""
    of = [checkpoint for checkpoint in _complete(checkpoints) if checkpoint.step == step]
    return any(_load(engine, checkpoints, checkpoint, settings, scratch) is not None for checkpoint in of)


def _complete(checkpoints: ObjectCheckpoints) -> list[Checkpoint]:
    """The newest first, and the same on all ranks."""
    found: list[Checkpoint] = ranks.broadcast(checkpoints.complete() if deepspeed_env.rank() == 0 else [])
    return found


def _load(
    engine: "DeepSpeedEngine",
    checkpoints: ObjectCheckpoints,
    checkpoint: Checkpoint,
    settings: TrainingSettings,
    scratch: Path,
    metrics: Path | None = None,
) -> dict[str, Any] | None:
    """The state of a checkpoint, which is loaded and its metrics with it if they are asked for; None if it is damaged."""
    _check_fits(checkpoint, settings)
    folder = scratch / checkpoint.name
    if not _fetch(checkpoints, checkpoint, folder):
        return None
    with contextlib.redirect_stdout(None):  # its 16-bit optimiser prints
        _, state = engine.load_checkpoint(str(scratch), tag=checkpoint.name, load_module_strict=not settings.lora_rank)
    if metrics and deepspeed_env.rank() == 0:
        shutil.copyfile(folder / METRICS, metrics)
    ranks.barrier()
    if deepspeed_env.local_rank() == 0:
        shutil.rmtree(folder)
    return dict(state)


def _fetch(checkpoints: ObjectCheckpoints, checkpoint: Checkpoint, folder: Path) -> bool:
    """Download into `folder`, each local rank a part; whether every node has everything unharmed."""
    if deepspeed_env.local_rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    ranks.barrier()
    mine = checkpoint.files[deepspeed_env.local_rank() :: deepspeed_env.local_world_size()]
    problems = [problem for problem in ranks.gather(checkpoints.fetch(checkpoint, mine, folder)) if problem]
    if problems and deepspeed_env.rank() == 0:
        log.warning("checkpoint %s is damaged: %s", checkpoint.name, problems[0])
    if problems and deepspeed_env.local_rank() == 0:
        shutil.rmtree(folder)
    return not problems


def _check_fits(checkpoint: Checkpoint, settings: TrainingSettings) -> None:
    """DeepSpeed's files belong to one world size, ZeRO stage and precision."""
    then = (checkpoint.world_size, checkpoint.zero_stage, checkpoint.precision)
    now = (deepspeed_env.world_size(), settings.zero_stage, settings.precision)
    if then != now:
        raise UsageError(
            "CheckpointLayout",
            f"{checkpoint.name} was written by {then[0]} processes at ZeRO stage {then[1]} in {then[2]}; "
            f"this run has {now[0]} at stage {now[1]} in {now[2]}",
            "go on with the same numbers, or remove the checkpoints to start again",
        )
