"""What an EvalJob's report shows. Pure."""

from typing import Any

from markupsafe import Markup

from nativealign_workloads.report import figures, text, wording
from nativealign_workloads.report.gather import Answers, Job
from nativealign_workloads.report.overview import Tile

Json = dict[str, Any]

FRACTIONS = ("accuracy", "macroF1", "categoryMean")
"""Metrics whose scores are fractions of 1, shown in points of a hundred."""

CONSTANTS = ("alwaysYes", "alwaysNo")
"""Views that a model without knowledge would reach."""

BITS = "bitsPerByte"


def view(job: Job) -> Json:
    facts = job.facts("report")
    scores = facts.get("scores", {})
    bits = [name for name, score in scores.items() if score["metric"] == BITS]
    return {
        "scores": [_score(job, name, score) for name, score in scores.items() if name not in bits],
        "forest": _forest(scores, facts.get("baseline", {})),
        "bits": [_bits(name, scores[name], facts.get("baseline", {}).get(name)) for name in bits],
        "bits_missing": "" if bits else "spec.heldOut is not set" if not job.spec.get("heldOut") else "the step has not run",
        "baseline": bool(job.spec.get("baseline")),
        "comparison": comparison(facts.get("comparison")),
        "answers": _examples(job),
    }


def gates(job: Job) -> list[Json]:
    verdict = job.facts("report").get("comparison", {}).get("gate")
    if not verdict:
        return []
    margin = ((job.spec.get("gate") or {}).get("nonInferior") or {}).get("marginPoints")
    told = "no benchmark worse than the baseline" + (f" by more than {wording.number(margin)} points" if margin is not None else "")
    return [{"name": "nonInferior", "text": f"{told}: {verdict}", "passed": verdict == "Pass", "verdict": verdict}]


def headlines(job: Job) -> list[Tile]:
    tiles: list[Tile] = []
    for name, score in job.facts("report").get("scores", {}).items():
        remark = METRIC_SHORT.get(score["metric"], score["metric"])
        tiles.append((name, shown(score["metric"], score["score"]), f"{remark}, {wording.count(score['items'])} items"))
    return tiles


METRIC_SHORT = wording.METRICS | {BITS: "lower is better", "judgeScore": "of 10"}


def shown(metric: str, value: float | None) -> str:
    """A score as people write it: points of a hundred for fractions."""
    return wording.points(value) if metric in FRACTIONS else wording.number(value)


def _score(job: Job, name: str, score: Json) -> Json:
    metric, views = score["metric"], score.get("views", {})
    answers = job.answers.get("model", {}).get(name, Answers())
    constant = max((views[v] for v in CONSTANTS if v in views), key=lambda v: v["score"], default=None)
    return {
        "name": name,
        "metric": wording.METRICS.get(metric, metric),
        "score": shown(metric, score["score"]),
        "interval": _interval(metric, score),
        "items": score["items"],
        "truncated": score.get("truncated"),
        "unusable": answers.unusable if answers.items else None,
        "constant": shown(metric, constant["score"]) if constant else None,
        "below": constant is not None and score["score"] is not None and score["score"] < constant["score"],
        "protocol": score.get("protocol"),
        "published": name == "mmlu-ar",
        "views": [
            {
                "words": wording.VIEWS.get(v, v),
                "score": shown(metric, s["score"]),
                "interval": "–" if v in CONSTANTS else _interval(metric, s),
                "items": s["items"],
            }
            for v, s in views.items()
        ],
    }


def _interval(metric: str, score: Json) -> str:
    if score["score"] is None:
        return "–"
    if score["low"] is None:
        return "not to be had: all answers are alike"
    return f"{shown(metric, score['low'])} to {shown(metric, score['high'])}"


def _bits(name: str, score: Json, baseline: Json | None) -> Json:
    told = [("model", score)] + ([("baseline", baseline)] if baseline else [])
    return {"name": name, "rows": [(who, s["score"], s["low"], s["high"], s["items"]) for who, s in told]}


def _forest(scores: Json, baseline: Json) -> Markup | None:
    intervals = []
    for name, score in scores.items():
        if score["metric"] not in FRACTIONS or score["low"] is None:
            continue
        constants = [(score["views"][v]["score"], wording.VIEWS[v]) for v in CONSTANTS if v in score.get("views", {})]
        intervals.append(figures.Interval(name, score["score"], score["low"], score["high"], "s1", max(constants, default=None)))
        other = baseline.get(name)
        if other and other["low"] is not None:
            intervals.append(figures.Interval("baseline", other["score"], other["low"], other["high"], "s3"))
    return figures.forest(intervals, "Scores in points of a hundred with 95 % intervals", (0.0, 1.0)) if intervals else None


def comparison(facts: Json | None) -> Json | None:
    """Paired differences with their verdicts."""
    if not facts:
        return None
    rows = [_difference(name, row) for name, row in facts["benchmarks"].items()]
    fractions = {name: row for name, row in facts["benchmarks"].items() if row["metric"] in FRACTIONS}
    return {"rows": rows, "gate": facts.get("gate"), "forest": _difference_forest(fractions)}


def _difference(name: str, row: Json) -> Json:
    metric, fraction = row["metric"], row["metric"] in FRACTIONS

    def signed(value: float) -> str:
        return wording.points(value, sign=True) if fraction else f"{value:+.2f}"

    return row | {
        "name": name,
        "score": shown(metric, row["score"]),
        "baseline": shown(metric, row["baseline"]),
        "difference": signed(row["difference"]),
        "bounds": f"{signed(row['low'])} to {signed(row['high'])}",
    }


def _difference_forest(rows: Json) -> Markup | None:
    if not rows:
        return None
    margins = sorted({row["marginPoints"] / 100 for row in rows.values() if row.get("marginPoints") is not None})
    reach = 1.1 * max([abs(row[side]) for row in rows.values() for side in ("low", "high")] + margins + [0.01])
    marks = [(0.0, "equal")] + [(-margin, f"−{100 * margin:g}") for margin in margins]
    tones = {"Pass": "s1", "Fail": "s6", "Inconclusive": "s4"}
    intervals = [
        figures.Interval(name, row["difference"], row["low"], row["high"], tones.get(row.get("verdict"), "s1"))
        for name, row in rows.items()
    ]
    return figures.forest(intervals, "Differences to the baseline in points, with one-sided bounds", (-reach, reach), marks)


def _examples(job: Job) -> list[Json]:
    """A few answers of each benchmark."""
    found = []
    for name, answers in job.answers.get("model", {}).items():
        rows = [_example(row) for row in answers.examples]
        if rows:
            found.append({"name": name, "items": answers.items, "rows": rows})
    return found


def _example(row: Json) -> Json:
    said = row.get("response")
    return {
        "id": row["itemId"],
        "subject": row.get("subject"),
        "gold": row["gold"],
        "extracted": row.get("extracted"),
        "correct": row.get("correct"),
        "response": said,
        "direction": text.direction(said or ""),
    }
