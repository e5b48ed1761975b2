"""train-worker: supervised fine-tuning of the alignment worker on the pairs, loss on the answer only."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash

from nativealign_api.align import Rewrite, WorkerTraining
from nativealign_api.common import BaseModelSource
from nativealign_workloads.align.chunks import CountTokens, Piece, counter, pinned_conduct, request
from nativealign_workloads.commit import Json, ShardCommit, commit_step, fetch_folder, manifest, shard_records, step_rows
from nativealign_workloads.conduct.prompt import prompt_ids, render_messages
from nativealign_workloads.context import Context
from nativealign_workloads.engines.transformers_engine import TransformersEngine
from nativealign_workloads.errors import DataError
from nativealign_workloads.guards import check
from nativealign_workloads.text.chunk import Chunk
from nativealign_workloads.training.from_spec import base_model, settings_from
from nativealign_workloads.training.gang import Run, commit_model, rank, run_gang
from nativealign_workloads.training.packing import Shard, ShardWriter
from nativealign_workloads.training.samples import Rows, single_source
from nativealign_workloads.training.sft import Pair, write_pairs

KEEP_CHECKPOINTS = 2
PAIRS, HELD_OUT = "pairs", "held-out"
"""Files of rows to train on, and not to train on."""
MAX_HELD_OUT = 500
MAX_GENERATED, GENERATED_AT_ONCE = 200, 32
"""Pairs that the trained worker rewrites for the guards."""


def train(context: Context) -> Json:
    """Phase `train`: one node."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    settings = context.job.require("worker.train", WorkerTraining)
    base = context.job.require("worker.base", BaseModelSource)
    annotated = manifest(context.store, context.job.inputs["annotate"])["shards"][0]
    tokenizer = fetch_folder(context, annotated, "tokenizer", context.scratch / "tokenizer")
    model = base_model(context, base, "worker.base", tokenizer)
    rows, chosen = write_samples(context, model, settings)
    lora = {"lora_rank": settings.lora.rank, "lora_alpha": settings.lora.alpha} if settings.lora else {}
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
            evaluate_every_steps=settings.evaluate_every_steps,
            patience=settings.patience,
            **lora,
        ),
        folder=context.scratch / "run",
        arguments={
            "shard": str(context.scratch / PAIRS),
            "heldOut": str(context.scratch / HELD_OUT) if chosen.held_out else "",
            "length": settings.sequence_length,
            "seed": settings.seed,
        },
    )
    run_gang(context, "nativealign_workloads.align.train_worker:run_rank", run)
    if context.index:
        return {}
    facts = {"dropped": chosen.dropped()} | held_out_facts(context, run.folder / "model", chosen.held_out, settings)
    return commit_model(shard, run.folder, **facts)


def run_rank(path: str) -> None:
    """What each rank runs."""
    rank(path, lambda facts: single_source([_shard(facts, "shard")], facts["seed"]), _held_out_rows)


def _held_out_rows(facts: Json) -> Rows | None:
    return Rows([_shard(facts, "heldOut")]) if facts["heldOut"] else None


def _shard(facts: Json, name: str) -> Shard:
    return Shard.open(Path(facts[name]), facts["length"])


def write_samples(context: Context, model: Path, settings: WorkerTraining) -> tuple[int, "Chosen"]:
    """Writes the pairs as packed rows; returns the number of rows to train on, and what was chosen."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    chosen = Chosen(context, settings)
    for name, held_out in ((HELD_OUT, True), (PAIRS, False)):
        with ShardWriter(context.scratch / name) as writer:
            write_pairs(chosen.pairs(tokenizer, held_out), settings.sequence_length, tokenizer.pad_token_id or 0, writer)
    if chosen.used == len(chosen.held_out):
        raise DataError("NoPairs", "no pair of the seed sample can be trained on", "see the annotate step's guards in the report")
    return len(Shard.open(context.scratch / PAIRS, settings.sequence_length)), chosen


class Chosen:
    """The accepted pairs, with identity pairs capped and those that do not fit left out; counts what it leaves out."""

    def __init__(self, context: Context, settings: WorkerTraining) -> None:
        self._context, self._settings = context, settings
        self._conduct, _ = pinned_conduct(context)
        self.used = self.too_long = self.identity = 0
        self.held_out: list[Json] = []
        """Rows of the pairs that are not trained on."""
        facts = manifest(context.store, context.job.inputs["annotate"])["facts"]
        identities = identity_limit(facts["accepted"] - facts["unchanged"], settings.max_identity_percent)
        self._rows = list(self._with_few_identities(identities))
        wanted = min(MAX_HELD_OUT, int(len(self._rows) * settings.held_out_percent / 100))
        self._held = documents_to_hold_out(Counter(row["id"] for row in self._rows), wanted, settings.seed)

    def dropped(self) -> dict[str, int]:
        """Pairs that were left out, by reason."""
        return {"tooLong": self.too_long, "identity": self.identity}

    def pairs(self, tokenizer: Any, held_out: bool) -> Iterator[Pair]:
        """Token ids of prompt and answer, those to hold out or the others, in an order that depends on the seed alone."""
        for row in (row for row in self._rows if (row["id"] in self._held) is held_out):
            messages = render_messages(self._conduct, row["origin"], row["context"], "worker")
            answer = tokenizer(row["rewritten"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
            pair = Pair(prompt_ids(messages, tokenizer), answer)
            if len(pair) > self._settings.sequence_length:
                self.too_long += 1
                continue
            self.used += 1
            self.held_out += [row] if held_out else []
            yield pair

    def _with_few_identities(self, limit: int) -> Iterator[Json]:
        identities = 0
        for row in sorted(self._accepted(), key=self._rank):
            identities += row["unchanged"]
            if row["unchanged"] and identities > limit:
                self.identity += 1
            else:
                yield row

    def _accepted(self) -> Iterator[Json]:
        return (row for row in step_rows(self._context.store, self._context.job.inputs["annotate"], "pairs") if row["accepted"])

    def _rank(self, row: Json) -> int:
        return xxhash.xxh3_64_intdigest(f"{row['id']}:{row['chunk']}", self._settings.seed)


def documents_to_hold_out(pairs: Mapping[str, int], wanted: int, seed: int) -> set[str]:
    """Documents, by how many pairs each has, that have about so many pairs together, at most by one document more: a worker is
    measured on whole documents that it has not seen. Half of all pairs are left to train on.
    """
    chosen, held, half = set[str](), 0, sum(pairs.values()) / 2
    for document in sorted(pairs, key=lambda document: xxhash.xxh3_64_intdigest(document, seed)):
        if held < wanted and held + pairs[document] <= half:
            chosen.add(document)
            held += pairs[document]
    return chosen


def held_out_facts(context: Context, model: Path, rows: list[Json], settings: WorkerTraining) -> Json:
    """How the worker does on the pairs that it has not seen: how many there are, and the share whose rewriting breaks no guard."""
    if not rows:
        return {}
    conduct, _ = pinned_conduct(context)
    count = counter(model / "tokenizer.json")
    pieces = [_piece(row, count) for row in rows[:MAX_GENERATED]]
    engine = TransformersEngine(model, GENERATED_AT_ONCE, context.device, settings.deepspeed.precision)
    replies = engine.generate([request(conduct, piece, "worker", Rewrite().max_output_ratio) for piece in pieces])
    engine.close()
    broken = [
        check(conduct, piece.chunk.text, reply.text, reply.finish_reason) for piece, reply in zip(pieces, replies, strict=True)
    ]
    return {"heldOut": {"pairs": len(rows), "generated": len(pieces), "guardPassRate": broken.count([]) / len(broken)}}


def _piece(row: Json, count: CountTokens) -> Piece:
    text = row["origin"]
    return Piece(row["id"], Chunk(row["chunk"], text, ""), row["context"], count(text))


def identity_limit(changed: int, percent: float) -> int:
    """How many unchanged pairs may join `changed` ones so that they are at most `percent` of all."""
    return changed if percent >= 100 else int(changed * percent / (100 - percent))


def commit(context: Context) -> Json:
    """Phase `commit`."""
    records = shard_records(context, "train", 1)
    facts = records[0]["facts"]
    metrics = {name: facts[name] for name in ("firstLoss", "finalLoss")}
    metrics |= {"heldOutLoss": dict(facts["heldOutCurve"])[facts["exportedStep"]]} if "heldOutCurve" in facts else {}
    metrics |= {"guardPassRate": facts["heldOut"]["guardPassRate"]} if "heldOut" in facts else {}
    return commit_step(context, records, {"metrics": metrics}, **facts)
