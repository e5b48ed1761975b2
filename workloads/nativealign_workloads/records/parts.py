"""Part files, our own outputs: rows as JSON lines in independent zstd frames (`part-….jsonl.zst`).

A writer appends frames; a reader sees one stream. Frames can be joined by concatenation (RFC 8878, 3).
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import orjson
import zstandard

from nativealign_workloads.errors import DataError

from .decompress import BLOCK, plain_blocks
from .lines import split_lines
from .model import Broken, Truncated

LEVEL = 3


def encode_frame(rows: Iterable[dict[str, Any]]) -> bytes:
    """One frame holding `rows`, b"" for none. The same rows give the same bytes; keys keep the order they have.

    The frame header holds the plain size, its end a checksum, so that a reader notices a flipped bit.
    """
    plain = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    if not plain:
        return b""
    return zstandard.ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=True).compress(plain)


def read_rows(stream: BinaryIO, key: str) -> Iterator[dict[str, Any]]:
    """The rows of all frames, as a stream. Raises DataError `PartUnreadable`, which names `key`, at a damaged place."""
    head = stream.read(BLOCK)
    if not head:
        return
    try:
        for line in split_lines(plain_blocks(stream, head, "zstd"), sys.maxsize):
            yield orjson.loads(line.content or b"")
    except (Truncated, Broken, orjson.JSONDecodeError) as exc:
        hint = "remove this output's manifest and run the step again"
        raise DataError("PartUnreadable", f"{key}: {exc}", hint) from exc
