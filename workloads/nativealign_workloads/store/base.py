"""What a store can do, and the rules that hold for every store: its keys, its two own errors, its self-test.

A key is a relative path with `/` between its parts (`steps/clean/part-0`); a store maps keys to byte strings. No
method holds a large object in memory except `read`, `write` and `create`, which are meant for small ones (manifests,
indexes).
"""

import shutil
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nativealign_workloads.errors import ConfigError, NoInputError, PermissionDenied, StepError, UsageError

from .files import BLOCK, TEMP_PREFIX, file_errors, replacing

SELF_TEST_ROUNDS = 4
SELF_TEST_WRITERS = 8


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object: its key, its size in bytes, an opaque tag of its content ("" where it was not asked for), and when it was
    written last, in POSIX seconds by the store's own clock."""

    key: str
    size: int
    etag: str
    modified: float


class AlreadyExists(StepError):
    """`create` found another content under `key`. Normal between racing writers; callers catch it."""

    def __init__(self, key: str) -> None:
        super().__init__("AlreadyExists", f"{key} already exists with another content")
        self.key = key


class NotFound(NoInputError):
    """Nothing is stored under `key`."""

    def __init__(self, key: str, store: object) -> None:
        super().__init__("ObjectNotFound", f"{store} has no object {key}", "check the key, and whether it was removed")
        self.key = key


def check_key(key: str) -> str:
    """Return `key`, or raise UsageError `BadKey` if it is not a relative path that every kind of store can hold."""
    parts = key.split("/")
    if "\0" in key or any(p in ("", ".", "..") or p.startswith(TEMP_PREFIX) for p in parts):
        raise UsageError("BadKey", f"{key!r} is not a relative path", "keys look like folder/name, without . or ..")
    return key


def folder_of(prefix: str) -> str:
    """The folder part of a listing's prefix, checked as keys are; "" for the root."""
    folder = prefix.rpartition("/")[0]
    return check_key(folder) if folder else ""


ANSWER_SECONDS = 2.0
"""For one question whether a store is there."""


class ObjectStore(ABC):
    """A folder or a bucket. `str(store)` names it in messages and never holds credentials.

    All methods raise the errors of `nativealign_workloads.errors`: PermissionDenied (credentials or file modes),
    UnavailableError (no answer after bounded retries), NoSpaceError (full), ConfigError (bucket missing, store unfit),
    UsageError (bad key). Methods may be called from several threads.
    """

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo | None:
        """Size and tag of one object; None if there is none."""

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """A seekable stream over one object, read as it goes. Raises NotFound."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Store `data`, whatever was there before; a reader sees the old content or the new, never a part."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> None:
        """Store `data` only if `key` is free, atomically among all writers (RFC 9110, `If-None-Match: *`).

        Raises AlreadyExists if another content is there. The same content counts as success, because a reply lost
        on its way looks just like that; who must know the winner puts the writer's name into `data`.
        """

    def try_create(self, key: str, data: bytes) -> bool:
        """As `create`; False where another content is there."""
        try:
            self.create(key, data)
        except AlreadyExists:
            return False
        return True

    @abstractmethod
    def upload(self, key: str, path: Path) -> None:
        """Store the content of a local file, as `write` does but without holding it in memory."""

    @abstractmethod
    def list(self, prefix: str, *, with_etag: bool = False) -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix` (a plain string, not a folder), ascending by key, as a stream.

        `etag` is "" unless `with_etag`: a folder has to read every file for it.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove one object; nothing happens if there is none."""

    def answers(self) -> bool:
        """Whether the store says anything at all within ANSWER_SECONDS, be it an error."""
        return True

    def read(self, key: str) -> bytes:
        """The whole content of a small object. Raises NotFound."""
        with self.open(key) as stream:
            return stream.read()

    def download(self, key: str, path: Path) -> None:
        """Copy one object to a local file that appears complete or not at all. Raises NotFound."""
        with self.open(key) as source, file_errors(str(path)), replacing(path) as stream:
            shutil.copyfileobj(source, stream, BLOCK)

    def self_test(self) -> None:
        """Prove that `create` lets exactly one of several concurrent writers win.

        Some S3 servers and some proxies ignore the condition, and then two writers could both commit one shard.
        Raises ConfigError `NoConditionalWrites`.
        """
        for _ in range(SELF_TEST_ROUNDS):
            key = f"self-test/{uuid.uuid4().hex}"
            winners = _race(self, key)
            kept = self.read(key)
            with suppress(PermissionDenied):  # writers may be forbidden to delete; some bytes stay then
                self.delete(key)
            if winners != [kept]:
                raise no_conditional_writes(self, f"{len(winners)} of {SELF_TEST_WRITERS} concurrent creates won")


def _race(store: ObjectStore, key: str) -> list[bytes]:
    """Let SELF_TEST_WRITERS threads create `key` at once; the contents whose writers were told that they won."""
    start = threading.Barrier(SELF_TEST_WRITERS)

    def attempt(writer: int) -> bytes | None:
        data = b"writer %d" % writer
        start.wait()
        try:
            store.create(key, data)
        except AlreadyExists:
            return None
        return data

    with ThreadPoolExecutor(SELF_TEST_WRITERS) as pool:
        return [data for data in pool.map(attempt, range(SELF_TEST_WRITERS)) if data is not None]


def no_conditional_writes(store: object, seen: str) -> ConfigError:
    """The error of a store on which two writers could both win."""
    return ConfigError(
        "NoConditionalWrites",
        f"{store} does not honour conditional writes (If-None-Match: *): {seen}",
        "use an S3 server that does, and no proxy that drops the header",
    )
