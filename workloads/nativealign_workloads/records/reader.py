"""A user's file as a stream of records, good and bad. Called by inspect, clean and tokenize for every input object.

Bad content never raises: a bad record becomes a BadRecord in its place, a file that breaks off ends in one BadRecord.
Ordinals count both, so the same file always gives the same documents the same names.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

import orjson

from nativealign_workloads.errors import UsageError

from .decompress import plain_blocks
from .formats import COLUMNAR, MAGIC_SIZE, compression_of, detect_format
from .lines import Line, split_lines
from .model import BadRecord, Broken, Fields, Parse, Record, Truncated, checked
from .warc import warc_records

MAX_RECORD_BYTES = 16 << 20
BOM = b"\xef\xbb\xbf"

Records = Iterator[Record | BadRecord]


def read_records(
    stream: BinaryIO,
    key: str,
    *,
    format: str,
    fields: Fields,
    stride: tuple[int, int] = (0, 1),
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Records:
    """Read one object: of (offset, step) = `stride` the records whose ordinal is offset modulo step; others are not parsed.

    `format` is Jsonl (one object a line), Text (one document a line), Warc (its plain texts), Parquet, Arrow or Auto, by
    the name. Parquet and Arrow need a seekable stream; the others may be compressed with gzip or zstd. A record of more
    than `max_record_bytes` (its line, or its text) is skipped without being held. Blank lines are no records. Raises
    UsageError `UnknownFormat` if Auto cannot tell.
    """
    chosen = detect_format(key) if format == "Auto" else format
    if chosen is None:
        raise UsageError("UnknownFormat", f"the name {key} does not tell its format", "set the corpus' format")
    found = _to_the_break(_parses(stream, key, chosen, fields, max_record_bytes), key)
    offset, step = stride
    return (parse(ordinal) for ordinal, parse in enumerate(found) if ordinal % step == offset)


def _to_the_break(parses: Iterator[Parse], key: str) -> Iterator[Parse]:
    """The records; where the file breaks off or proves damaged, one BadRecord stands for the rest."""
    try:
        yield from parses
    except (Truncated, Broken) as exc:
        reason = "TruncatedFile" if isinstance(exc, Truncated) else "BrokenFile"
        yield partial(BadRecord, reason=reason, detail=f"{key}: {exc}")


def _parses(stream: BinaryIO, key: str, format: str, fields: Fields, max_record_bytes: int) -> Iterator[Parse]:
    head = _head(stream)
    compression = compression_of(key, format, head)
    if format in COLUMNAR:
        from .columnar import columnar_records  # pyarrow is slow to import

        yield from columnar_records(stream, format, fields, max_record_bytes)
        return
    if format == "Warc":
        yield from warc_records(plain_blocks(stream, head, compression), fields, max_record_bytes)
        return
    lines = split_lines(plain_blocks(stream, head, compression), max_record_bytes)
    parse = partial(_json_record, fields=fields) if format == "Jsonl" else _text_record
    yield from _line_parses(lines, parse, max_record_bytes)


def _head(stream: BinaryIO) -> bytes:
    """The first MAGIC_SIZE bytes; a raw stream may give them one by one."""
    head = b""
    while len(head) < MAGIC_SIZE and (more := stream.read(MAGIC_SIZE - len(head))):
        head += more
    return head


def _line_parses(
    lines: Iterator[Line], parse: Callable[[int, bytes, str], Record | BadRecord], max_record_bytes: int
) -> Iterator[Parse]:
    for line in lines:
        content = line.content if line.number > 1 or line.content is None else line.content.removeprefix(BOM)
        if content is None or content.strip():
            yield partial(_line_record, line=line, content=content, parse=parse, max_record_bytes=max_record_bytes)


def _line_record(
    ordinal: int,
    line: Line,
    content: bytes | None,
    parse: Callable[[int, bytes, str], Record | BadRecord],
    max_record_bytes: int,
) -> Record | BadRecord:
    where = f"line {line.number}, byte {line.offset}"
    if content is None:
        return BadRecord(ordinal, "RecordTooLarge", f"{where}: more than {max_record_bytes} bytes")
    return parse(ordinal, content.removesuffix(b"\r"), where)


def _text_record(ordinal: int, content: bytes, where: str) -> Record | BadRecord:
    try:
        return checked(ordinal, content.decode(), where)
    except UnicodeDecodeError as exc:
        return BadRecord(ordinal, "NotUtf8", f"{where}: {exc.reason} at byte {exc.start} of the line")


def _json_record(ordinal: int, content: bytes, where: str, *, fields: Fields) -> Record | BadRecord:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as exc:
        return _not_json(ordinal, content, where, str(exc))
    if not isinstance(value, dict):
        return BadRecord(ordinal, "NotAnObject", f"{where}: a JSON {type(value).__name__}, not an object")
    if fields.text not in value:
        return BadRecord(ordinal, "MissingTextField", f"{where}: no field {fields.text!r}")
    text = value[fields.text]
    if not isinstance(text, str):
        return BadRecord(ordinal, "WrongTextType", f"{where}: {fields.text!r} is {type(text).__name__}, not a string")
    return checked(ordinal, text, where, *(value.get(name) if name else None for name in fields.attributes))


def _not_json(ordinal: int, content: bytes, where: str, problem: str) -> BadRecord:
    """Tell the ways apart in which orjson refuses a line."""
    text = _text_record(ordinal, content, where)
    if isinstance(text, BadRecord) and text.reason == "NotUtf8":
        return text
    reason = "LoneSurrogate" if "surrogate" in problem else "NotJson"
    return BadRecord(ordinal, reason, f"{where}: {problem}")
