"""train: continue pre-training on the mix, with DeepSpeed, from the last complete checkpoint if there is one."""

import math
from dataclasses import asdict
from pathlib import Path

from nativealign_api.common import BaseModelSource, Checkpoints, DeepSpeed, Optimizer
from nativealign_api.plan import step_prefix
from nativealign_api.pretrain import MixEntry
from nativealign_workloads.commit import Json, ShardCommit, commit_step, fetch_folder, manifest, shard_records
from nativealign_workloads.context import Context
from nativealign_workloads.training.from_spec import base_model, settings_from
from nativealign_workloads.training.gang import Run, commit_model, rank, run_gang
from nativealign_workloads.training.mix import Mix, Source
from nativealign_workloads.training.packing import Shard
from nativealign_workloads.training.samples import MixedSamples


def run(context: Context) -> Json:
    """Phase `train`: one node."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    read = context.job.require
    length, batch = read("sequenceLength", int), read("globalBatch", int)
    steps = math.ceil(read("tokens", int) / (length * batch))
    tokenized = manifest(context.store, context.job.inputs["tokenize"])
    shards = {source["name"]: _fetch(context, source) for source in tokenized["facts"]["sources"]}
    sources = mix_sources(
        read("mix", list[MixEntry]), {n: _rows(paths, length) for n, paths in shards.items()}, read("whenExhausted", str), length
    )
    mix = Mix(sources, read("seed", int))
    mix.require(steps * batch)
    tokenizer = fetch_folder(context, tokenized["shards"][0], "tokenizer", context.scratch / "tokenizer")
    checkpoints = read("checkpoints", Checkpoints)
    settings = settings_from(
        read("optimizer", Optimizer),
        read("deepspeed", DeepSpeed),
        total_steps=steps,
        global_batch=batch,
        seed=read("seed", int),
        every_steps=checkpoints.every_steps,
        keep=checkpoints.keep,
    )
    model = base_model(context, read("base", BaseModelSource), "base", tokenizer)
    arguments = {"sources": [asdict(source) for source in sources], "seed": read("seed", int), "length": length, "shards": shards}
    folder = context.scratch / "run"
    run_gang(context, "nativealign_workloads.pretrain.train:run_rank", Run(model, settings, folder, arguments))
    return commit_model(shard, folder, samples=mix.counts(steps * batch)) if context.index == 0 else {}


def mix_sources(mix: list[MixEntry], rows: dict[str, int], when_exhausted: str, length: int) -> list[Source]:
    """The training room's sources. A source with a limit of its own stops there, and `whenExhausted` decides what follows.

    rows: packed rows of each source, of `length` tokens.
    """
    return [
        Source(
            entry.name,
            rows[entry.name],
            entry.weight,
            when_exhausted,  # type: ignore[arg-type]
            entry.max_epochs,
            None if entry.max_tokens is None else max(1, entry.max_tokens // length),
        )
        for entry in mix
    ]


def _fetch(context: Context, source: Json) -> list[str]:
    """Paths, without suffix, of the source's shards on this node."""
    paths = []
    for number, shard in enumerate(manifest(context.store, step_prefix("tokenize", source["digest"]))["shards"]):
        path = context.scratch / "tokens" / source["digest"] / f"{number:05d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("bin", "idx"):
            context.store.download(shard["parts"][f"tokens.{suffix}"]["key"], path.with_name(f"{path.name}.{suffix}"))
        paths.append(str(path))
    return paths


def _rows(paths: list[str], length: int) -> int:
    return sum(len(Shard.open(Path(path), length)) for path in paths)


def run_rank(path: str) -> None:
    """What each rank runs."""
    rank(path, _samples)


def _samples(facts: Json) -> MixedSamples:
    mix = Mix([Source(**source) for source in facts["sources"]], facts["seed"])
    shards = {name: [Shard.open(Path(path), facts["length"]) for path in paths] for name, paths in facts["shards"].items()}
    return MixedSamples(mix, shards)


def commit(context: Context) -> Json:
    """Phase `commit`. The facts say how many samples of each source were trained on."""
    records = shard_records(context, "train", 1)
    facts = records[0]["facts"]
    tokenized = manifest(context.store, context.job.inputs["tokenize"])["facts"]["sources"]
    sources = [source | {"samples": facts["samples"][source["name"]]} for source in tokenized]
    headline = {"metrics": {name: facts[name] for name in ("firstLoss", "finalLoss")}, "counts": {"steps": facts["steps"]}}
    kept = {name: value for name, value in facts.items() if name != "samples"}
    return commit_step(context, records, headline, **kept, sources=sources)
