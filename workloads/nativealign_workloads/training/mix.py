"""Which row of which source is global sample number n: a pure function of (sources, seed, n).

No loader keeps a position: any process finds any sample, so the order is the same for every world size and after
every restart. Sources alternate by weight as evenly as can be (Tijdeman, "The chairman assignment problem",
Discrete Mathematics 32, 1980: never a whole sample away from its share); inside a source each epoch is a keyed
permutation (a Feistel network with cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
"""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from nativealign_workloads.errors import DataError, NoInputError, UsageError

_MASK = (1 << 64) - 1
_MOST_SHARES = 1 << 20
"""Weights are exact fractions over at most this many parts, the length of the pattern that repeats."""


@dataclass(frozen=True)
class Source:
    """One entry of the mix. It is exhausted after `max_epochs` or `max_samples`, or after one epoch if neither is given.

    Then `Renormalise` leaves its weight to the others, `Fail` ends the run with an error. `Repeat` is never
    exhausted, so it takes no limit.
    """

    name: str
    samples: int
    weight: float
    when_exhausted: Literal["Repeat", "Renormalise", "Fail"] = "Repeat"
    max_epochs: float | None = None
    max_samples: int | None = None

    @property
    def limit(self) -> float:
        """How many samples may be drawn; infinite for Repeat."""
        if self.when_exhausted == "Repeat":
            return math.inf
        epochs = self.max_epochs if self.max_epochs is not None else (1 if self.max_samples is None else math.inf)
        cap = self.max_samples if self.max_samples is not None else math.inf
        return min(math.floor(epochs * self.samples) if epochs != math.inf else math.inf, cap)


@dataclass(frozen=True)
class Place:
    """Where global sample n lies: row `row` of `source`, drawn in its epoch `epoch` (0 is the first)."""

    source: str
    row: int
    epoch: int


@dataclass(frozen=True)
class _Segment:
    """A stretch of global samples with the same sources.

    `pattern` (slot of each sample) repeats, `ranks` says how often a place's slot occurred earlier in it, `before` how
    many samples each slot's source gave in earlier segments.
    """

    first: int
    sources: tuple[int, ...]
    shares: tuple[int, ...]
    pattern: tuple[int, ...]
    ranks: tuple[int, ...]
    before: tuple[int, ...]


class Mix:
    """The order of all samples of a run."""

    def __init__(self, sources: Sequence[Source], seed: int) -> None:
        for source in sources:
            _check(source)
        if len({source.name for source in sources}) < len(sources) or not sources:
            raise UsageError("MixNames", "a mix needs at least one source, and each its own name")
        self.sources, self._seed = tuple(sources), seed
        self._segments, self.length = _segments(self.sources)
        self._starts = [segment.first for segment in self._segments]

    def require(self, samples: int) -> None:
        """DataError unless the mix reaches `samples` samples; called before a run starts."""
        if samples > self.length:
            counts = self.counts(int(self.length))
            spent = [source.name for source in self.sources if counts[source.name] >= source.limit]
            raise DataError(
                "MixExhausted",
                f"the run needs {samples} samples, but {', '.join(spent)} can give no more after sample {self.length}",
                "train on fewer tokens, raise maxEpochs, or set whenExhausted: Repeat",
            )

    def locate(self, n: int) -> Place:
        """The place of global sample n."""
        if n < 0 or n >= self.length:
            self.require(n + 1)
            raise IndexError(n)
        segment = self._segments[bisect_right(self._starts, n) - 1]
        rounds, rest = divmod(n - segment.first, len(segment.pattern))
        slot = segment.pattern[rest]
        ordinal = segment.before[slot] + rounds * segment.shares[slot] + segment.ranks[rest]
        source = self.sources[segment.sources[slot]]
        epoch, position = divmod(ordinal, source.samples)
        return Place(source.name, permuted(position, source.samples, f"{self._seed}/{source.name}/{epoch}"), epoch)

    def counts(self, samples: int) -> dict[str, int]:
        """How many of the first `samples` global samples each source gives."""
        totals = [0] * len(self.sources)
        for number, segment in enumerate(self._segments):
            following = self._starts[number + 1] if number + 1 < len(self._segments) else samples
            drawn = _drawn(segment, min(samples, following) - segment.first)
            for slot, source in enumerate(segment.sources):
                totals[source] = segment.before[slot] + drawn[slot]
            if following >= samples:
                break
        return {source.name: total for source, total in zip(self.sources, totals, strict=True)}


def permuted(position: int, size: int, key: str) -> int:
    """The image of `position` under a permutation of range(size) chosen by `key`."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    keys = _round_keys(key)
    while True:
        left, right = position >> half, position & low
        for round_key in keys:
            left, right = right, left ^ (_scramble(right ^ round_key) & low)
        position = left << half | right
        # walk on until the value falls inside: the domain is at most four times as large as `size`
        if position < size:
            return position


@lru_cache(maxsize=1024)
def _round_keys(key: str) -> tuple[int, ...]:
    digest = hashlib.blake2b(key.encode(), digest_size=48).digest()
    return tuple(int.from_bytes(digest[start : start + 8], "little") for start in range(0, 48, 8))


def _scramble(value: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


def _check(source: Source) -> None:
    if source.samples <= 0:
        raise NoInputError("EmptySource", f"source {source.name} has no samples")
    if not (source.weight > 0 and math.isfinite(source.weight)):
        raise UsageError("MixWeight", f"source {source.name} has weight {source.weight}", "give a number above 0")
    if source.when_exhausted == "Repeat" and (source.max_epochs is not None or source.max_samples is not None):
        raise UsageError(
            "MixContradiction",
            f"source {source.name} has a limit and whenExhausted: Repeat",
            "choose Renormalise or Fail, or drop the limit",
        )


def _segments(sources: tuple[Source, ...]) -> tuple[list[_Segment], float]:
    """Stretches between exhaustions, and where the mix ends (infinite if it never does)."""
    counts = [0] * len(sources)
    first = 0
    segments: list[_Segment] = []
    while True:
        alive = tuple(i for i, source in enumerate(sources) if counts[i] < source.limit)
        spent = [source for i, source in enumerate(sources) if i not in alive]
        if not alive or any(source.when_exhausted == "Fail" for source in spent):
            return segments, first
        shares = _shares([sources[i].weight for i in alive])
        pattern = _pattern(shares)
        segment = _Segment(first, alive, shares, pattern, _ranks(pattern), tuple(counts[i] for i in alive))
        segments.append(segment)
        length = min(_samples_until(segment, slot, sources[i].limit) for slot, i in enumerate(alive))
        if length == math.inf:
            return segments, math.inf
        for i, before, drawn in zip(alive, segment.before, _drawn(segment, int(length)), strict=True):
            counts[i] = before + drawn
        first += int(length)


def _samples_until(segment: _Segment, slot: int, limit: float) -> float:
    """How many samples of the segment it takes until the source in `slot` has reached `limit`."""
    if limit == math.inf:
        return math.inf
    rounds, rest = divmod(int(limit) - segment.before[slot] - 1, segment.shares[slot])
    places = [place for place, other in enumerate(segment.pattern) if other == slot]
    return rounds * len(segment.pattern) + places[rest] + 1


def _drawn(segment: _Segment, samples: int) -> list[int]:
    """Samples that each slot gives among the first `samples` of the segment."""
    rounds, rest = divmod(samples, len(segment.pattern))
    part = segment.pattern[:rest]
    return [rounds * share + part.count(slot) for slot, share in enumerate(segment.shares)]


def _shares(weights: list[float]) -> tuple[int, ...]:
    """Whole numbers in the proportion of the weights, exact as written (0.1 is one tenth) while they stay small."""
    exact = [Fraction(str(weight)) for weight in weights]
    total = sum(exact)
    parts = [weight / total for weight in exact]
    whole = math.lcm(*(part.denominator for part in parts))
    if whole > _MOST_SHARES:
        parts = [Fraction(max(1, round(part * _MOST_SHARES))) for part in parts]
        whole = 1
    numbers = [int(part * whole) for part in parts]
    divisor = math.gcd(*numbers)
    return tuple(number // divisor for number in numbers)


def _pattern(shares: tuple[int, ...]) -> tuple[int, ...]:
    """Slot of each sample in one round of sum(shares) samples, by Tijdeman's rule in whole numbers.

    Eligible at sample t (from 1) is a slot with t * share - taken * total >= total / (2k - 2); of these the one that
    would first be late comes next.
    """
    total, slots = sum(shares), len(shares)
    if slots == 1:
        return (0,)
    margin, taken, order = 2 * slots - 2, [0] * slots, []
    for t in range(1, total + 1):
        ahead = [t * share - count * total for share, count in zip(shares, taken, strict=True)]
        eligible = [slot for slot in range(slots) if ahead[slot] * margin >= total]
        late = [-(-(total * (margin - 1) - ahead[slot] * margin) // (shares[slot] * margin)) for slot in eligible]
        slot = eligible[late.index(min(late))]
        taken[slot] += 1
        order.append(slot)
    return tuple(order)


def _ranks(pattern: tuple[int, ...]) -> tuple[int, ...]:
    """For each place of the pattern how often its slot occurred before."""
    seen: dict[int, int] = {}
    ranks = []
    for slot in pattern:
        ranks.append(seen.get(slot, 0))
        seen[slot] = ranks[-1] + 1
    return tuple(ranks)
