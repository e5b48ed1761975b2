"""The pinned files of an EvalJob's benchmarks. Called by inspect, which checks them, and by evaluate, which asks what they hold."""

from pathlib import Path
from typing import Any

from nativealign_api.evaluate import Benchmark
from nativealign_workloads.context import Context
from nativealign_workloads.evaluate.benchmarks import BenchmarkRequest
from nativealign_workloads.sources import fetch_pinned


def bring(context: Context, benchmarks: list[Benchmark], pinned: dict[str, Any]) -> tuple[list[BenchmarkRequest], Path]:
    """The requests with their files brought here, and the folder that these lie in.

    pinned: {data: {benchmark: listing}, idLists: {benchmark: listing}}, as inspect writes it.
    """
    root = context.scratch / "data"
    folders = {name: fetch_pinned(context, listing, root / name) for name, listing in pinned["data"].items()}
    lists = {name: _only_file(fetch_pinned(context, listing, root / f"{name}-ids")) for name, listing in pinned["idLists"].items()}
    return [BenchmarkRequest(b.name, b.few_shot, lists.get(b.name), folders[b.name]) for b in benchmarks], root


def _only_file(folder: Path) -> Path:
    return next(path for path in sorted(folder.rglob("*")) if path.is_file())
