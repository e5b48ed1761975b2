"""The pinned files of benchmarks. Called by inspect, which checks them, by evaluate, which asks what they hold, and by
decontamination, which keeps it out of a corpus.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nativealign_api.common import PublishedBenchmark
from nativealign_api.evaluate import Benchmark
from nativealign_workloads.context import Context
from nativealign_workloads.evaluate.benchmarks import BenchmarkRequest, benchmark, load
from nativealign_workloads.sources import fetch_pinned


def bring(context: Context, benchmarks: list[Benchmark], pinned: dict[str, Any]) -> tuple[list[BenchmarkRequest], Path]:
    """The requests with their files brought here, and the folder that these lie in.

    pinned: {data: {benchmark: listing}, idLists: {benchmark: listing}}, as inspect writes it.
    """
    root = context.scratch / "data"
    folders = {name: fetch_pinned(context, listing, root / name, _files(name)) for name, listing in pinned["data"].items()}
    lists = {name: _only_file(fetch_pinned(context, listing, root / f"{name}-ids")) for name, listing in pinned["idLists"].items()}
    return [BenchmarkRequest(b.name, b.few_shot, lists.get(b.name), folders[b.name]) for b in benchmarks], root


def load_questions(context: Context, benchmarks: Iterable[PublishedBenchmark], pinned: dict[str, Any]) -> list[tuple[str, str]]:
    """(benchmark/item, question) of the pinned benchmarks. Raises NoInputError or DataError for a broken file."""
    requests, root = bring(context, [Benchmark(name=name) for name in benchmarks], pinned)
    return [(f"{request.name}/{item.id}", item.question) for request in requests for item in load(request, root).items]


def _files(name: str) -> Callable[[str], bool]:
    return {Path(file).name for group in benchmark(name).files for file in group}.__contains__


def _only_file(folder: Path) -> Path:
    return next(path for path in sorted(folder.rglob("*")) if path.is_file())
