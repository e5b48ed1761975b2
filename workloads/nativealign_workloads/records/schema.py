"""The fields of a user's file. Called by inspect, for the report; what read_records makes of the file decides."""

from collections.abc import Iterator
from typing import BinaryIO

import orjson

from .decompress import plain_blocks
from .formats import COLUMNAR, detect_format
from .lines import split_lines
from .model import Broken, Truncated

LOOK = 100
"""Lines that are looked at for the first readable object."""

COMPRESSION = {"gz": "gzip", "zst": "zstd"}


def read_schema(stream: BinaryIO, key: str, *, format: str = "Auto", max_record_bytes: int = 16 << 20) -> dict[str, str]:
    """Field name -> type of the first readable record (JSON's types, Arrow's for Parquet); {} for text and unreadable files."""
    chosen = detect_format(key) if format == "Auto" else format
    try:
        if chosen in COLUMNAR:
            from .columnar import columnar_schema  # pyarrow is slow to import

            return columnar_schema(stream, str(chosen))
        return next(_objects(stream, key, max_record_bytes), {}) if chosen == "Jsonl" else {}
    except (OSError, ValueError, Broken, Truncated):
        return {}


def _objects(stream: BinaryIO, key: str, limit: int) -> Iterator[dict[str, str]]:
    blocks = plain_blocks(stream, b"", COMPRESSION.get(key.rpartition(".")[2]))
    for line in split_lines(blocks, limit):
        if line.number > LOOK:
            return
        try:
            value = orjson.loads(line.content or b"")
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict):
            yield {name: type(item).__name__ for name, item in value.items()}
