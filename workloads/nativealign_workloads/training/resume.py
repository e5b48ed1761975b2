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
) -> None:
    """Make a checkpoint that says: `step` steps are done. Returns after its manifest is durable."""
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
        checkpoints.commit(checkpoint, settings.keep_checkpoints)
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
    complete = ranks.broadcast(checkpoints.complete() if deepspeed_env.rank() == 0 else [])
    for checkpoint in complete:
        _check_fits(checkpoint, settings)
        folder = scratch / checkpoint.name
        if _fetch(checkpoints, checkpoint, folder):
            with contextlib.redirect_stdout(None):  # its 16-bit optimiser prints
                _, state = engine.load_checkpoint(str(scratch), tag=checkpoint.name, load_module_strict=not settings.lora_rank)
            if deepspeed_env.rank() == 0:
                shutil.copyfile(folder / METRICS, metrics)
            ranks.barrier()
            if deepspeed_env.local_rank() == 0:
                shutil.rmtree(folder)
            return checkpoint.step, state
    return 0, {}


def _fetch(checkpoints: ObjectCheckpoints, checkpoint: Checkpoint, folder: Path) -> bool:
    """Download into `folder`, each local rank a part; whether every node has everything unharmed."""
    if deepspeed_env.local_rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    ranks.barrier()
    mine = checkpoint.files[deepspeed_env.local_rank() :: deepspeed_env.local_world_size()]
    problems = [problem for problem in ranks.gather(checkpoints.fetch(checkpoint, mine, folder)) if problem]
    if problems and deepspeed_env.rank() == 0:
        log.warning("checkpoint %s is damaged, trying the one before: %s", checkpoint.name, problems[0])
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
