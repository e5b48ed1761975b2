"""Parquet files and Arrow streams row by row. Called by `read_records`; a stream is read in pages, never as a whole."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from .model import BadRecord, Broken, Fields, Parse, Record, Truncated, checked

READ_BYTES = 1 << 20
BATCH_BYTES = 8 << 20
MAX_BATCH_ROWS = 1024
SMALLEST = 12  # two magic words and the footer's length
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def columnar_schema(stream: BinaryIO, format: str) -> dict[str, str]:
    """Column name -> Arrow type."""
    schema = pq.read_schema(stream) if format == "Parquet" else pa.ipc.open_stream(stream).schema
    return {field.name: str(field.type) for field in schema}


def columnar_records(stream: BinaryIO, format: str, fields: Fields, max_record_bytes: int) -> Iterator[Parse]:
    """Every row as a record; rows without usable text as BadRecords. Raises Truncated or Broken where reading ends."""
    try:
        _check_end(stream, format)
        yield from _parquet(stream, fields, max_record_bytes) if format == "Parquet" else _arrow(stream, fields, max_record_bytes)
    except pa.ArrowException as exc:
        raise Broken(f"{format}: {exc}") from None
    except OSError as exc:
        if exc.errno is not None:  # the disk's, not the file's
            raise
        raise Broken(f"{format}: {exc}") from None


def _parquet(stream: BinaryIO, fields: Fields, limit: int) -> Iterator[Parse]:
    file = pq.ParquetFile(stream, buffer_size=READ_BYTES)
    if problem := _text_problem(file.schema_arrow, fields.text):
        return _all_bad(file.metadata.num_rows, *problem)
    return _rows(_parquet_batches(file, fields), file.schema_arrow, fields, limit)


def _arrow(stream: BinaryIO, fields: Fields, limit: int) -> Iterator[Parse]:
    reader = pa.ipc.open_stream(stream)
    if problem := _text_problem(reader.schema, fields.text):
        return _all_bad(sum(batch.num_rows for batch in reader), *problem)
    return _rows(reader, reader.schema, fields, limit)


def _all_bad(count: int, reason: str, detail: str) -> Iterator[Parse]:
    return repeat(lambda row: BadRecord(row, reason, f"row {row}: {detail}"), count)


def _check_end(stream: BinaryIO, format: str) -> None:
    """Parquet ends with its index, without which nothing is readable; an Arrow stream with a mark, else rows may be missing."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 8))
    end = stream.read(8)
    if format == "Parquet" and (end[-4:] not in (b"PAR1", b"PARE") or size < SMALLEST):
        raise Truncated("the Parquet footer is missing")
    if format == "Arrow" and end != END_OF_STREAM:
        raise Truncated("the Arrow stream's end is missing")
    stream.seek(0)


def _text_problem(schema: pa.Schema, text_field: str) -> tuple[str, str] | None:
    index = schema.get_field_index(text_field)
    if index < 0:
        return "MissingTextField", f"no column {text_field!r}"
    kind = schema.field(index).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return None
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return None
    return "WrongTextType", f"column {text_field!r} is {kind}, not a string"


def _rows(batches: Iterable[pa.RecordBatch], schema: pa.Schema, fields: Fields, limit: int) -> Iterator[Parse]:
    known = [name if name and schema.get_field_index(name) >= 0 else None for name in fields.attributes]
    for batch in batches:
        texts, *others = (_dense(batch.column(name)) if name else None for name in (fields.text, *known))
        for row in range(batch.num_rows):
            yield partial(_record, row=row, texts=texts, others=others, text_field=fields.text, max_record_bytes=limit)


def _dense(column: pa.Array) -> pa.Array:
    """Without a dictionary; one that has not what is asked of it raises here, where all who share the file see it."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _parquet_batches(file: pq.ParquetFile, fields: Fields) -> Iterator[pa.RecordBatch]:
    wanted = dict.fromkeys([fields.text, *fields.attributes])
    columns = [name for name in wanted if name and file.schema_arrow.get_field_index(name) >= 0]
    for group in range(file.num_row_groups):  # a batch never spans groups: damage in one leaves those before it whole
        size = _batch_rows(file.metadata.row_group(group))
        yield from file.iter_batches(size, row_groups=[group], columns=columns, use_threads=False)


def _batch_rows(group: pq.RowGroupMetaData) -> int:
    """Rows that are together about BATCH_BYTES, by the group's mean."""
    mean: int = group.total_byte_size // max(1, group.num_rows)
    return min(MAX_BATCH_ROWS, max(1, BATCH_BYTES // max(1, mean)))


def _record(
    ordinal: int, row: int, texts: pa.Array, others: list[pa.Array | None], text_field: str, max_record_bytes: int
) -> Record | BadRecord:
    """Row `row` of a batch: its text, and what `checked` takes beside it."""
    where, text = f"row {ordinal}", texts[row]
    if not text.is_valid:
        return BadRecord(ordinal, "WrongTextType", f"{where}: {text_field!r} is null, not a string")
    content = text.as_buffer()
    if content.size > max_record_bytes:
        return BadRecord(ordinal, "RecordTooLarge", f"{where}: more than {max_record_bytes} bytes")
    attributes = (None if column is None else column[row].as_py() for column in others)
    try:
        return checked(ordinal, content.to_pybytes().decode(), where, *attributes)
    except UnicodeDecodeError as exc:
        return BadRecord(ordinal, "NotUtf8", f"{where}: {exc.reason} at byte {exc.start}")
