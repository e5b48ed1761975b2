"""Intervals and tests for paired and unpaired answers. Pure; used by scores.py and compare.py.

Clusters (rows that ask the same question) are resampled whole, because their answers are not independent. Every
resampling is seeded, so a report is the same on every run.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
Statistic = Callable[[Counts], Counts]
"""Summed counts [resamples, k] -> one value per resample [resamples]."""

RESAMPLES = 2000
_BLOCK = 200


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided score interval of a proportion (Wilson 1927); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def bootstrap(counts: Counts, statistic: Statistic, seed: int, resamples: int = RESAMPLES) -> Counts:
    """Values of `statistic` over `resamples` draws of whole clusters with replacement.

    `counts` is [clusters, k], what each cluster adds to the sums. Returns [resamples], sorted.
    """
    rng = np.random.default_rng(seed)
    clusters = len(counts)
    even = np.full(clusters, 1 / clusters)
    blocks = [min(_BLOCK, resamples - start) for start in range(0, resamples, _BLOCK)]
    values = [statistic(rng.multinomial(clusters, even, size=size) @ counts) for size in blocks]
    return np.sort(np.concatenate(values))


def percentile_interval(values: Counts, confidence: float = 0.95) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def cluster_sums(keys: Sequence[str], counts: Counts) -> Counts:
    """Sums the rows of `counts` [n, k] that share a key; clusters in order of first appearance."""
    index: dict[str, int] = {}
    places = [index.setdefault(key, len(index)) for key in keys]
    sums = np.zeros((len(index), counts.shape[1]))
    np.add.at(sums, places, counts)
    return sums


def mcnemar_exact(wins: int, losses: int) -> float:
    """Two-sided exact p-value that wins and losses are equally likely (McNemar 1947; binomial with p = 1/2)."""
    n, k = wins + losses, min(wins, losses)
    if n == 0:
        return 1.0
    logs = [_log_choose(n, i) - n * math.log(2) for i in range(k + 1)]
    top = max(logs)
    tail = math.exp(top) * math.fsum(math.exp(value - top) for value in logs)
    return min(1.0, 2 * tail)


def tango_bounds(wins: int, losses: int, n: int, confidence: float) -> tuple[float, float]:
    """One-sided lower and upper bound, each at `confidence`, of the paired difference of two proportions.

    Score bounds of Tango (Statistics in Medicine 1998, 17:891): they stay honest when hardly any answer differs, where
    resampling would claim certainty. `wins` are pairs that only the first model answers rightly. Wholly (-1, 1) for n = 0.
    """
    if n == 0:
        return -1.0, 1.0
    z = NormalDist().inv_cdf(confidence)
    estimate = (wins - losses) / n

    def score(delta: float) -> float:
        b = -wins - losses + (2 * n - wins + losses) * delta
        root = math.sqrt(max(0.0, b * b + 8 * n * losses * delta * (1 - delta)))
        q = (root - b) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        gap = wins - losses - n * delta
        return 0.0 if gap == 0 else gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap)

    lower = _bisect(lambda d: score(d) - z, -1.0, estimate)
    upper = _bisect(lambda d: score(d) + z, estimate, 1.0)
    return lower, upper


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for testing all of them (Holm 1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def _bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    """Root of a falling function on [low, high]; the nearer end if the sign does not change."""
    if falling(low) <= 0:
        return low
    if falling(high) >= 0:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
