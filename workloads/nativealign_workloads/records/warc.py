"""The plain texts of a WARC file (ISO 28500), as the WET files of Common Crawl have them. Called by `read_records`.

Records of type `conversion` or `resource` are documents; those that describe a crawl are none. A response holds a page as it was
sent, HTML and all, and is a bad record: its text must be extracted first.
"""

import io
from collections.abc import Iterator
from functools import partial
from typing import Any

from .model import BadRecord, Broken, Fields, Parse, Record, Truncated, checked

TEXTS = ("conversion", "resource")
PAGES = ("response", "revisit")


def warc_records(blocks: Iterator[bytes], fields: Fields, max_record_bytes: int) -> Iterator[Parse]:
    """Every record that holds a document; `fields` name headers. Raises Truncated or Broken where reading ends."""
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    try:
        for record in ArchiveIterator(io.BufferedReader(_Blocks(blocks)), no_record_parse=True):
            if record.rec_type in TEXTS + PAGES:
                content = _content(record, max_record_bytes)
                yield partial(_record, record=record, content=content, fields=fields, max_record_bytes=max_record_bytes)
    except ArchiveLoadFailed as exc:
        raise Broken(f"WARC: {exc}") from None


def _content(record: Any, max_record_bytes: int) -> bytes | None:
    """Of a text, unless it is too large."""
    length = int(record.rec_headers.get_header("Content-Length") or 0)
    if record.rec_type in PAGES or length > max_record_bytes:
        return None
    content: bytes = record.raw_stream.read(length)
    if len(content) < length:
        raise Truncated(f"{_name(record)} breaks off after {len(content)} of {length} bytes")
    return content


def _name(record: Any) -> str:
    header = record.rec_headers.get_header
    return str(header("WARC-Target-URI") or header("WARC-Record-ID"))


def _record(ordinal: int, record: Any, content: bytes | None, fields: Fields, max_record_bytes: int) -> Record | BadRecord:
    header = record.rec_headers.get_header
    where = f"record {ordinal}, {_name(record)}"
    if record.rec_type in PAGES:
        return BadRecord(ordinal, "NotPlainText", f"{where}: a page as it was sent (WARC-Type {record.rec_type}), not its text")
    if content is None:
        return BadRecord(ordinal, "RecordTooLarge", f"{where}: more than {max_record_bytes} bytes")
    try:
        return checked(ordinal, content.decode(), where, *(header(name) if name else None for name in fields.attributes))
    except UnicodeDecodeError as exc:
        return BadRecord(ordinal, "NotUtf8", f"{where}: {exc.reason} at byte {exc.start} of the text")


class _Blocks(io.RawIOBase):
    """Blocks as a stream of bytes."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._left = blocks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._left = block
        taken = self._left[: len(buffer)]
        self._left = self._left[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)
