"""Whether a text reads like writing: rules of Gopher (Rae et al. 2021, table A1) and FineWeb2 (Penedo et al. 2025).

Called by clean. Words are those between white space. Repetition is counted in characters of words, so that a text does not pass
by its spaces.
"""

from collections import Counter
from collections.abc import Sequence

from nativealign_api.align import FallingLimit, Quality

LINE_ENDS = ".!?؟؛:…۔\"'»”’)]"
"""Marks that end a line of prose, Arabic and Latin."""

DUPLICATE_RUNS = range(5, 11)
"""Lengths in words of the runs whose repetition is looked at; the limit falls evenly from the first length to the last."""
TOP_RUNS = range(2, 5)
"""Lengths of the runs of which the most frequent one is looked at; likewise."""


def why_poor(text: str, settings: Quality) -> str:
    """The first rule that the text breaks, or ""."""
    words = text.split()
    if not words:
        return ""
    if not settings.min_average_word_length <= sum(map(len, words)) / len(words) <= settings.max_average_word_length:
        return "WordLength"
    if sum(any(map(str.isalpha, word)) for word in words) / len(words) < settings.min_alphabetic_words:
        return "NotAlphabetic"
    return _why_poor_lines(text, words, settings) or _why_repetitive(words, settings)


def _why_poor_lines(text: str, words: Sequence[str], settings: Quality) -> str:
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    if sum(line[-1] in LINE_ENDS for line in lines) / len(lines) < settings.min_line_ends:
        return "LineEnds"
    if 1 - len(set(lines)) / len(lines) > settings.max_duplicate_lines:
        return "DuplicateLines"
    return "ShortLines" if (len(lines) - 1) / len(words) > settings.max_lines_per_word else ""


def _why_repetitive(words: Sequence[str], settings: Quality) -> str:
    total = sum(map(len, words))
    for size, limit in zip(TOP_RUNS, _falling(settings.max_top_run, len(TOP_RUNS)), strict=True):
        if top_run_length(words, size) / total > limit:
            return "TopRun"
    for size, limit in zip(DUPLICATE_RUNS, _falling(settings.max_duplicate_runs, len(DUPLICATE_RUNS)), strict=True):
        if duplicate_run_length(words, size) / total > limit:
            return "DuplicateRuns"
    return ""


def top_run_length(words: Sequence[str], size: int) -> int:
    """Characters of all places of the most frequent run of `size` words, no more than there are; 0 where none comes twice."""
    runs = Counter(tuple(words[start : start + size]) for start in range(len(words) - size + 1))
    most = max(runs.values(), default=0)
    if most < 2:
        return 0
    longest = max(sum(map(len, run)) for run, count in runs.items() if count == most)
    return min(most * longest, sum(map(len, words)))


def duplicate_run_length(words: Sequence[str], size: int) -> int:
    """Characters of the words in runs of `size` words that were there before, each word once."""
    seen: set[tuple[str, ...]] = set()
    length, start = 0, 0
    while start <= len(words) - size:
        run = tuple(words[start : start + size])
        if run in seen:
            length += sum(map(len, run))
            start += size
        else:
            seen.add(run)
            start += 1
    return length


def _falling(limit: FallingLimit, count: int) -> list[float]:
    return [limit.first + (limit.last - limit.first) * place / (count - 1) for place in range(count)]
