"""`python -m nativealign_workloads.download [--store LOCATION] [--worker] STATUS.json FOLDER`: a job's result as a plain folder.

Of an AlignJob the aligned corpus as a dataset with a card, or the trained worker; of a PretrainJob the exported model. Files that
are there already stay, so that a download goes on where it stopped.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from nativealign_workloads.align.dataset import card, view_files, views, write_views
from nativealign_workloads.commit import Json, file_sum, record_rows
from nativealign_workloads.errors import NoInputError, StepError, UsageError
from nativealign_workloads.report.gather import Job, collect, open_job_store, read_status
from nativealign_workloads.store import ObjectStore
from nativealign_workloads.store.files import TEMP_PREFIX, file_errors, replacing

CARD = "README.md"


@dataclass(frozen=True)
class Item:
    """Files that are written together."""

    paths: tuple[str, ...]
    size: int
    """Of what they are made from, in bytes."""


class Result(Protocol):
    """What a job has made, as files of a folder."""

    items: list[Item]

    def there(self, item: Item, folder: Path) -> bool:
        """Whether the files are in the folder already."""

    def write(self, item: Item, folder: Path) -> None:
        """Writes them; each file appears complete or not at all."""


class Dataset:
    """Card and Parquet files of an AlignJob."""

    def __init__(self, store: ObjectStore, job: Job) -> None:
        self._store, self._shards = store, job.manifests["rewrite"]["shards"]
        self._card = card(job.name, job.spec, job.manifests, job.conduct.get("name", "not kept")).encode()
        self._views = view_files(views(job.spec), len(self._shards))
        sizes = [sum(part["bytes"] for part in shard["parts"].values()) for shard in self._shards]
        self.items = [Item((CARD,), len(self._card))]
        self.items += [Item(tuple(paths.values()), size) for paths, size in zip(self._views, sizes, strict=True)]

    def there(self, item: Item, folder: Path) -> bool:
        """The card comes first and names the digests, so where it is equal the other files are of the same result."""
        if item.paths == (CARD,):
            return (folder / CARD).is_file() and (folder / CARD).read_bytes() == self._card
        return all((folder / path).is_file() for path in item.paths)

    def write(self, item: Item, folder: Path) -> None:
        with ExitStack() as stack:
            streams = [stack.enter_context(replacing(folder / path)) for path in item.paths]
            if item.paths == (CARD,):
                streams[0].write(self._card)
                return
            shard = self.items.index(item) - 1
            write_views(
                record_rows(self._store, self._shards[shard], "documents"), dict(zip(self._views[shard], streams, strict=True))
            )


class Model:
    """The model that a step has made."""

    def __init__(self, store: ObjectStore, manifest: Json) -> None:
        (shard,) = manifest["shards"]
        self._store = store
        self._parts: dict[str, Json] = {
            name.removeprefix("model/"): part for name, part in shard["parts"].items() if name.startswith("model/")
        }
        self.items = [Item((name,), part["bytes"]) for name, part in self._parts.items()]

    def there(self, item: Item, folder: Path) -> bool:
        path = folder / item.paths[0]
        return path.is_file() and file_sum(path) == self._parts[item.paths[0]]["xxh3"]

    def write(self, item: Item, folder: Path) -> None:
        self._store.download(self._parts[item.paths[0]]["key"], folder / item.paths[0])


def result_of(store: ObjectStore, job: Job, worker: bool = False) -> Result:
    """Its main result, or its worker. Raises UsageError for a job without one, NoInputError where the step is not committed."""
    if job.kind == "EvalJob":
        raise UsageError("NoFolder", f"{job.reference} makes scores, not a folder", f"use `nativealign report {job.reference}`")
    if worker and (job.kind != "AlignJob" or "worker" not in job.spec):
        raise UsageError("NoWorker", f"{job.reference} trains no worker", "leave out --worker")
    step = "train-worker" if worker else {"AlignJob": "rewrite", "PretrainJob": "export"}[job.kind]
    if step not in job.manifests:
        raise NoInputError("NotComplete", f"{job.reference} has not committed its step {step}", "wait, or see `nativealign status`")
    return Dataset(store, job) if step == "rewrite" else Model(store, job.manifests[step])


def download(result: Result, folder: Path) -> Iterator[int]:
    """Writes what is not there yet; yields the size of each item. Raises UsageError where the folder holds other files."""
    with file_errors(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        _check_folder(result, folder)
        for item in result.items:
            if not result.there(item, folder):
                result.write(item, folder)
            yield item.size


def _check_folder(result: Result, folder: Path) -> None:
    own = {path for item in result.items for path in item.paths}
    other = next((path for path in sorted(folder.rglob("*")) if _is_other(path, folder, own)), None)
    cards = [item for item in result.items if item.paths == (CARD,)]
    if other is None and any((folder / CARD).is_file() and not result.there(card, folder) for card in cards):
        other = folder / CARD
    if other:
        raise UsageError(
            "FolderInUse", f"{folder} holds {other.relative_to(folder)}, which is not of this result", "name another folder"
        )


def _is_other(path: Path, folder: Path, own: set[str]) -> bool:
    return path.is_file() and path.relative_to(folder).as_posix() not in own and not path.name.startswith(TEMP_PREFIX)


def main(arguments: list[str]) -> int:
    """Downloads with a bar on standard error; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nativealign_workloads.download", description="A job's result as a folder.")
    parser.add_argument("--store", help="folder or s3://bucket/prefix; default the store that the job names")
    parser.add_argument("--worker", action="store_true", help="the worker that an AlignJob has trained")
    parser.add_argument("status", type=Path, help="status.json of a run")
    parser.add_argument("folder", type=Path, help="a new folder, or the same again")
    given = parser.parse_args(arguments)
    try:
        record = read_status(given.status)
        store = open_job_store(record, given.store)
        result = result_of(store, collect(record, store), given.worker)
        with tqdm(total=sum(item.size for item in result.items), unit="B", unit_scale=True, disable=None) as bar:
            for size in download(result, given.folder):
                bar.update(size)
    except StepError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    print(given.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
