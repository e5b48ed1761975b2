"""An `ObjectStore` over a folder: the laptop's store, and the one that tests compare S3 with.

Unlike S3, a folder cannot hold `a` and `a/b` at once (UsageError `BadKey`).
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import xxhash

from nativealign_workloads.errors import DataError, UsageError

from .base import (
    AlreadyExists,
    NotFound,
    ObjectInfo,
    ObjectStore,
    check_key,
    folder_of,
    no_conditional_writes,
)
from .files import BLOCK, TEMP_PREFIX, file_errors, flush_to_disk, replacing, sync_folder, temporary_beside

_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalStore(ObjectStore):
    """Objects are the regular files under `root`, which is made when first written to."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def __str__(self) -> str:
        return str(self.root)

    def stat(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        with file_errors(str(path)):
            return _info(key, path) if path.is_file() else None

    def open(self, key: str) -> BinaryIO:
        path = self._path(key)
        with file_errors(str(path)):
            try:
                return path.open("rb")
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise NotFound(key, self) from None

    def write(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with file_errors(str(path)), replacing(path) as stream:
            stream.write(data)

    def create(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with file_errors(str(path)), temporary_beside(path) as (temporary, stream):
            stream.write(data)
            flush_to_disk(stream)
            try:
                os.link(temporary, path)  # unlike a rename, fails if the name is taken
            except FileExistsError:
                if not path.is_file() or path.read_bytes() != data:
                    raise AlreadyExists(key) from None
            except OSError as exc:
                if exc.errno in _NO_HARD_LINKS:
                    raise no_conditional_writes(self, "its file system has no hard links") from exc
                raise
            sync_folder(path.parent)

    def upload(self, key: str, path: Path) -> None:
        target = self._path(key)
        with path.open("rb") as source, file_errors(str(target)), replacing(target) as stream:
            shutil.copyfileobj(source, stream, BLOCK)

    def list(self, prefix: str, *, with_etag: bool = False) -> Iterator[ObjectInfo]:
        folder = folder_of(prefix)
        for key, entry in _walk(self.root / folder, folder + "/" if folder else "", prefix, ()):
            with file_errors(entry.path), suppress(FileNotFoundError):  # removed meanwhile
                found = entry.stat()
                yield _info(key, Path(entry.path)) if with_etag else ObjectInfo(key, found.st_size, "", found.st_mtime)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with file_errors(str(path)):
            if path.is_file():
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)


def _info(key: str, path: Path) -> ObjectInfo:
    digest, size = xxhash.xxh3_128(), 0
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
            size += len(block)
    return ObjectInfo(key, size, digest.hexdigest(), path.stat().st_mtime)


def _walk(folder: Path, base: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Regular files below `folder` whose key starts with `prefix`, ascending; `base` is the folder's own key.

    A folder sorts as if its name ended in `/`, so that keys come in the order of whole keys, as S3 lists them.
    `above` holds (device, inode) of the folders entered, so that a loop of links ends in an error.
    """
    with file_errors(str(folder)):
        if not folder.is_dir():
            return
        here = (folder.stat().st_dev, folder.stat().st_ino)
        if here in above:
            raise UsageError("LinkLoop", f"{folder} is a link to a folder that contains it", "remove the link")
        with os.scandir(folder) as entries:
            named = sorted((_name(entry) + "/" * entry.is_dir(), entry) for entry in entries)
    for name, entry in named:
        key = base + name
        if name.startswith(TEMP_PREFIX):
            continue
        if name.endswith("/") and (key.startswith(prefix) or prefix.startswith(key)):
            yield from _walk(Path(entry.path), key, prefix, (*above, here))
        elif key.startswith(prefix) and entry.is_file():
            yield key, entry
        elif key.startswith(prefix) and entry.is_symlink():
            raise DataError("BrokenLink", f"{entry.path} leads to no file", "repair or remove the link")


def _name(entry: os.DirEntry[str]) -> str:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise DataError("NameNotUtf8", f"the file name {os.fsencode(entry.path)!r} is not UTF-8", "rename it") from None
    return entry.name
