"""The EvalJob's steps: evaluate (each model answers every item), report (scores, comparison, gate).

evaluate  index 0 the model, index 1 the baseline: per-item rows of each benchmark, and bits per byte on held-out text
report    one pod: scores with intervals, paired comparison with the baseline, verdict
"""

from functools import partial
from pathlib import Path
from typing import Any

from nativealign_api.common import Judge, TransformersEngine
from nativealign_api.evaluate import Benchmark, EvalGate, HeldOutSource
from nativealign_workloads.align.asking import (
    add_late_usage,
    answers_prefix,
    clear_answers,
    open_endpoint,
    open_journal,
    unless_overtaken,
)
from nativealign_workloads.align.sampling import draw
from nativealign_workloads.commit import Json, ShardCommit, commit_step, manifest, read_json, record_rows, shard_records, step_rows
from nativealign_workloads.context import Context
from nativealign_workloads.engines.billing import usage
from nativealign_workloads.engines.counted import billed_by
from nativealign_workloads.engines.journal import Journal
from nativealign_workloads.evaluate.benchmarks import BenchmarkRequest
from nativealign_workloads.evaluate.pinned import bring
from nativealign_workloads.evaluate.run import evaluate_model, read_rows
from nativealign_workloads.sources import model_folder

ROLES = ("model", "baseline")
BITS = "bits-per-byte"
HELD_OUT_SEED = 0
"""Seed of the draw where the held-out set is larger than asked for."""


def evaluate(context: Context) -> Json:
    """Phase `evaluate`: one model."""
    shard = ShardCommit(context)
    return unless_overtaken(shard, partial(_evaluate, shard))


def _evaluate(shard: ShardCommit) -> Json:
    context = shard.context
    benchmarks = context.job.read("benchmarks", list[Benchmark]) or []
    requests, data = bring(context, benchmarks, _pinned_files(context)) if benchmarks else ([], context.scratch)
    model = model_folder(context, ROLES[context.index])
    journal = open_journal(context, "judge")
    rows = _answer(context, model, requests, data, journal)
    for name, path in rows.items():
        part = shard.part(name)
        for row in read_rows(path):
            part.add(row)
    counts = {name: shard.part(name).rows for name in rows}
    if "heldOut" in context.job.inputs:
        counts[BITS] = _held_out(context, shard, model)
    shard.commit(items=counts, **billed_by(journal))
    clear_answers(context)
    return {"counts": counts}


def _pinned_files(context: Context) -> Json:
    return read_json(context.store, f"{context.job.inputs['data']}/listing.json")


def _answer(context: Context, model: Path, requests: list[BenchmarkRequest], data: Path, journal: Journal) -> dict[str, Path]:
    """Per-item rows of each benchmark; what an earlier attempt finished is adopted, what is finished now is kept for the next."""
    if not requests:
        return {}
    answers = context.scratch / "answers"
    answers.mkdir()
    kept = f"{answers_prefix(context)}/benchmarks"
    for info in context.store.list(f"{kept}/"):
        context.store.download(info.key, answers / Path(info.key).name)
    engine = context.job.require("engine", TransformersEngine)
    return evaluate_model(
        model,
        requests,
        data,
        answers,
        batch_size=engine.batch_size,
        device=context.device,
        precision=engine.precision,
        judge=_judge(context, journal),
        on_progress=partial(_on_progress, context, answers, kept),
    )


def _on_progress(context: Context, answers: Path, kept: str, name: str, done: int, total: int) -> None:
    """Shows how far a benchmark is; keeps its rows for the next attempt as soon as they are complete."""
    context.check_stop()
    context.progress.begin(total, f"items of {name}", done)
    path = answers / f"{name}.jsonl"
    if done == total and path.is_file():
        _keep(context, kept, path)


def _keep(context: Context, prefix: str, path: Path) -> None:
    context.store.try_create(f"{prefix}/{path.name}", path.read_bytes())


def _judge(context: Context, journal: Journal) -> Any:
    spec = context.job.read("judge", Judge)
    if spec is None:
        return None
    from nativealign_workloads.evaluate.judging import judge_with

    return partial(judge_with, open_endpoint(context, spec, "judge", journal), spec.structured_outputs)


def _held_out(context: Context, shard: ShardCommit, model: Path) -> int:
    from nativealign_workloads.evaluate.bits_per_byte import bits_per_byte

    limit = context.job.require("heldOut", HeldOutSource).documents
    engine = context.job.require("engine", TransformersEngine)
    rows = draw(step_rows(context.store, context.job.inputs["heldOut"], "held-out"), limit, HELD_OUT_SEED)
    texts = ((row["id"], row["text"]) for row in rows)
    part = shard.part(BITS)
    for row in bits_per_byte(model, texts, batch_size=engine.batch_size, device=context.device, precision=engine.precision):
        context.check_stop()
        part.add(row)
    return part.rows


def commit_evaluate(context: Context) -> Json:
    """Phase `commit` of evaluate."""
    models = sum(name in context.job.inputs for name in ROLES)
    records = shard_records(context, "evaluate", models)
    add_late_usage(context, "evaluate", records)
    items, spent = records[0]["facts"]["items"], usage(record["facts"]["usage"] for record in records)
    return commit_step(context, records, {"counts": items, "usage": spent}, items=items)


def report(context: Context) -> Json:
    """Phase `report`: from per-item rows to scores and a verdict; no model is loaded."""
    from nativealign_workloads.evaluate.compare import compare

    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    answered = manifest(context.store, context.job.inputs["evaluate"])["shards"]
    rows = [_rows(context, record) for record in answered]
    facts: Json = {"scores": _scores(rows[0])}
    gate = context.job.read("gate", EvalGate)
    if len(rows) > 1:
        names = [name for name in rows[0] if name != BITS]
        limits = gate.non_inferior if gate else None
        margin: Json = {"margin_points": limits.margin_points, "confidence": limits.confidence} if limits else {}
        sides = [{name: side[name] for name in names} for side in rows]
        facts |= {"baseline": _scores(rows[1]), "comparison": compare(*sides, **margin)}
    shard.commit(**facts)
    return _headline(facts)


def _rows(context: Context, record: Json) -> dict[str, list[Json]]:
    names = [name.removesuffix(".jsonl.zst") for name in record["parts"]]
    return {name: list(record_rows(context.store, record, name)) for name in names}


def _scores(rows: dict[str, list[Json]]) -> Json:
    from nativealign_workloads.evaluate.scores import bits_per_byte_score, score_benchmarks

    scored: Json = score_benchmarks({name: found for name, found in rows.items() if name != BITS})["benchmarks"]
    return scored | ({BITS: bits_per_byte_score(rows[BITS])} if BITS in rows else {})


def _headline(facts: Json) -> Json:
    from nativealign_workloads.evaluate.compare import failed_gates

    metrics = {name: score["score"] for name, score in facts["scores"].items() if score["score"] is not None}
    comparison = facts.get("comparison", {})
    verdict = comparison.get("gate")
    return {"metrics": metrics} | ({"gate": verdict, "failedGates": failed_gates(comparison)} if verdict else {})


def commit_report(context: Context) -> Json:
    """Phase `commit` of report."""
    records = shard_records(context, "report", 1)
    facts = records[0]["facts"]
    return commit_step(context, records, _headline(facts), **facts)
