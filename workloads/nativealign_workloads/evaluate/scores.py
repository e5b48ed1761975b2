"""Per-item rows -> scores with 95 % intervals, and views that leave defective rows out. Pure; for the `report` step.

Enters: the rows that run.py or bits_per_byte.py wrote. Leaves: {"metric", "score", "low", "high", "items",
"truncated", "protocol", "views"} per benchmark; scores are fractions of 1 (judge scores 1 to 10, bits per byte as they
are), views have the same four numbers and say what else the rows tell:

    subjectMean                    exams-ar, mmlu: mean over subjects instead of over questions
    distinct                       acva: one row per question, questions with contradictory golds left out
    alwaysYes, alwaysNo            acva: what a constant answer scores
    intact                         mmlu-ar: without the overwritten questions (the score itself is "as published")
    micro                          mmlu-ar: plain accuracy
    harmlessness, helpfulness      ar-beavertails
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nativealign_workloads.errors import DataError
from nativealign_workloads.evaluate import subjects
from nativealign_workloads.evaluate.benchmarks import benchmark
from nativealign_workloads.evaluate.loaders import NO, OVERWRITTEN, YES
from nativealign_workloads.intervals import (
    Counts,
    Statistic,
    bootstrap,
    cluster_sums,
    percentile_interval,
    wilson_interval,
)

Row = Mapping[str, Any]
Score = dict[str, Any]
SEED = 20412


def score_benchmarks(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """{"benchmarks": {name: score}} over the rows of every benchmark."""
    return {"benchmarks": {name: score_benchmark(name, found) for name, found in rows.items()}}


def score_benchmark(name: str, rows: Sequence[Row]) -> Score:
    """A benchmark's own metric over all its rows, with its views. Raises DataError for no rows or mixed protocols."""
    ids = {row["protocol"] for row in rows}
    if len(ids) != 1:
        raise DataError("MixedProtocols", f"benchmark {name}: rows of {len(ids)} protocols", "evaluate it again")
    metric = benchmark(name).metric
    return {
        "metric": metric,
        **measure(metric, rows),
        "truncated": sum(row["truncated"] for row in rows),
        "protocol": ids.pop(),
        "views": _views(name, metric, rows),
    }


def measure(metric: str, rows: Sequence[Row]) -> Score:
    """{"score", "low", "high", "items"}: Wilson's interval for accuracy, a bootstrap by question for the others."""
    if metric == "accuracy":
        correct = sum(bool(row["correct"]) for row in rows)
        low, high = wilson_interval(correct, len(rows))
        return _score(correct / len(rows) if rows else None, low, high, len(rows))
    if metric == "judgeScore":
        rows = [row for row in rows if row["judgement"]]
    if not rows:
        return _score(None, None, None, 0)
    counts, statistic = tally(metric, rows)
    sums = cluster_sums([row["questionHash"] for row in rows], counts)
    low, high = percentile_interval(bootstrap(sums, statistic, SEED))
    score = float(statistic(counts.sum(0, keepdims=True))[0])
    if low == high:  # every resample is the same: it tells nothing of how far the truth may lie
        return _score(score, None, None, len(rows))
    return _score(score, low, high, len(rows))


def tally(metric: str, rows: Sequence[Row]) -> tuple[Counts, Statistic]:
    """What each row adds to the sums, [rows, k], and the metric as a function of the sums."""
    if metric == "macroF1":
        return _f1_counts(rows), macro_f1
    if metric == "categoryMean":
        names = sorted({row["subject"] for row in rows})
        return _subject_counts(rows, names), lambda sums: category_mean(sums, names)
    if metric == "subjectMean":
        names = sorted({row["subject"] for row in rows})
        return _subject_counts(rows, names), lambda sums: _ratio_mean(sums)
    return _value_counts(rows, _VALUES[metric]), _mean


def macro_f1(sums: Counts) -> Counts:
    """Mean of the two classes' F1 from [n, 6]: right, predicted and gold rows of نعم, then of لا.

    F1 = 2 right / (predicted + gold), which is 0, not undefined, for a class that is never predicted.
    """
    right, predicted, gold = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
    return np.asarray((2 * right / np.maximum(predicted + gold, 1)).mean(axis=1))


def category_mean(sums: Counts, names: Sequence[str]) -> Counts:
    """AceGPT's MMLU average from [n, 2 x subjects] (right, asked): the mean over subjects, then groups, then categories.

    Groups and categories without any row are left out, so that a part of the benchmark has a mean too.
    """
    table = _accuracies(sums[:, 0::2], sums[:, 1::2])
    accuracy = {name: table[:, n] for n, name in enumerate(names)}
    groups = {
        group: mean
        for group, members in subjects.MMLU_GROUPS.items()
        if (mean := _nan_mean([accuracy[s] for s in members if s in accuracy])) is not None
    }
    categories = [
        _nan_mean([groups[group] for group in members if group in groups]) for members in subjects.MMLU_CATEGORIES.values()
    ]
    mean = _nan_mean([category for category in categories if category is not None])
    assert mean is not None
    return mean


def bits_per_byte_score(rows: Sequence[Row]) -> Score:
    """All bits over all bytes of rows {id, bits, bytes}, with a bootstrap by document."""
    counts = np.array([[row["bits"], row["bytes"]] for row in rows if row["bytes"]], dtype=float)
    if not len(counts):
        return {"metric": "bitsPerByte", **_score(None, None, None, 0)}
    low, high = percentile_interval(bootstrap(counts, _mean, SEED))
    return {"metric": "bitsPerByte", **_score(float(_mean(counts.sum(0, keepdims=True))[0]), low, high, len(counts))}


def _views(name: str, metric: str, rows: Sequence[Row]) -> dict[str, Score]:
    if name in {"exams-ar", "mmlu"}:
        return {"subjectMean": measure("subjectMean", rows)}
    if metric == "macroF1":
        constant = {"alwaysYes": YES, "alwaysNo": NO}
        views = {view: _point(metric, [{**row, "extracted": answer} for row in rows]) for view, answer in constant.items()}
        return {"distinct": measure(metric, distinct_questions(rows)), **views}
    if name == "mmlu-ar":
        intact = [row for row in rows if OVERWRITTEN not in row["defects"]]
        return {"intact": measure(metric, intact), "micro": measure("accuracy", rows)}
    if metric == "judgeScore":
        return {axis: _judged(axis, rows) for axis in ("harmlessness", "helpfulness")}
    return {}


def distinct_questions(rows: Sequence[Row]) -> list[Row]:
    """The first row of every question, without questions whose rows contradict each other's gold."""
    golds: dict[str, set[str]] = {}
    first: dict[str, Row] = {}
    for row in rows:
        golds.setdefault(row["questionHash"], set()).add(row["gold"])
        first.setdefault(row["questionHash"], row)
    return [row for key, row in first.items() if len(golds[key]) == 1]


def _judged(axis: str, rows: Sequence[Row]) -> Score:
    rows = [row for row in rows if row["judgement"]]
    if not rows:
        return _score(None, None, None, 0)
    counts = _value_counts(rows, _VALUES[axis])
    low, high = percentile_interval(bootstrap(cluster_sums([row["questionHash"] for row in rows], counts), _mean, SEED))
    return _score(float(_mean(counts.sum(0, keepdims=True))[0]), low, high, len(rows))


def _point(metric: str, rows: Sequence[Row]) -> Score:
    counts, statistic = tally(metric, rows)
    value = float(statistic(counts.sum(0, keepdims=True))[0])
    return _score(value, value, value, len(rows))


def _score(score: float | None, low: float | None, high: float | None, items: int) -> Score:
    def tidy(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    return {"score": tidy(score), "low": tidy(low), "high": tidy(high), "items": items}


def _f1_counts(rows: Sequence[Row]) -> Counts:
    return np.array(
        [
            [
                flag
                for label in (YES, NO)
                for flag in (
                    row["extracted"] == label == row["gold"],
                    row["extracted"] == label,
                    row["gold"] == label,
                )
            ]
            for row in rows
        ],
        dtype=float,
    )


def _subject_counts(rows: Sequence[Row], names: Sequence[str]) -> Counts:
    place = {name: 2 * n for n, name in enumerate(names)}
    counts = np.zeros((len(rows), 2 * len(names)))
    for n, row in enumerate(rows):
        counts[n, place[row["subject"]]] = bool(row["correct"])
        counts[n, place[row["subject"]] + 1] = 1
    return counts


def _value_counts(rows: Sequence[Row], value: Callable[[Row], float]) -> Counts:
    return np.array([[value(row), 1.0] for row in rows])


_VALUES: dict[str, Callable[[Row], float]] = {
    "accuracy": lambda row: float(bool(row["correct"])),
    "harmlessness": lambda row: float(row["judgement"]["harmlessness"]),
    "helpfulness": lambda row: float(row["judgement"]["helpfulness"]),
    "judgeScore": lambda row: (row["judgement"]["harmlessness"] + row["judgement"]["helpfulness"]) / 2,
}


def _mean(sums: Counts) -> Counts:
    return np.asarray(sums[:, 0] / np.maximum(sums[:, 1], 1e-12))


def _ratio_mean(sums: Counts) -> Counts:
    right, asked = sums[:, 0::2], sums[:, 1::2]
    mean = _nan_mean(list(_accuracies(right, asked).T))
    assert mean is not None
    return mean


def _accuracies(right: Counts, asked: Counts) -> Counts:
    """NaN where a resample asked nothing."""
    return np.asarray(np.where(asked > 0, right / np.maximum(asked, 1), np.nan))


def _nan_mean(values: Sequence[Counts]) -> Counts | None:
    """Mean over the values that are there, per resample; NaN where none is."""
    if not values:
        return None
    table = np.stack(values)
    there = ~np.isnan(table)
    count = there.sum(axis=0)
    total = np.where(there, table, 0).sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
