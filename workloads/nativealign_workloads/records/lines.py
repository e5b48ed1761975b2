"""Lines of a block stream in bounded memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its line end; `content` is None if it is longer than the limit. `offset` is in plain bytes."""

    number: int
    offset: int
    content: bytes | None


def split_lines(blocks: Iterable[bytes], limit: int) -> Iterator[Line]:
    """Every line, empty ones too, ended by LF; of a line above `limit` bytes only its end is looked for.

    What the blocks raise passes through, and the line being read then is lost with them.
    """
    number, offset = 1, 0
    pending: list[bytes] = []
    length = 0  # of the current line so far
    for block in blocks:
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            length += end - start
            content = b"".join((*pending, block[start:end])) if length <= limit else None
            yield Line(number, offset, content)
            number, offset, start = number + 1, offset + length + 1, end + 1
            pending, length = [], 0
        length += len(block) - start
        if length <= limit:
            pending.append(block[start:])
        else:
            pending = []
    if length:
        yield Line(number, offset, b"".join(pending) if length <= limit else None)
