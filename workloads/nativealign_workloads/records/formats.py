"""From a file's name and first bytes to its format and compression."""

from pathlib import PurePosixPath

from .model import Broken

_FORMATS = {
    ".jsonl": "Jsonl",
    ".ndjson": "Jsonl",
    ".json": "Jsonl",
    ".parquet": "Parquet",
    ".arrow": "Arrow",
    ".txt": "Text",
    ".text": "Text",
    ".warc": "Warc",
    ".wet": "Warc",
}
_CARDS = ("README.md", "LICENSE", "LICENSE.txt", "dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")
"""What a Hugging Face dataset folder has beside its data."""

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_MAGIC = {
    "gzip": b"\x1f\x8b",  # RFC 1952, 2.3.1
    "zstd": b"\x28\xb5\x2f\xfd",  # RFC 8878, 3.1.1
    "Parquet": b"PAR1",
    "Arrow": b"\xff\xff\xff\xff",  # a message of the streaming format
}
COLUMNAR = ("Parquet", "Arrow")
MAGIC_SIZE = 4


def detect_format(key: str) -> str | None:
    """`Jsonl`, `Parquet`, `Text` or `Warc` by the name's endings (`.jsonl.zst`, `.txt.gz`, …); None if they say nothing."""
    return _FORMATS.get(_endings(key)[0])


def is_card(key: str) -> bool:
    """Whether a file describes a dataset instead of holding its records."""
    return PurePosixPath(key).name in _CARDS


def compression_of(key: str, format: str, head: bytes) -> str | None:
    """`gzip`, `zstd` or None for a file of this format, judged by its name and its first MAGIC_SIZE bytes.

    Raises Broken, naming both, if they contradict each other. A file cut within its first bytes contradicts nothing,
    nor does a name that says nothing of its content.
    """
    named = _COMPRESSIONS.get(_endings(key)[1])
    expected = format if format in COLUMNAR else named
    found = _content(head)
    if found is None and expected and len(head) < MAGIC_SIZE and _MAGIC[expected].startswith(head):
        found = expected
    if found in _COMPRESSIONS.values() and expected is None and detect_format(key) is None:
        return found
    if found != expected:
        said, seen = (f"{word or 'plain'} content" for word in (expected, found))
        raise Broken(f"InputFormat: {said} by its name or the corpus' format, {seen} by its first bytes")
    return named


def _content(head: bytes) -> str | None:
    """What the first bytes show: `gzip`, `zstd`, `Parquet`, or None."""
    if head[1:] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:  # a skippable frame, RFC 8878, 3.1.2
        return "zstd"
    return next((content for content, magic in _MAGIC.items() if head.startswith(magic)), None)


def _endings(key: str) -> tuple[str, str]:
    """The ending that names the format and the one that names the compression, lower case, "" where absent."""
    name = PurePosixPath(key.lower())
    last = name.suffix
    return (PurePosixPath(name.stem).suffix, last) if last in _COMPRESSIONS else (last, "")
