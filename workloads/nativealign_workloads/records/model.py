"""What a reader yields, and the checks that every document's text must pass."""

from collections.abc import Callable
from dataclasses import dataclass


class Truncated(Exception):
    """The file ends too early; the text says what breaks off."""


class Broken(Exception):
    """The file is damaged, or not what it is called; the text says how."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of JSON keys, Parquet columns or WARC headers; None for what a corpus does not have."""

    text: str = "text"
    id: str | None = None
    license: str | None = None
    url: str | None = None

    @property
    def attributes(self) -> tuple[str | None, ...]:
        """What a record may have beside its text, in the order of `checked`."""
        return self.id, self.license, self.url


@dataclass(frozen=True, slots=True)
class Record:
    """One document: its place in the file (from 0, bad ones count too), its text as read, the user's own id, licence, address."""

    ordinal: int
    text: str
    user_id: str | None = None
    license: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record, or the rest of a file, that is set aside.

    `reason` is one of NotUtf8, NotJson, NotAnObject, MissingTextField, WrongTextType, LoneSurrogate, NulCharacter,
    RecordTooLarge, NotPlainText (one record each), TruncatedFile, BrokenFile (nothing follows). `detail` says where and what.
    """

    ordinal: int
    reason: str
    detail: str


Parse = Callable[[int], Record | BadRecord]
"""A record that has been read but not looked into: what it is, by its ordinal."""


def checked(
    ordinal: int, text: str, where: str, user_id: object = None, license: object = None, url: object = None
) -> Record | BadRecord:
    """A Record, unless the text has a character that our files or the tokenizers' cannot hold."""
    nul = text.find("\0")
    if nul >= 0:
        return BadRecord(ordinal, "NulCharacter", f"{where}: U+0000 at character {nul}")
    return Record(ordinal, text, _user_id(user_id), *(value if isinstance(value, str) else None for value in (license, url)))


def _user_id(value: object) -> str | None:
    """Strings and whole numbers are ids; what else may stand in the field is not."""
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
