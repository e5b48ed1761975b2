"""Hashes of folded words and of runs of them, for many texts at once. Called by dedup's sign.

A word is hashed as a polynomial over its UTF-16 units modulo 2^64 (Karp and Rabin 1987), so that prefix sums give the hashes of all
words of all texts together; a run of words mixes the hashes of its words in order.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nativealign_workloads.text.fold import word_units

U64 = NDArray[np.uint64]
Counts = NDArray[np.int64]

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
_SPACE = np.uint16(ord(" "))


def scrambled(value: U64) -> U64:
    """The value, well mixed: splitmix64's finalizer (Steele, Lea and Flood 2014). Not for zero, which stays."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def word_hashes(texts: Sequence[str]) -> tuple[U64, Counts]:
    """(hashes of the folded words of all texts in order, number of words of each text).

    Memory: about 50 bytes for each character.
    """
    units, ends = word_units(texts)
    borders = np.flatnonzero(np.diff(units != _SPACE)) + 1  # there is a space before the first word and after the last
    starts, stops = borders[::2], borders[1::2]
    rising, falling = _powers(len(units))
    sums = np.cumsum(_VALUES[units] * rising[: len(units)])
    hashes = scrambled((sums[stops - 1] - sums[starts - 1]) * falling[starts])
    return hashes, np.diff(np.searchsorted(stops, ends, side="right"), prepend=0)


def run_hashes(hashes: U64, counts: Counts, size: int) -> tuple[U64, Counts]:
    """(hashes of all runs of `size` words within a text, number of runs of each text); shorter texts have none."""
    runs = np.maximum(counts - size + 1, 0)
    length = len(hashes) - size + 1
    if length <= 0:
        return np.empty(0, np.uint64), runs
    mixed = np.zeros(length, np.uint64)
    for offset in range(size):
        mixed = (mixed ^ hashes[offset : offset + length]) * np.uint64(_BASE)
        mixed ^= mixed >> np.uint64(29)
    firsts = np.cumsum(counts) - counts
    inside = np.repeat(firsts - (np.cumsum(runs) - runs), runs) + np.arange(runs.sum())
    return mixed[inside], runs


_VALUES = scrambled(np.arange(1, 0x10001, dtype=np.uint64))
"""A number for each UTF-16 unit."""

_known_powers = (np.ones(1, np.uint64), np.ones(1, np.uint64))


def _powers(count: int) -> tuple[U64, U64]:
    """_BASE and its inverse to the power of 0, 1, …, at least `count` of each."""
    global _known_powers
    if len(_known_powers[0]) < count:
        size = 1 << (count - 1).bit_length()
        _known_powers = (_geometric(_BASE, size), _geometric(_INVERSE, size))
    return _known_powers


def _geometric(base: int, count: int) -> U64:
    series = np.full(count, base, np.uint64)
    series[0] = 1
    return np.cumprod(series)
