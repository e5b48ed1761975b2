"""Files that appear complete or not at all, and the errors of the file system in our words. Used by both stores."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nativealign_workloads.errors import NoSpaceError, PermissionDenied, StepError, UsageError

# Names of unfinished files; no key may contain a part that starts so.
TEMP_PREFIX = ".nativealign-tmp-"
BLOCK = 1 << 20

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISPLACED = {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP}


@contextmanager
def temporary_beside(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file in the folder of `path` (made if missing), removed at the end unless the caller renamed it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / (TEMP_PREFIX + uuid.uuid4().hex)
    try:
        with temporary.open("xb") as stream:
            yield temporary, stream
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content becomes `path` when the block ends well; durable on return."""
    with temporary_beside(path) as (temporary, stream):
        yield stream
        flush_to_disk(stream)
        os.replace(temporary, path)
        sync_folder(path.parent)


def flush_to_disk(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make new names in `folder` durable; fsync of a file alone does not cover its name (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def file_errors(what: str) -> Iterator[None]:
    """Raise the StepError that belongs to an OSError met while handling `what`."""
    try:
        yield
    except OSError as exc:
        raise _step_error(exc, what) from exc


def _step_error(exc: OSError, what: str) -> StepError:
    message = f"{what}: {exc.strerror or exc}"
    if exc.errno in _FULL:
        return NoSpaceError("NoSpace", message, "free or add space, then run again")
    if exc.errno in _REFUSED:
        return PermissionDenied("PermissionDenied", message, "check the owner and mode of the folder")
    if exc.errno in _MISPLACED:
        return UsageError("BadKey", message, "a name cannot be a file and a folder at once, nor longer than 255 bytes")
    return NoSpaceError("InputOutputError", message, "check the disk")
