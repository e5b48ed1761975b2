"""What a URI in a spec points at: files to read, folders to bring here.

Called by inspect, which lists and pins, and by the steps that read what was pinned.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from nativealign_workloads.commit import fetch_folder, manifest, read_json
from nativealign_workloads.context import Context
from nativealign_workloads.errors import ConfigError, NoInputError
from nativealign_workloads.model_files import is_safe, is_tokenizer
from nativealign_workloads.store import LocalStore, ObjectStore

STALE_SECONDS = 86400
"""Age at which a partial copy in the model cache is taken for that of a dead pod."""


@dataclass(frozen=True)
class Source:
    """A URI taken apart: the store that it lies in, the folder before the first wildcard, and the pattern after it."""

    store: ObjectStore
    folder: str
    """Key prefix without wildcards; empty or ending in a slash."""
    pattern: str
    """Shell pattern below `folder`; `**` for everything."""
    uri: str


@dataclass(frozen=True)
class SourceFile:
    """One object of a source."""

    key: str
    """Relative to the source's folder."""
    size: int
    etag: str


def open_source(context: Context, uri: str) -> Source:
    """The store, folder and pattern of a URI. Relative paths start from the manifest's folder."""
    if uri.startswith("s3://"):
        url = urlsplit(uri)
        folder, pattern = split_pattern(uri.removeprefix(f"s3://{url.netloc}").lstrip("/"))
        return Source(context.open_bucket(url.netloc), folder, pattern, uri)
    if not context.job.store_folder and not context.job.base_directory:
        raise ConfigError("LocalPath", f"{uri} is a path, and this job runs on a cluster", "use s3://")
    path = Path(context.job.base_directory or ".").joinpath(uri.removeprefix("file://")).as_posix()
    folder, pattern = split_pattern(path)
    return _local(Path(folder or "/").resolve(), pattern, uri)


def _local(root: Path, pattern: str, uri: str) -> Source:
    if pattern != "**" and (root / pattern).is_dir():
        root, pattern = root / pattern, "**"
    return Source(LocalStore(root), "", pattern, uri)


def split_pattern(path: str) -> tuple[str, str]:
    """("web/", "*.jsonl") of web/*.jsonl. A folder, named with or without a slash at its end, has the pattern `**`."""
    parts = path.split("/")
    first = next((n for n, part in enumerate(parts) if re.search(r"[*?]", part)), len(parts) - 1)
    folder = "".join(f"{part}/" for part in parts[:first])
    return folder, "/".join(parts[first:]) or "**"


def matches(key: str, pattern: str) -> bool:
    """Whether a key relative to the folder fits.

    `*` and `?` stay within a name, `**` crosses folders; a pattern without wildcards names a file or a folder.
    """
    if not re.search(r"[*?]", pattern):
        return key == pattern or key.startswith(f"{pattern}/")
    return _fits(key.split("/"), pattern.split("/"))


def _fits(names: list[str], parts: list[str]) -> bool:
    if not names or not parts:
        return not names and not parts
    if parts[0] == "**":
        return len(parts) == 1 or any(_fits(names[skipped:], parts[1:]) for skipped in range(len(names)))
    part = parts[0].replace("[", "[[]")  # a bracket stands for itself
    return fnmatchcase(names[0], part) and _fits(names[1:], parts[1:])


def files(source: Source) -> Iterator[SourceFile]:
    """The files of a source with size and ETag, ascending by key; empty ones and hidden ones are left out."""
    literal = re.split(r"[*?]", source.pattern)[0]
    named = literal == source.pattern
    for info in source.store.list(f"{source.folder}{literal}", with_etag=True):
        key = info.key.removeprefix(source.folder)
        below = key.removeprefix(literal) if named else key
        hidden = any(part.startswith((".", "_")) for part in below.split("/"))
        if info.size and not hidden and matches(key, source.pattern):
            yield SourceFile(key, info.size, info.etag)


def required_files(source: Source) -> list[SourceFile]:
    """As `files`; raises NoInputError InputEmpty where there is none."""
    found = list(files(source))
    if not found:
        hint = "check the URI and its wildcards" + (
            "" if "://" in source.uri else "; a relative path starts from the manifest's folder"
        )
        raise NoInputError("InputEmpty", f"{source.uri}: no file with any content in {source.store}", hint)
    return found


def model_folder(context: Context, name: str, *, tokenizer_only: bool = False) -> Path:
    """A local folder with the model that an input stands for: a pinned URI, or the part `model/` of a step.

    It is brought once into the model cache, under its digest. Raises NoInputError InputChanged if the files behind a pinned URI are
    not the pinned ones any more.
    """
    prefix = context.job.inputs[name]
    target = context.model_cache / (prefix.rpartition("/")[2] + "-tokenizer" * tokenizer_only)
    wanted = is_tokenizer if tokenizer_only else is_safe
    listing = None if prefix.startswith("steps/") else read_json(context.store, f"{prefix}/listing.json")
    context.copies[str(target)] = str(listing["uri"]) if listing else f"the model of {prefix}"
    if target.is_dir():
        return target
    partial = target.with_name(f"{target.name}.{context.writer}.partial")
    for left in target.parent.glob(f"{target.name}.*.partial"):
        if time.time() - left.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(exist_ok=True)  # also where the model has none of the wanted files
    if listing:
        fetch_pinned(context, listing, partial, wanted)
    else:
        fetch_folder(context, manifest(context.store, prefix)["shards"][0], "model", partial, wanted)
    try:
        partial.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(partial)  # another pod was faster
    return target


def fetch_pinned(
    context: Context, listing: dict[str, object], target: Path, wanted: Callable[[str], bool] = lambda name: True
) -> Path:
    """Brings the wanted files of a pinned folder here and makes sure that all are the pinned ones."""
    source = open_source(context, str(listing["uri"]))
    context.copies[str(target)] = source.uri
    found = list(files(source))
    if [[file.key, file.size, file.etag] for file in found] != listing["files"]:
        raise NoInputError("InputChanged", f"{source.uri} is not what it was when the job started", "create a new job")
    for file in (file for file in found if wanted(Path(file.key).name)):
        key = f"{source.folder}{file.key}"
        path = target / file.key.removeprefix(f"{source.pattern}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        context.check_stop()
        source.store.download(key, path)
    return target
