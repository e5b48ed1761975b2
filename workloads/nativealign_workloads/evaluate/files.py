"""CSV and JSON lines with line numbers, read as published. Used by loaders.py and run.py.

Every error is a DataError that names file and line (the line on which a quoted CSV row begins).
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nativealign_workloads.errors import DataError


def records(path: Path, fields: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    if path.suffix == ".csv":
        yield from csv_records(path, fields)
        return
    for line, row in jsonl(path):
        yield line, {key: "" if row.get(key, "") is None else text_field(path, line, row, key) for key in fields}


def csv_records(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    rows = csv_rows(path)
    _, header = next(rows, (0, []))
    if missing := [column for column in columns if column not in header]:
        raise bad_row(path, 1, f"the header lacks {', '.join(missing)}")
    for line, row in rows:
        if len(row) != len(header):
            raise bad_row(path, line, f"{len(row)} columns, the header has {len(header)}")
        yield line, dict(zip(header, row, strict=True))


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of the line on which each begins."""
    reader = csv.reader((text for _, text in lines(path)))
    begin = 1
    try:
        for row in reader:
            if row:
                yield begin, row
            begin = reader.line_num + 1
    except csv.Error as error:
        raise bad_row(path, begin, str(error)) from error


def jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, text in lines(path):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise bad_row(path, line, f"no JSON: {error}") from error
        if not isinstance(row, dict):
            raise bad_row(path, line, "no JSON object")
        yield line, row


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines split at line feeds only (Arabic text may hold U+2028 and the like), numbered from 1; a BOM is dropped."""
    with path.open("rb") as file:
        for line, raw in enumerate(file, 1):
            try:
                yield line, raw.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise bad_row(path, line, f"not UTF-8 at byte {error.start} of the line") from error


def text_field(path: Path, line: int, row: Mapping[str, Any], key: str) -> str:
    if not isinstance(row.get(key), str):
        raise bad_row(path, line, f"field {key!r} is missing or no text")
    return str(row[key])


def bad_row(path: Path, line: int, problem: str) -> DataError:
    return DataError("BadBenchmarkRow", f"{path}:{line}: {problem}", "compare the file with its published original")
