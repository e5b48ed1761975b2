"""Arrow streams, as `datasets.save_to_disk` writes them, and the folder around them."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pytest

from nativealign_workloads.errors import NoInputError
from nativealign_workloads.inspection.corpora import data_files
from nativealign_workloads.records import BadRecord, Fields, Record, read_records, read_schema
from nativealign_workloads.sources import Source
from nativealign_workloads.store import LocalStore


def stream(table: pa.Table) -> bytes:
    output = io.BytesIO()
    with pa.ipc.new_stream(output, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return output.getvalue()


def read(data: bytes) -> list[Record | BadRecord]:
    return list(
        read_records(io.BytesIO(data), "data-00000-of-00001.arrow", format="Auto", fields=Fields(id="id", license="license"))
    )


def test_every_row_is_a_record_in_its_place() -> None:
    texts = ["نص", "another", None, "x", "y"]
    table = pa.table({"id": list("abcde"), "text": texts, "license": ["MIT", None, "MIT", "MIT", None]})
    found = read(stream(table))
    assert [r.reason if isinstance(r, BadRecord) else (r.text, r.user_id, r.license) for r in found] == [
        ("نص", "a", "MIT"),
        ("another", "b", None),
        "WrongTextType",
        ("x", "d", "MIT"),
        ("y", "e", None),
    ]
    assert read_schema(io.BytesIO(stream(table)), "a.arrow") == {"id": "string", "text": "string", "license": "string"}


def test_rows_without_the_column_are_counted() -> None:
    found = read(stream(pa.table({"body": ["a", "b", "c"]})))
    assert [(r.ordinal, r.reason) for r in found] == [(n, "MissingTextField") for n in range(3)]


@pytest.mark.parametrize("cut", [1, 8, 40])
def test_a_stream_that_breaks_off_is_told_from_one_that_ends(cut: int) -> None:
    (found,) = read(stream(pa.table({"text": ["a", "b"]}))[:-cut])
    assert found.reason == "TruncatedFile"


def test_of_a_dataset_folder_only_the_data_is_read(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in ("README.md", "dataset_dict.json", "train/dataset_info.json", "train/state.json", ".gitattributes"):
        (tmp_path / name).write_text(json.dumps({}))
    source = Source(LocalStore(tmp_path), "", "**", "corpus/")
    with pytest.raises(NoInputError, match="no data"):
        data_files(source)
    (tmp_path / "train/data-00000-of-00001.arrow").write_bytes(stream(pa.table({"text": ["a"]})))
    assert [file.key for file in data_files(source)] == ["train/data-00000-of-00001.arrow"]
