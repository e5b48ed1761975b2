"""assess: what the rewriting did to a sample of documents, before and after, and whether the gates hold.

draw     each shard: of its documents those that may be in the sample, by rank
measure  one pod: sample; preservation and length; perplexity, toxicity and judge where the spec gives a model
commit   the gates, and the manifest that the report reads
"""

import math
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from operator import itemgetter
from statistics import fmean

import numpy as np

from nativealign_api.align import AlignGates, Assess
from nativealign_api.plan import step_shards
from nativealign_workloads.align.asking import add_late_usage, clear_answers, open_endpoint, open_journal, unless_overtaken
from nativealign_workloads.align.chunks import pinned_conduct
from nativealign_workloads.align.sampling import Drawn, random_rank, smallest
from nativealign_workloads.align.shown import shown
from nativealign_workloads.align.statistics import Values, agreement, effect, share, summarize
from nativealign_workloads.commit import Json, ShardCommit, commit_step, manifest, record_rows, shard_records
from nativealign_workloads.conduct import Conduct
from nativealign_workloads.conduct.prompt import ASPECTS, ORDERS, Order, judge_messages, parse_scores, scores_schema
from nativealign_workloads.context import Context
from nativealign_workloads.documents import documents_left
from nativealign_workloads.engines import Request
from nativealign_workloads.engines.billing import usage
from nativealign_workloads.engines.counted import billed_by
from nativealign_workloads.guards.measures import length_ratio, lost_share, names_found, numbers, without_declared
from nativealign_workloads.sources import model_folder

SAMPLE = "sample"
"""Part with the documents that a shard has drawn."""
SHOWN = 24
"""Before/after samples in the report."""

JUDGE_TOKENS = 128

SIDES = {"Before": "origin", "After": "rewritten"}
"""A measure's suffix, and the field of the text."""

Kept = tuple[int, int]
"""How many of a document's items are kept, and how many there are."""


def draw(context: Context) -> Json:
    """Phase `draw`: of a run of the rewritten documents those that may be in the sample."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    settings = context.job.require("assess", Assess)
    drawn = Drawn(settings.documents)
    for row in documents_left(context, "rewrite"):
        context.check_stop()
        drawn.add(SAMPLE, row | {"rank": random_rank(row["id"], settings.seed)})
        context.progress.advance()
    for row in drawn.strata().get(SAMPLE, []):
        shard.part(SAMPLE).add(row)
    shard.commit()
    return {}


def _sample(context: Context, count: int) -> list[Json]:
    """The documents that are measured, ascending by id."""
    records = shard_records(context, "draw", step_shards("assess", context.job.pinned))
    return sorted(smallest((record_rows(context.store, record, SAMPLE) for record in records), count), key=itemgetter("id"))


def measure(context: Context) -> Json:
    """Phase `measure`."""
    shard = ShardCommit(context)
    return unless_overtaken(shard, partial(_measure, shard))


def _measure(shard: ShardCommit) -> Json:
    context = shard.context
    settings = context.job.require("assess", Assess)
    rows = _sample(context, settings.documents)
    models = [settings.perplexity_model, settings.toxicity_model, settings.judge]
    context.progress.begin(len(rows) * (1 + sum(model is not None for model in models)), "documents measured")
    conduct, _ = pinned_conduct(context)
    kept = kept_items(rows, conduct)
    measures: dict[str, list[float]] = preservation(rows, kept)
    context.progress.advance(len(rows))
    if settings.perplexity_model:
        measures |= _perplexity(context, rows)
        context.progress.advance(len(rows))
    if settings.toxicity_model:
        measures |= _toxicity(context, rows, settings.toxicity_model.toxic_labels)
        context.progress.advance(len(rows))
    bill, agreements = {"usage": usage([])}, Json()
    if settings.judge:
        judged, bill = _judge(context, conduct, rows, settings)
        context.progress.advance(len(rows))
        measures |= {judge_measure(aspect): mean_of_orders(*orders) for aspect, orders in judged.items()}
        agreements = {judge_measure(aspect): agreement(*orders, settings.seed) for aspect, orders in judged.items()}
    for number, row in enumerate(rows):
        values = {name: values[number] for name, values in measures.items()}
        shard.part("measures").add({"id": row["id"], **values})
    facts: Json = {
        "documents": len(rows),
        "measures": {name: summarize(values, settings.seed) for name, values in measures.items()},
        "effects": effects(measures, settings.seed),
        "agreement": agreements,
        "keptOfAll": {name: share(items, settings.seed) for name, items in kept.items()},
        "judgeScore": summarize(judge_scores(measures), settings.seed) if settings.judge else None,
        **bill,
    }
    shard.commit(**facts, samples=samples(rows))
    clear_answers(context)
    return {"metrics": means(facts["measures"])}


def means(measures: Json) -> dict[str, float]:
    """The means of the measures that have one."""
    return {name: value["mean"] for name, value in measures.items() if value["mean"] is not None}


def effects(measures: dict[str, list[float]], seed: int) -> dict[str, Json | None]:
    """What rewriting did to toxicity and to the logarithm of perplexity, of which a few documents have enormous values."""
    found: dict[str, Json | None] = {}
    for name, scale in (("perplexity", math.log), ("toxicity", float)):
        if f"{name}Before" in measures:
            before, after = (list(map(scale, measures[f"{name}{side}"])) for side in ("Before", "After"))
            found[name] = effect(before, after, seed)
    return found


def judge_measure(aspect: str) -> str:
    return f"judge{aspect[0].upper()}{aspect[1:]}"


def preservation(rows: list[Json], kept: dict[str, list[Kept]]) -> dict[str, list[float]]:
    """For each document: shares of its numbers and of its names that are kept (nan where it has none), letters after over before,
    1 if anything changed.
    """
    shares = {name: [found / known if known else float("nan") for found, known in items] for name, items in kept.items()}
    return {
        "numbersKept": shares["numbers"],
        "namesKept": shares["names"],
        "lengthRatio": [length_ratio(row["origin"], row["rewritten"]) for row in rows],
        "changed": [float(row["origin"] != row["rewritten"]) for row in rows],
    }


def kept_items(rows: list[Json], conduct: Conduct) -> dict[str, list[Kept]]:
    """Of each document's numbers, and of its names (places, persons, in Latin letters), how many its rewriting has.

    What the code of conduct declares as removed (masked phone numbers, advertisements) does not count.
    """
    sides = [(without_declared(conduct, row["origin"]), row["rewritten"]) for row in rows]
    found = [names_found(before, after) for before, after in sides]
    return {
        "numbers": [_kept_numbers(numbers(before), numbers(after)) for before, after in sides],
        "names": [(sum(each), len(each)) for each in found],
    }


def _kept_numbers(before: list[str], after: list[str]) -> Kept:
    return len(before) - round(lost_share(before, after) * len(before)), len(before)


def _texts(context: Context, rows: list[Json], side: str) -> Iterator[tuple[str, str]]:
    for row in rows:
        context.check_stop()
        yield row["id"], row[side]


def _perplexity(context: Context, rows: list[Json]) -> dict[str, list[float]]:
    from nativealign_workloads.align.perplexity import perplexities

    folder = model_folder(context, "assess.perplexityModel")
    return {
        f"perplexity{side}": [value for _, value in perplexities(folder, _texts(context, rows, name), context.device)]
        for side, name in SIDES.items()
    }


def _toxicity(context: Context, rows: list[Json], labels: list[str]) -> dict[str, list[float]]:
    from nativealign_workloads.align.toxicity import Classifier

    classifier = Classifier(model_folder(context, "assess.toxicityModel"), labels, context.device)
    return {f"toxicity{side}": classifier.score(text for _, text in _texts(context, rows, name)) for side, name in SIDES.items()}


def _judge(context: Context, conduct: Conduct, rows: list[Json], settings: Assess) -> tuple[dict[str, tuple[Values, Values]], Json]:
    """Scores by the judge, (those with the original shown first, those with the rewriting first) of each aspect, nan where it gave
    no usable answer; and what it bills, as facts."""
    assert settings.judge
    journal = open_journal(context, "judge")
    schema = scores_schema() if settings.judge.structured_outputs else None
    asked = [_question(conduct, row, order, schema) for row in rows for order in ORDERS]
    with closing(open_endpoint(context, settings.judge, "judge", journal)) as engine:
        answers = [parse_scores(reply.text) or {} for reply in engine.generate(asked)]
    scores = {aspect: [float(found.get(aspect, np.nan)) for found in answers] for aspect in ASPECTS}
    return {aspect: (values[::2], values[1::2]) for aspect, values in scores.items()}, billed_by(journal)


def _question(conduct: Conduct, row: Json, order: Order, schema: Json | None) -> Request:
    messages = judge_messages(conduct, row["origin"], row["rewritten"], order)
    return Request(f"{row['id']}:{order}", messages, "", JUDGE_TOKENS, schema=schema)


def mean_of_orders(first: list[float], second: list[float]) -> list[float]:
    """The score of each document: the mean of both orders, or the one that there is."""
    pairs = ([value for value in pair if not np.isnan(value)] for pair in zip(first, second, strict=True))
    return [fmean(pair) if pair else float("nan") for pair in pairs]


def judge_scores(measures: dict[str, list[float]]) -> list[float]:
    """The mean over the aspects for each document; nan where the judge gave no usable answer."""
    return [fmean(scores) for scores in zip(*(measures[judge_measure(aspect)] for aspect in ASPECTS), strict=True)]


def samples(rows: list[Json]) -> list[Json]:
    """Samples for the report: changed texts first, then texts of which a guard kept the original, then unchanged ones, by id."""
    changed = [row for row in rows if row["origin"] != row["rewritten"]]
    same = [row for row in rows if row["origin"] == row["rewritten"]]
    rejected = [row for row in same if any(chunk["guards"] for chunk in row["chunks"])]
    others = [row for row in same if row not in rejected]
    third = SHOWN // 3
    chosen = [*changed[: SHOWN - min(third, len(rejected)) - min(2, len(others))], *rejected[:third], *others[:third]]
    return [_shown_row(row) for row in chosen[:SHOWN]]


def _shown_row(row: Json) -> Json:
    states = [chunk["state"] for chunk in row["chunks"]]
    guards = sorted({f"{guard['guard']} ({guard['action']})" for chunk in row["chunks"] for guard in chunk["guards"]})
    texts = {name: shown(row[name]) for name in ("origin", "rewritten")}
    return {"id": row["id"], "corpus": row["corpus"], "key": row["key"], "states": states, "guards": guards, **texts}


def gates(settings: AlignGates, chunks: dict[str, int], facts: Json) -> list[Json]:
    """The verdict on each gate that the spec sets: name, value, limit, passed; the interval of what a sample tells.

    `chunks` by what became of them, `facts` of the sample. Where there was no number or no name, none was lost. A measure without
    any usable value (None) passes no gate.
    """
    total = max(1, sum(chunks.values()))
    kept = {name: _estimate(found or {"mean": 1.0}, 100) for name, found in facts["keptOfAll"].items()}
    found = (
        ("maxFallbackPercent", settings.max_fallback_percent, {"value": 100 * chunks.get("Original", 0) / total}, 1),
        ("maxDroppedPercent", settings.max_dropped_percent, {"value": 100 * chunks.get("Dropped", 0) / total}, 1),
        ("minNumberPreservationPercent", settings.min_number_preservation_percent, kept["numbers"], -1),
        ("minNamePreservationPercent", settings.min_name_preservation_percent, kept["names"], -1),
        ("maxToxicityPercent", settings.max_toxicity_percent, _estimate(facts["measures"].get("toxicityAfter"), 100), 1),
        ("minJudgeScore", settings.min_judge_score, _estimate(facts["judgeScore"]), -1),
    )
    return [
        {"gate": name, **estimate, "limit": limit, "passed": _passes(sign, estimate["value"], limit)}
        for name, limit, estimate, sign in found
        if limit is not None
    ]


def _estimate(found: Json | None, scale: float = 1.0) -> Json:
    """The value of a measure, and its interval where it has one."""
    if not found or found["mean"] is None:
        return {"value": None}
    return {"value": scale * found["mean"]} | {side: scale * found[side] for side in ("low", "high") if side in found}


def _passes(sign: int, value: float | None, limit: float) -> bool:
    return value is not None and sign * value <= sign * limit


def _told(verdict: Json) -> str:
    """A gate for people: `maxFallbackPercent 12.5 (limit 5)`."""
    value = "not measured" if verdict["value"] is None else f"{verdict['value']:.4g}"
    return f"{verdict['gate']} {value} (limit {verdict['limit']:g})"


def commit(context: Context) -> Json:
    """Phase `commit`."""
    records = shard_records(context, "measure", 1)
    add_late_usage(context, "measure", records)
    facts = records[0]["facts"]
    rewritten = manifest(context.store, context.job.inputs["rewrite"])["facts"]
    verdicts = gates(context.job.read("gates", AlignGates) or AlignGates(), rewritten["chunks"], facts)
    failed = [_told(verdict) for verdict in verdicts if not verdict["passed"]]
    verdict = {"gate": "Fail" if failed else "Pass", "failedGates": failed} if verdicts else {}
    return commit_step(
        context, records, {"metrics": means(facts["measures"]), "usage": facts["usage"]} | verdict, **facts, gates=verdicts
    )
