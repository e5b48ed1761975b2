"""Supervised pairs as packed rows: loss on the answer only, no pair split. Used by the step `train-worker`.

Pairs become documents whose prompt carries no loss, so that `packing.Shard` and `loop` need to know nothing of pairs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nativealign_workloads.errors import DataError
from nativealign_workloads.training.packing import ShardWriter

OPEN_ROWS = 64
"""Rows kept open while packing: the price of one search per pair, and about 1 % padding on chunk-sized pairs."""


@dataclass(frozen=True)
class Pair:
    """Token ids of a rendered prompt and of its answer. The answer ends in the end-of-sequence token."""

    prompt: Sequence[int]
    answer: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def write_pairs(pairs: Iterable[Pair], sequence_length: int, pad_id: int, writer: ShardWriter) -> None:
    """Rows of whole pairs into a shard file, which must then be opened with the same sequence length.

    Each pair goes into the fullest open row that has room for it.
    """
    for ids, quiet in _documents(pairs, sequence_length, pad_id):
        writer.add(ids, quiet)


def _documents(pairs: Iterable[Pair], length: int, pad_id: int) -> Iterator[tuple[list[int], int]]:
    for row in _rows(pairs, length):
        for pair in row:
            yield [*pair.prompt, *pair.answer], len(pair.prompt)
        padding = length - sum(map(len, row))
        if padding:
            yield [pad_id] * padding, padding


def _rows(pairs: Iterable[Pair], length: int) -> Iterator[list[Pair]]:
    """Best fit over a window of open rows; a row leaves when the window is full, the fullest first."""
    rows: list[tuple[int, list[Pair]]] = []
    for number, pair in enumerate(pairs):
        _check(pair, number, length)
        fitting = [place for place, (used, _) in enumerate(rows) if used + len(pair) <= length]
        if fitting:
            place = max(fitting, key=lambda place: rows[place][0])
            used, members = rows[place]
            rows[place] = (used + len(pair), [*members, pair])
        else:
            rows.append((len(pair), [pair]))
        if len(rows) > OPEN_ROWS:
            yield rows.pop(max(range(len(rows)), key=lambda place: rows[place][0]))[1]
    for _, members in rows:
        yield members


def _check(pair: Pair, number: int, length: int) -> None:
    if not pair.answer or not pair.prompt:
        raise DataError("EmptyPair", f"pair {number} has no {'prompt' if pair.answer else 'answer'}")
    if len(pair) > length:
        raise DataError(
            "PairTooLong",
            f"pair {number} has {len(pair)} tokens, more than the sequence length {length}",
            "raise the sequence length, or make the chunks shorter",
        )
