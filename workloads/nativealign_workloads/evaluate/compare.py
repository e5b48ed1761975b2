"""A model's rows against a baseline's -> paired differences and a gate. Pure; for the EvalJob's `report` step.

Rows are paired on (benchmark, itemId, promptHash): the same question asked with the same words. Pairing makes small
changes visible that two separate intervals would hide. The gate is a one-sided test of non-inferiority per
benchmark; all must pass, so no correction for their number is due there (intersection-union test). The p-values are
adjusted by Holm over the benchmarks.
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from statistics import NormalDist
from typing import Any

import numpy as np

from nativealign_workloads.errors import UsageError
from nativealign_workloads.evaluate.benchmarks import benchmark
from nativealign_workloads.evaluate.scores import SEED, Row, tally
from nativealign_workloads.intervals import (
    Counts,
    bootstrap,
    cluster_sums,
    holm,
    mcnemar_exact,
    tango_bounds,
)

_FEW_FLIPS = 10
_POWER = 0.8


class Verdict(StrEnum):
    PASS = "Pass"
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"


def compare(
    rows: Mapping[str, Sequence[Row]],
    baseline: Mapping[str, Sequence[Row]],
    *,
    margin_points: float | None = None,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """{"benchmarks": {name: comparison}, "gate": verdict or None} over the benchmarks that `rows` has.

    A comparison has items, score, baseline, difference, low, high (the one-sided bounds at `confidence`, each), wins,
    losses, pValue, adjustedPValue and, with a margin, verdict, marginPoints and itemsNeeded. Differences are fractions
    of 1 (judge scores in points of 10); the margin is in hundredths of the metric's range.
    Raises UsageError if the two sides did not answer the same questions.
    """
    results = {name: _compare_benchmark(name, rows[name], baseline.get(name, ()), confidence) for name in rows}
    tested = [name for name in results if results[name]["pValue"] is not None]
    for name, adjusted in zip(tested, holm([results[name]["pValue"] for name in tested]), strict=True):
        results[name]["adjustedPValue"] = adjusted
    if margin_points is None:
        return {"benchmarks": results, "gate": None}
    for name, result in results.items():
        margin = margin_points / 100 * _range(name)
        result |= {"marginPoints": margin_points, "verdict": verdict(result["low"], result["high"], margin)}
        result["itemsNeeded"] = _items_needed(result, margin, confidence)
    return {"benchmarks": results, "gate": worst([result["verdict"] for result in results.values()])}


def failed_gates(comparison: Mapping[str, Any]) -> list[str]:
    """Benchmarks that do not pass the gate, for people: `nonInferior of exams-ar Fail: -9.2 to -3.1 points (margin 2)`."""
    failed = {name: result for name, result in comparison["benchmarks"].items() if result["verdict"] != Verdict.PASS}
    return [
        f"nonInferior of {name} {result['verdict']}: {100 * result['low'] / _range(name):+.1f}"
        f" to {100 * result['high'] / _range(name):+.1f} points (margin {result['marginPoints']:g})"
        for name, result in failed.items()
    ]


def _range(name: str) -> int:
    """Of a benchmark's metric: a judge gives 1 to 10, all others are fractions of 1."""
    return 9 if benchmark(name).metric == "judgeScore" else 1


def verdict(low: float, high: float, margin: float) -> Verdict:
    """Pass: surely no worse than the baseline minus the margin. Fail: surely worse than that."""
    if low >= -margin:
        return Verdict.PASS
    return Verdict.FAIL if high < -margin else Verdict.INCONCLUSIVE


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    return next((v for v in (Verdict.FAIL, Verdict.INCONCLUSIVE) if v in verdicts), Verdict.PASS)


def pair(name: str, rows: Sequence[Row], baseline: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Pairs in the order of `rows`. Raises UsageError if items or prompts differ."""
    other = {row["itemId"]: row for row in baseline}
    only_here = [row["itemId"] for row in rows if row["itemId"] not in other]
    if only_here or len(other) != len(rows):
        raise UsageError(
            "ItemsDiffer",
            f"benchmark {name}: {len(rows)} items here, {len(other)} in the baseline"
            + (f", e.g. {only_here[0]!r} only here" if only_here else ""),
            "evaluate both on the same benchmark data",
        )
    pairs = [(row, other[row["itemId"]]) for row in rows]
    if changed := [a["itemId"] for a, b in pairs if a["promptHash"] != b["promptHash"] or a["protocol"] != b["protocol"]]:
        raise UsageError(
            "PromptsDiffer",
            f"benchmark {name}: {len(changed)} items were asked differently, e.g. {changed[0]!r}",
            "evaluate both with the same data, protocol and shots",
        )
    return pairs


def _compare_benchmark(name: str, rows: Sequence[Row], baseline: Sequence[Row], confidence: float) -> dict[str, Any]:
    metric = benchmark(name).metric
    pairs = pair(name, rows, baseline)
    if metric == "judgeScore":
        pairs = [(a, b) for a, b in pairs if a["judgement"] and b["judgement"]]
    if not pairs:
        raise UsageError("NothingToCompare", f"benchmark {name}: no pair of answers", "look at the judge's errors")
    wins = sum(bool(a["correct"]) and not b["correct"] for a, b in pairs)
    losses = sum(bool(b["correct"]) and not a["correct"] for a, b in pairs)
    judged = metric == "judgeScore"
    score, base, low, high = _difference(metric, pairs, confidence)
    if metric == "accuracy" or (not judged and wins + losses < _FEW_FLIPS):
        low, high = tango_bounds(wins, losses, len(pairs), confidence)
    return {
        "metric": metric,
        "items": len(pairs),
        "score": round(score, 6),
        "baseline": round(base, 6),
        "difference": round(score - base, 6),
        "low": round(low, 6),
        "high": round(high, 6),
        "confidence": confidence,
        "wins": None if judged else wins,
        "losses": None if judged else losses,
        "pValue": None if judged else mcnemar_exact(wins, losses),
    }


def _difference(metric: str, pairs: Sequence[tuple[Row, Row]], confidence: float) -> tuple[float, float, float, float]:
    """(score, baseline, low, high): both sides of a pair are resampled together, by question."""
    ours, statistic = tally(metric, [a for a, _ in pairs])
    theirs, _ = tally(metric, [b for _, b in pairs])
    width = ours.shape[1]
    sums = cluster_sums([a["questionHash"] for a, _ in pairs], np.hstack([ours, theirs]))

    def difference(totals: Counts) -> Counts:
        return statistic(totals[:, :width]) - statistic(totals[:, width:])

    low, high = np.quantile(bootstrap(sums, difference, SEED), [1 - confidence, confidence])
    total = sums.sum(0, keepdims=True)
    return float(statistic(total[:, :width])[0]), float(statistic(total[:, width:])[0]), float(low), float(high)


def _items_needed(result: Mapping[str, Any], margin: float, confidence: float) -> int | None:
    """How many items would let an inconclusive gate pass with 80 % power, if the true difference is the one seen."""
    room = result["difference"] + margin
    if result["verdict"] is not Verdict.INCONCLUSIVE or room <= 0:
        return None
    normal = NormalDist()
    error: float = (result["high"] - result["low"]) / 2 / normal.inv_cdf(confidence)
    items: int = result["items"]
    needed: float = items * ((normal.inv_cdf(confidence) + normal.inv_cdf(_POWER)) * error / room) ** 2
    return math.ceil(needed)
