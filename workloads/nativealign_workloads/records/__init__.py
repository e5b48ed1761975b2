"""Documents on their way in and rows on their way between steps.

`read_records` reads a user's file (JSONL, Parquet or text) record by record in bounded memory and never fails on bad
content; `encode_frame` and `read_rows` are the format of our own part files.
"""

from .formats import detect_format, is_card
from .model import BadRecord, Fields, Record
from .parts import encode_frame, read_rows
from .reader import read_records
from .schema import read_schema

__all__ = ["BadRecord", "Fields", "Record", "detect_format", "encode_frame", "is_card", "read_records", "read_rows", "read_schema"]
