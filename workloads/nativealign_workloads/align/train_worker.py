"""train-worker: supervised fine-tuning of the alignment worker on the pairs, loss on the answer only."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from nativealign_api.align import WorkerTraining
from nativealign_api.common import BaseModelSource
from nativealign_workloads.align.chunks import pinned_conduct
from nativealign_workloads.commit import Json, ShardCommit, commit_step, fetch_folder, manifest, shard_records, step_rows
from nativealign_workloads.conduct.prompt import prompt_ids, render_messages
from nativealign_workloads.context import Context
from nativealign_workloads.errors import DataError
from nativealign_workloads.training.from_spec import base_model, settings_from
from nativealign_workloads.training.gang import Run, commit_model, rank, run_gang
from nativealign_workloads.training.packing import Shard, ShardWriter
from nativealign_workloads.training.samples import single_source
from nativealign_workloads.training.sft import Pair, write_pairs

KEEP_CHECKPOINTS = 2


def train(context: Context) -> Json:
    """Phase `train`: one node."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    settings = context.job.require("worker.train", WorkerTraining)
    base = context.job.require("worker.base", BaseModelSource)
    annotated = manifest(context.store, context.job.inputs["annotate"])["shards"][0]
    tokenizer = fetch_folder(context.store, annotated, "tokenizer", context.scratch / "tokenizer")
    model = base_model(context, base, "worker.base", tokenizer)
    rows, dropped = write_samples(context, model, settings)
    run = Run(
        model=model,
        settings=settings_from(
            settings.optimizer,
            settings.deepspeed,
            total_steps=math.ceil(rows * settings.epochs / settings.global_batch),
            global_batch=settings.global_batch,
            seed=settings.seed,
            every_steps=settings.checkpoint_every_steps,
            keep=KEEP_CHECKPOINTS,
        ),
        folder=context.scratch / "run",
        arguments={"shard": str(context.scratch / "pairs"), "length": settings.sequence_length, "seed": settings.seed},
    )
    run_gang(context, "nativealign_workloads.align.train_worker:run_rank", run)
    return commit_model(shard, run.folder, dropped=dropped) if context.index == 0 else {}


def run_rank(path: str) -> None:
    """What each rank runs."""
    rank(path, lambda facts: single_source([Shard.open(Path(facts["shard"]), facts["length"])], facts["seed"]))


def write_samples(context: Context, model: Path, settings: WorkerTraining) -> tuple[int, Json]:
    """Writes the pairs as packed rows; returns their number and how many pairs were left out, by reason."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    chosen = Chosen(context, settings)
    path = context.scratch / "pairs"
    with ShardWriter(path) as writer:
        write_pairs(chosen.pairs(tokenizer), settings.sequence_length, tokenizer.pad_token_id or 0, writer)
    if not chosen.used:
        raise DataError("NoPairs", "no pair of the seed sample can be trained on", "see the annotate step's guards in the report")
    return len(Shard.open(path, settings.sequence_length)), {"tooLong": chosen.too_long, "identity": chosen.identity}


class Chosen:
    """The accepted pairs, with identity pairs capped and those that do not fit left out; counts what it leaves out."""

    def __init__(self, context: Context, settings: WorkerTraining) -> None:
        self._context, self._settings = context, settings
        self._conduct, _ = pinned_conduct(context)
        self.used = self.too_long = self.identity = 0
        facts = manifest(context.store, context.job.inputs["annotate"])["facts"]
        self._identity_limit = identity_limit(facts["accepted"] - facts["unchanged"], settings.max_identity_percent)

    def pairs(self, tokenizer: Any) -> Iterator[Pair]:
        """Token ids of prompt and answer, in an order that depends on the seed alone."""
        identities = 0
        for row in sorted(self._accepted(), key=self._rank):
            identities += row["unchanged"]
            if row["unchanged"] and identities > self._identity_limit:
                self.identity += 1
                continue
            messages = render_messages(self._conduct, row["origin"], row["context"], "worker")
            answer = tokenizer(row["rewritten"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
            pair = Pair(prompt_ids(messages, tokenizer), answer)
            if len(pair) > self._settings.sequence_length:
                self.too_long += 1
                continue
            self.used += 1
            yield pair

    def _accepted(self) -> Iterator[Json]:
        return (row for row in step_rows(self._context.store, self._context.job.inputs["annotate"], "pairs") if row["accepted"])

    def _rank(self, row: Json) -> int:
        return xxhash.xxh3_64_intdigest(f"{row['id']}:{row['chunk']}", self._settings.seed)


def identity_limit(changed: int, percent: float) -> int:
    """How many unchanged pairs may join `changed` ones so that they are at most `percent` of all."""
    return changed if percent >= 100 else int(changed * percent / (100 - percent))


def commit(context: Context) -> Json:
    """Phase `commit`."""
    records = shard_records(context, "train", 1)
    facts = records[0]["facts"]
    return commit_step(context, records, {"metrics": {name: facts[name] for name in ("firstLoss", "finalLoss")}}, **facts)
