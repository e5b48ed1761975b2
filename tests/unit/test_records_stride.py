"""Shards that share a file: together they have what one reader has, whatever the format, and however the file ends."""

import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.test_records_warc import wet

from nativealign_workloads.records import BadRecord, Fields, Record, read_records

LINES = b"".join([b'{"text":"one"}\n', b"{\n", b"\n", *[b'{"text":"number %d"}\n' % n for n in range(40)]])


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": [f"row {n}" for n in range(30)] + [None]}), buffer, row_group_size=4)
    return buffer.getvalue()


def damaged_dictionary() -> bytes:
    """Arrow batches of which the second refers to a word that its dictionary does not have."""
    buffer, words = io.BytesIO(), pa.array(["a", "b"])
    batches = [
        pa.record_batch({"text": pa.DictionaryArray.from_arrays(pa.array(n, pa.int8()), words, safe=False)})
        for n in ([0, 1], [1, 7])
    ]
    with pa.ipc.new_stream(buffer, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return buffer.getvalue()


FILES = {
    "a.jsonl": LINES,
    "a.jsonl.gz": gzip.compress(LINES, mtime=0),
    "a.warc": wet(*[b"text %d" % n for n in range(9)], compressed=False, page=True),
    "a.warc.gz": wet(*[b"text %d" % n for n in range(9)], compressed=True, page=True),
    "a.parquet": parquet(),
    "a.arrow": damaged_dictionary(),
}


def read(data: bytes, key: str, stride: tuple[int, int]) -> list[Record | BadRecord]:
    return list(read_records(io.BytesIO(data), key, format="Auto", fields=Fields(), stride=stride))


@pytest.mark.parametrize("key", FILES)
@settings(deadline=None)
@given(st.integers(1, 7), st.floats(0.2, 1))
def test_shards_that_share_a_file_read_each_record_once(key: str, shards: int, part: float) -> None:
    data = FILES[key][: round(part * len(FILES[key]))]
    parts = [read(data, key, (shard, shards)) for shard in range(shards)]
    for shard, records in enumerate(parts):
        assert {record.ordinal % shards for record in records} <= {shard}
    assert sorted((record for records in parts for record in records), key=lambda record: record.ordinal) == read(data, key, (0, 1))


def test_a_damaged_dictionary_ends_the_file_after_the_rows_before_it() -> None:
    found = read(FILES["a.arrow"], "a.arrow", (0, 1))
    assert [record.text if isinstance(record, Record) else record.reason for record in found] == ["a", "b", "BrokenFile"]
