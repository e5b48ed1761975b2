"""What a sample's measures come to: means with intervals, effects of rewriting, agreement of a judge with itself.

Called by assess. Pure; intervals are 95 % bootstrap intervals over documents, seeded, so a report is the same on every run.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nativealign_workloads.intervals import Statistic, bootstrap, percentile_interval

Json = dict[str, Any]
Values = list[float]
"""One for each document; nan where there is none."""

BINS = 20


def summarize(values: Values, seed: int) -> Json:
    """Mean with its interval, quartiles, and a histogram; values that are missing are counted."""
    present = np.array([value for value in values if not np.isnan(value)])
    if not len(present):
        return {"count": 0, "missing": len(values), "mean": None}
    low, high = _interval(present[:, np.newaxis], lambda sums: sums[:, 0] / len(present), seed)
    counts, edges = np.histogram(present, bins=BINS)
    return {
        "count": len(present),
        "missing": len(values) - len(present),
        "mean": fmean(present.tolist()),
        "low": low,
        "high": high,
        "quartiles": [float(value) for value in np.percentile(present, [25, 50, 75])],
        "histogram": {"counts": counts.tolist(), "edges": [float(edge) for edge in edges]},
    }


def share(parts: Sequence[tuple[int, int]], seed: int) -> Json | None:
    """The share of all, from each document's (found, known), with its interval; None where nothing is known."""
    counts = np.array(parts, dtype=float).reshape(-1, 2)
    found, known = counts.sum(axis=0)
    if not known:
        return None
    low, high = _interval(
        counts, lambda sums: np.divide(sums[:, 0], sums[:, 1], where=sums[:, 1] > 0, out=np.ones(len(sums))), seed
    )
    return {"mean": float(found / known), "low": low, "high": high}


def effect(before: Values, after: Values, seed: int) -> Json | None:
    """How a measure of the same documents changed: mean difference after - before, Cohen's d of the differences (their mean over
    their standard deviation; Cohen 1988, 2.3.5) and the shares of documents with a lower and a higher value.

    None under two pairs. `d` is None where all differences are equal.
    """
    pairs = [(a, b) for b, a in zip(before, after, strict=True) if not (np.isnan(a) or np.isnan(b))]
    if len(pairs) < 2:
        return None
    differences = np.array([a - b for a, b in pairs])
    n = len(differences)
    sums = np.stack([differences, differences**2], axis=1)
    low, high = _interval(sums, lambda s: s[:, 0] / n, seed)
    spread = float(differences.std(ddof=1))
    d = float(differences.mean()) / spread if spread else None
    d_low, d_high = _interval(sums, lambda s: _d(s, n), seed) if spread else (None, None)
    return {
        "pairs": n,
        "difference": {"mean": float(differences.mean()), "low": low, "high": high},
        "d": {"value": d, "low": d_low, "high": d_high},
        "lower": float((differences < 0).mean()),
        "higher": float((differences > 0).mean()),
    }


def agreement(first: Values, second: Values, seed: int) -> Json | None:
    """How alike two scorings of the same documents are.

    Quadratically weighted kappa (Cohen 1968; 1 is equal, 0 is chance), the share of scores at most 1 apart, and the mean difference
    second - first. None under two pairs; kappa is None where no score varies.
    """
    pairs = np.array([(a, b) for a, b in zip(first, second, strict=True) if not (np.isnan(a) or np.isnan(b))])
    if len(pairs) < 2:
        return None
    a, b = pairs[:, 0], pairs[:, 1]
    sums = np.stack([a, b, a**2, b**2, (a - b) ** 2], axis=1)
    kappa = float(_kappa(sums.sum(axis=0)[np.newaxis], len(pairs))[0])
    low, high = _interval(sums, lambda s: _kappa(s, len(pairs)), seed)
    return {
        "pairs": len(pairs),
        "kappa": {"value": None, "low": None, "high": None} if np.isnan(kappa) else {"value": kappa, "low": low, "high": high},
        "within1": float((np.abs(a - b) <= 1).mean()),
        "difference": float((b - a).mean()),
    }


def _d(sums: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Of resamples whose differences are all equal: 0, which no interval of a varying sample ends in."""
    mean = sums[:, 0] / n
    variance = np.maximum(0.0, (sums[:, 1] - n * mean**2) / (n - 1))
    found = np.zeros_like(mean)
    np.divide(mean, np.sqrt(variance), out=found, where=variance > 0)
    return found


def _kappa(sums: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """1 - observed over expected squared distance; nan where nothing varies."""
    a, b, a2, b2, apart = (sums / n).T
    expected = a2 + b2 - 2 * a * b
    kappa: NDArray[np.float64] = 1 - np.divide(apart, expected, out=np.full_like(apart, np.nan), where=expected > 1e-12)
    return kappa


def _interval(counts: NDArray[np.float64], statistic: Statistic, seed: int) -> tuple[float, float]:
    values = bootstrap(counts, statistic, seed)
    return percentile_interval(values[~np.isnan(values)]) if not np.isnan(values).all() else (np.nan, np.nan)
