"""assess: what the rewriting did to a sample of documents, before and after, and whether the gates hold.

measure  one pod: sample; preservation and length; perplexity, toxicity and judge where the spec gives a model
commit   the gates, and the manifest that the report reads
"""

import heapq
import re
from collections.abc import Iterator
from statistics import fmean

import numpy as np
import xxhash

from nativealign_api.align import AlignGates, Assess
from nativealign_workloads.align.chunks import kept_answers, open_endpoint, pinned_conduct
from nativealign_workloads.commit import Json, ShardCommit, commit_step, manifest, shard_records, step_rows
from nativealign_workloads.conduct import Conduct
from nativealign_workloads.conduct.prompt import ASPECTS, judge_messages, parse_scores
from nativealign_workloads.context import Context
from nativealign_workloads.engines import Request
from nativealign_workloads.engines.billing import billed, usage
from nativealign_workloads.guards.measures import length_ratio, lost_share, numbers, without_declared
from nativealign_workloads.intervals import bootstrap, percentile_interval
from nativealign_workloads.sources import model_folder

SHOWN = 24
"""Before/after samples in the report."""

SHOWN_CHARACTERS = 1500
"""Length at which a shown sample is cut."""

JUDGE_TOKENS = 128
JUDGE_SLICE = 32
"""Requests to a judge after which its answers are durable."""


def measure(context: Context) -> Json:
    """Phase `measure`."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    settings = context.job.require("assess", Assess)
    rows = draw(_rows(context), settings.documents, settings.seed)
    context.progress.begin(len(rows), "documents")
    conduct, _ = pinned_conduct(context)
    measures: dict[str, list[float]] = preservation(rows, conduct)
    if settings.perplexity_model:
        measures |= _perplexity(context, rows)
    if settings.toxicity_model:
        measures |= _toxicity(context, rows, settings.toxicity_model.toxic_labels)
    spent = usage([])
    if settings.judge:
        judged, spent = _judge(context, conduct, rows, settings)
        measures |= judged
    for number, row in enumerate(rows):
        values = {name: values[number] for name, values in measures.items()}
        shard.part("measures").add({"id": row["id"], **values})
    context.progress.advance(len(rows))
    summaries = {name: summarize(values, settings.seed) for name, values in measures.items()}
    facts: Json = {"documents": len(rows), "measures": summaries, "numbersKeptOfAll": kept_of_all(rows, conduct), "usage": spent}
    shard.commit(**facts, samples=shown(rows))
    kept_answers(context).clear()
    return {"metrics": {name: value["mean"] for name, value in summaries.items() if value["mean"] is not None}}


def _rows(context: Context) -> Iterator[Json]:
    for row in step_rows(context.store, context.job.inputs["rewrite"], "documents"):
        context.check_stop()
        yield row


def draw(rows: Iterator[Json], count: int, seed: int) -> list[Json]:
    """A sample that depends on ids and seed alone, ascending by id. Memory: `count` rows."""
    ranked = ((xxhash.xxh3_64_intdigest(row["id"], seed), row["id"], row) for row in rows)
    return [row for _, _, row in sorted(heapq.nsmallest(count, ranked, key=lambda item: item[:2]), key=lambda item: item[1])]


def preservation(rows: list[Json], conduct: Conduct) -> dict[str, list[float]]:
    """For each document: share of its numbers kept (nan where it has none), letters after over before, 1 if anything changed.

    Numbers that the code of conduct declares as removed (masked phone numbers, advertisements) do not count.
    """
    sides = [(numbers(without_declared(conduct, row["origin"])), numbers(row["rewritten"])) for row in rows]
    return {
        "numbersKept": [1 - lost_share(before, after) if before else float("nan") for before, after in sides],
        "lengthRatio": [length_ratio(row["origin"], row["rewritten"]) for row in rows],
        "changed": [float(row["origin"] != row["rewritten"]) for row in rows],
    }


def kept_of_all(rows: list[Json], conduct: Conduct) -> float | None:
    """Share of all numbers of the originals that the rewritings keep; None where there is no number."""
    sides = [(numbers(without_declared(conduct, row["origin"])), numbers(row["rewritten"])) for row in rows]
    every = sum(len(before) for before, _ in sides)
    lost = sum(lost_share(before, after) * len(before) for before, after in sides)
    return 1 - lost / every if every else None


def _perplexity(context: Context, rows: list[Json]) -> dict[str, list[float]]:
    from nativealign_workloads.align.perplexity import perplexities

    folder = model_folder(context, "assess.perplexityModel")
    sides = {"Before": "origin", "After": "rewritten"}
    return {
        f"perplexity{side}": [value for _, value in perplexities(folder, ((row["id"], row[name]) for row in rows), context.device)]
        for side, name in sides.items()
    }


def _toxicity(context: Context, rows: list[Json], labels: list[str]) -> dict[str, list[float]]:
    from nativealign_workloads.align.toxicity import Classifier

    classifier = Classifier(model_folder(context, "assess.toxicityModel"), labels, context.device)
    return {
        "toxicityBefore": classifier.score([row["origin"] for row in rows]),
        "toxicityAfter": classifier.score([row["rewritten"] for row in rows]),
    }


def _judge(context: Context, conduct: Conduct, rows: list[Json], settings: Assess) -> tuple[dict[str, list[float]], Json]:
    """Scores 1 to 10 of the five aspects, nan where the judge gave no usable answer; and what it bills."""
    assert settings.judge
    engine = open_endpoint(context, settings.judge, "judge", {}, JUDGE_SLICE)
    asked = [Request(row["id"], judge_messages(conduct, row["origin"], row["rewritten"]), "", JUDGE_TOKENS) for row in rows]
    replies = engine.generate(asked)
    answers = [parse_scores(reply.text) or {} for reply in replies]
    scores = {
        f"judge{aspect[0].upper()}{aspect[1:]}": [float(found.get(aspect, np.nan)) for found in answers] for aspect in ASPECTS
    }
    return scores, usage(map(billed, replies))


def summarize(values: list[float], seed: int) -> Json:
    """Mean with a 95 % bootstrap interval, quartiles, and a histogram of 20 bins; values that are missing are counted."""
    present = np.array([value for value in values if not np.isnan(value)])
    if not len(present):
        return {"count": 0, "missing": len(values), "mean": None}
    draws = bootstrap(present[:, np.newaxis], lambda sums: sums[:, 0] / len(present), seed)
    low, high = percentile_interval(draws)
    counts, edges = np.histogram(present, bins=20)
    return {
        "count": len(present),
        "missing": len(values) - len(present),
        "mean": fmean(present.tolist()),
        "low": low,
        "high": high,
        "quartiles": [float(value) for value in np.percentile(present, [25, 50, 75])],
        "histogram": {"counts": counts.tolist(), "edges": [float(edge) for edge in edges]},
    }


def shown(rows: list[Json]) -> list[Json]:
    """Samples for the report: changed texts first, then texts of which a guard kept the original, then unchanged ones, by id."""
    changed = [row for row in rows if row["origin"] != row["rewritten"]]
    same = [row for row in rows if row["origin"] == row["rewritten"]]
    rejected = [row for row in same if any(chunk["guards"] for chunk in row["chunks"])]
    others = [row for row in same if row not in rejected]
    third = SHOWN // 3
    chosen = [*changed[: SHOWN - min(third, len(rejected)) - min(2, len(others))], *rejected[:third], *others[:third]]
    return [_shown(row) for row in chosen[:SHOWN]]


def _shown(row: Json) -> Json:
    states = [chunk["state"] for chunk in row["chunks"]]
    guards = sorted({f"{guard['guard']} ({guard['action']})" for chunk in row["chunks"] for guard in chunk["guards"]})
    texts = {name: _cut(row[name]) for name in ("origin", "rewritten")}
    return {"id": row["id"], "corpus": row["corpus"], "key": row["key"], "states": states, "guards": guards, **texts}


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else re.sub(r"\s+\S*$", "", text[:SHOWN_CHARACTERS]) + " …"


def gates(settings: AlignGates, chunks: dict[str, int], kept: float | None) -> list[Json]:
    """The verdict on each gate that the spec sets: name, value, limit, passed.

    `kept`: share of all numbers of the sample that the rewriting keeps; None where it has none, and then nothing is lost.
    """
    total = max(1, sum(chunks.values()))
    facts = (
        ("maxFallbackPercent", settings.max_fallback_percent, 100 * chunks.get("Original", 0) / total, 1),
        ("maxDroppedPercent", settings.max_dropped_percent, 100 * chunks.get("Dropped", 0) / total, 1),
        ("minNumberPreservationPercent", settings.min_number_preservation_percent, 100 * (1.0 if kept is None else kept), -1),
    )
    return [
        {"gate": name, "value": value, "limit": limit, "passed": sign * value <= sign * limit}
        for name, limit, value, sign in facts
        if limit is not None
    ]


def commit(context: Context) -> Json:
    """Phase `commit`."""
    records = shard_records(context, "measure", 1)
    facts = records[0]["facts"]
    rewritten = manifest(context.store, context.job.inputs["rewrite"])["facts"]
    verdicts = gates(context.job.read("gates", AlignGates) or AlignGates(), rewritten["chunks"], facts["numbersKeptOfAll"])
    failed = [verdict["gate"] for verdict in verdicts if not verdict["passed"]]
    metrics = {name: value["mean"] for name, value in facts["measures"].items() if value["mean"] is not None}
    verdict = {"gate": "Fail" if failed else "Pass", "failedGates": failed} if verdicts else {}
    return commit_step(context, records, {"metrics": metrics, "usage": facts["usage"]} | verdict, **facts, gates=verdicts)
