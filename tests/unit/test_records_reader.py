"""Readers of users' files: every record counted, nothing raised, memory bounded."""

import gzip
import io
import json
import tracemalloc
from collections.abc import Callable, Iterator

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from nativealign_workloads.errors import UsageError
from nativealign_workloads.records import BadRecord, Fields, Record, detect_format, read_records

MIB = 1 << 20
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def read(
    data: bytes, key: str = "a.jsonl", format: str = "Auto", id_field: str | None = "id", limit: int = MIB
) -> list[Record | BadRecord]:
    stream = io.BytesIO(data)
    return list(read_records(stream, key, format=format, fields=Fields(id=id_field), max_record_bytes=limit))


def texts(records: list[Record | BadRecord]) -> list[str]:
    return [r.text if isinstance(r, Record) else r.reason for r in records]


GOOD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
BAD_LINES = {
    b'{"text":"\xff"}': "NotUtf8",
    b"{": "NotJson",
    b'{"text":NaN}': "NotJson",
    b"[" * 5000: "NotJson",
    b'["text"]': "NotAnObject",
    b"12": "NotAnObject",
    b'{"txt":"a"}': "MissingTextField",
    b'{"text":null}': "WrongTextType",
    b'{"text":["a"]}': "WrongTextType",
    b'{"text":"\\ud800"}': "LoneSurrogate",
    b'{"text":"\\udc00 a"}': "LoneSurrogate",
    b'{"text":"\\ud800\\u0041"}': "LoneSurrogate",
    b'{"text":"a\\u0000"}': "NulCharacter",
    b'{"text":"' + b"x" * MIB + b'"}': "RecordTooLarge",
}


@settings(deadline=None)
@given(
    st.lists(st.one_of(GOOD, st.sampled_from(sorted(BAD_LINES)), st.sampled_from([b"", b"  ", b"\r"])), max_size=12),
    st.sampled_from(sorted(COMPRESS)),
    st.booleans(),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_every_line_is_a_record_good_or_bad_in_its_place(lines: list, ending: str, last_newline: bool, newline: bytes):
    written = [line if isinstance(line, bytes) else orjson.dumps({"text": line, "id": line}) for line in lines]
    expected = [
        BAD_LINES[line] if isinstance(line, bytes) else line for line in lines if not isinstance(line, bytes) or line.strip()
    ]
    data = newline.join(written) + newline * last_newline
    records = read(COMPRESS[ending](data), "a.jsonl" + ending)
    assert texts(records) == expected
    assert [r.ordinal for r in records] == list(range(len(expected)))
    assert all(r.user_id == r.text for r in records if isinstance(r, Record))


@settings(deadline=None)
@given(st.lists(GOOD, max_size=20), st.sampled_from([".gz", ".zst"]), st.sampled_from(["Jsonl", "Text"]), st.data())
def test_a_file_cut_anywhere_gives_a_prefix_of_its_records_and_one_truncated_file(
    documents: list[str], ending: str, format: str, data: st.DataObject
):
    lines = [orjson.dumps({"text": d}) if format == "Jsonl" else d.replace("\n", " ").encode() for d in documents]
    whole = COMPRESS[ending](b"\n".join(lines))
    key = f"a{ending}"
    complete = read(whole, key, format)
    assert all(isinstance(r, Record) for r in complete)
    *before, last = read(whole[: data.draw(st.integers(0, len(whole) - 1))], key, format)
    assert before == complete[: len(before)]
    assert isinstance(last, BadRecord)
    assert (last.reason, last.ordinal) == ("TruncatedFile", len(before))


@settings(deadline=None)
@given(st.sampled_from([".gz", ".zst"]), st.data())
def test_a_flipped_bit_never_raises_and_gives_a_prefix_or_a_broken_file(ending: str, data: st.DataObject):
    whole = bytearray(COMPRESS[ending](b"".join(b'{"text":"%d"}\n' % (n * n) for n in range(50))))
    complete = read(bytes(whole), "a.jsonl" + ending)
    place = data.draw(st.integers(4, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    records = read(bytes(whole), "a.jsonl" + ending)
    # Header fields that decide nothing (gzip's time stamp, say) may flip unnoticed.
    assert records == complete or records[-1].reason in ("BrokenFile", "TruncatedFile")


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_members_and_frames_in_a_row_are_one_file(pieces: list[bytes]):
    lines = [piece.hex().encode() + b"\n" for piece in pieces]
    for ending, compress in COMPRESS.items():
        joined = b"".join(compress(line) for line in lines) or compress(b"")
        assert texts(read(joined, "a.txt" + ending)) == [piece.hex() for piece in pieces if piece]


@pytest.mark.parametrize("ending", sorted(COMPRESS))
def test_a_huge_line_is_skipped_in_bounded_memory_and_the_next_lines_are_read(ending: str):
    huge = b'{"text":"first"}\n{"text":"' + b"x" * (50 * MIB) + b'"}\n{"text":"last"}\n'
    stream = io.BytesIO(COMPRESS[ending](huge))
    del huge
    tracemalloc.start()
    records = list(read_records(stream, "a.jsonl" + ending, format="Auto", fields=Fields(), max_record_bytes=MIB))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts(records) == ["first", "RecordTooLarge", "last"]
    assert peak < 40 * MIB


def test_a_decompression_bomb_is_read_in_bounded_memory():
    """A zstd frame of 8 KiB that holds 256 MiB, and its gzip cousin."""
    compressor = zstandard.ZstdCompressor().compressobj()
    bomb = b"".join(compressor.compress(b" " * MIB) for _ in range(256)) + compressor.flush()
    tracemalloc.start()
    records = read(bomb, "a.jsonl.zst")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts(records) == ["RecordTooLarge"]
    assert peak < 80 * MIB


def test_a_bad_record_says_where_it_is():
    first, second, third = read('{"text":"نص"}\n{"text":5}\n\n{"text"\n'.encode())
    assert isinstance(first, Record)
    assert second == BadRecord(1, "WrongTextType", "line 2, byte 16: 'text' is int, not a string")
    assert third.detail.startswith("line 4, byte 28: ")


def test_a_byte_order_mark_at_the_start_is_not_text():
    assert texts(read(b'\xef\xbb\xbf{"text":"a"}\n')) == ["a"]
    assert texts(read(b"\xef\xbb\xbfa\nb\xef\xbb\xbf\n", "a.txt")) == ["a", "b\ufeff"]
    assert read(b"\xef\xbb\xbf", "a.txt") == []


def test_a_text_file_has_one_document_per_line_as_it_stands():
    assert texts(read("  نص \t\r\n\r\nb\rc\x0bd\u2028e\n\n".encode(), "a.txt")) == ["  نص \t", "b\rc\x0bd\u2028e"]


def test_user_ids_are_strings_or_whole_numbers():
    lines = [{"id": "x"}, {"id": 7}, {"id": ""}, {"id": None}, {"id": True}, {"id": 1.5}, {"id": ["x"]}, {}]
    data = b"\n".join(orjson.dumps({"text": "a", **line}) for line in lines)
    assert [r.user_id for r in read(data)] == ["x", "7", "", None, None, None, None, None]
    assert [r.user_id for r in read(data, id_field=None)] == [None] * len(lines)


@pytest.mark.parametrize(
    ("key", "format"),
    [
        ("a/b.jsonl", "Jsonl"),
        ("B.JSONL.GZ", "Jsonl"),
        ("a.ndjson.zst", "Jsonl"),
        ("a.json", "Jsonl"),
        ("a.v2.txt.gz", "Text"),
        ("part.0.parquet", "Parquet"),
        ("a.jsonl/README.md", None),
        ("_SUCCESS", None),
        ("a.gz", None),
        (".jsonl", None),
    ],
)
def test_the_name_tells_the_format(key: str, format: str | None):
    assert detect_format(key) == format


def test_a_name_that_tells_nothing_needs_a_format():
    with pytest.raises(UsageError, match=r"UnknownFormat.*dump"):
        read(b"", "dump")
    assert texts(read(b"a\n", "dump", "Text")) == ["a"]
    assert texts(read(gzip.compress(b"a\n"), "dump", "Text")) == ["a"]


@pytest.mark.parametrize(
    ("key", "format", "data", "both"),
    [
        ("a.jsonl.gz", "Auto", b'{"text":"a"}\n', ("gzip", "plain")),
        ("a.jsonl.gz", "Auto", COMPRESS[".zst"](b"a"), ("gzip", "zstd")),
        ("a.jsonl", "Auto", gzip.compress(b'{"text":"a"}\n', mtime=0), ("plain", "gzip")),
        ("a.txt", "Auto", b"PAR1....PAR1", ("plain", "Parquet")),
        ("a.parquet", "Auto", gzip.compress(b"a", mtime=0), ("Parquet", "gzip")),
        ("a.parquet", "Auto", b"some text", ("Parquet", "plain")),
        ("a.parquet", "Jsonl", b"PAR1....PAR1", ("plain", "Parquet")),
    ],
)
def test_content_that_contradicts_the_name_is_one_broken_file_naming_both(key: str, format: str, data: bytes, both):
    (record,) = read(data, key, format)
    assert (record.ordinal, record.reason) == (0, "BrokenFile")
    assert f"InputFormat: {both[0]} content" in record.detail
    assert f"{both[1]} content by its first bytes" in record.detail
    assert key in record.detail


def test_an_empty_file_has_no_records_but_an_empty_compressed_one_is_truncated():
    assert read(b"") == []
    assert [texts(read(b"", "a.jsonl" + ending)) for ending in (".gz", ".zst")] == [["TruncatedFile"]] * 2
    assert read(COMPRESS[".zst"](b""), "a.jsonl.zst") == []


class Trickle(io.RawIOBase):
    """A stream that gives one byte at a time, as a socket may."""

    def __init__(self, data: bytes) -> None:
        self._bytes: Iterator[int] = iter(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        for byte in self._bytes:
            buffer[0] = byte
            return 1
        return 0


@pytest.mark.parametrize("ending", sorted(COMPRESS))
def test_the_size_of_the_reads_does_not_matter(ending: str):
    data = "".join(json.dumps({"text": f"نص {n}"}, ensure_ascii=False) + "\n" for n in range(5)).encode()
    stream = Trickle(COMPRESS[ending](data))
    records = list(read_records(stream, "a.jsonl" + ending, format="Auto", fields=Fields()))
    assert texts(records) == [f"نص {n}" for n in range(5)]


def test_a_licence_field_is_read_where_it_is_text():
    lines = b'{"text":"a","license":"CC0-1.0"}\n{"text":"b","license":7}\n{"text":"c"}\n'
    records = read_records(io.BytesIO(lines), "a.jsonl", format="Auto", fields=Fields(license="license"))
    assert [r.license for r in records] == ["CC0-1.0", None, None]
