"""Parquet inputs, whole and damaged."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nativealign_workloads.records import BadRecord, Fields, Record, read_records


def parquet(columns: dict, **options) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


def read(data: bytes, limit: int = 1000) -> list[Record | BadRecord]:
    stream = io.BytesIO(data)
    return list(read_records(stream, "a.parquet", format="Auto", fields=Fields(id="id"), max_record_bytes=limit))


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)), st.integers(1, 5))
def test_every_row_is_a_record_in_its_place(documents: list[str], group: int):
    ids = pa.array(range(len(documents)), pa.int64())
    data = parquet({"text": pa.array(documents, pa.string()), "id": ids}, row_group_size=group)
    assert read(data) == [Record(n, text, str(n)) for n, text in enumerate(documents)]


def test_a_licence_column_is_read_where_there_is_one():
    text, licences = pa.array(["أ", "ب", "ج"]), pa.array(["CC0-1.0", None, "MIT"])
    fields = Fields(license="license")
    for columns, expected in (({"license": licences}, ["CC0-1.0", None, "MIT"]), ({}, [None] * 3)):
        stream = io.BytesIO(parquet({"text": text, **columns}))
        assert [r.license for r in read_records(stream, "a.parquet", format="Auto", fields=fields)] == expected


def test_rows_without_usable_text_are_bad_records_in_their_places():
    values = [b"good", None, b"\xff", b"a\0", b"x" * 1001, "نص".encode()]
    reasons = ["good", "WrongTextType", "NotUtf8", "NulCharacter", "RecordTooLarge", "نص"]
    for kind in (pa.binary(), pa.large_binary()):
        records = read(parquet({"text": pa.array(values, kind)}))
        assert [r.text if isinstance(r, Record) else r.reason for r in records] == reasons
        assert [r.ordinal for r in records] == list(range(6))


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_every_kind_of_string_column_is_text(kind: pa.DataType):
    data = parquet({"text": pa.array(["a", "b", "a"], pa.string()).cast(kind)})
    assert [r.text for r in read(data)] == ["a", "b", "a"]


@pytest.mark.parametrize(("columns", "reason"), [({"txt": ["a", "b"]}, "MissingTextField"), ({"text": [1, 2]}, "WrongTextType")])
def test_a_column_that_is_missing_or_no_text_makes_every_row_bad(columns: dict, reason: str):
    records = read(parquet(columns))
    assert [(r.ordinal, r.reason) for r in records] == [(0, reason), (1, reason)]
    assert "'text'" in records[0].detail


@settings(deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_is_one_truncated_file(data: st.DataObject):
    whole = parquet({"text": ["a", "b"]})
    (record,) = read(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert (record.ordinal, record.reason) == (0, "TruncatedFile")


def test_a_damaged_page_ends_the_file_after_the_rows_before_it():
    whole = bytearray(parquet({"text": [f"{n}" * 50 for n in range(40)]}, row_group_size=10, write_page_checksum=True))
    start = pq.ParquetFile(io.BytesIO(whole)).metadata.row_group(2).column(0).dictionary_page_offset
    whole[start : start + 40] = b"\xff" * 40
    *before, last = read(bytes(whole))
    assert [r.text for r in before] == [f"{n}" * 50 for n in range(20)]
    assert (last.ordinal, last.reason) == (20, "BrokenFile")


def test_a_damaged_footer_is_one_broken_file():
    whole = bytearray(parquet({"text": ["a"]}))
    whole[-40:-8] = b"\xff" * 32
    (record,) = read(bytes(whole))
    assert (record.ordinal, record.reason) == (0, "BrokenFile")
