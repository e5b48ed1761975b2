"""`make bench-rewrite`: tokens per second of the rewrite step beside the bare engine, on this machine's GPU or its processor.

A worker is trained by the steps before, on the quickstart's corpus. The step is timed whole in this process: reading, chunking,
prompts, generation, guards, journal, commit. The bare engine then gets the very prompts that the step asked: all of them in order
of length, in batches of the same size, decoded and nothing more; twice, between two turns of the step, since a machine's speed
changes. What a process loads once is in nobody's time: the worker, which has answered once, and the model that tells languages
apart.
Prints JSON: seconds and tokens (of prompts and answers) per second of each, and the ratio.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from tests.workloads.pipeline import QUICKSTART, Ended, Unit, World, manifest_of, pool_of, run_phases

from nativealign_api.vocabulary import ENV_JOB, ENV_SCRATCH
from nativealign_workloads.align import rewrite
from nativealign_workloads.context import from_environment
from nativealign_workloads.engines import transformers_engine
from nativealign_workloads.engines.protocol import Reply, Request
from nativealign_workloads.engines.transformers_engine import TransformersEngine
from nativealign_workloads.libraries import import_libraries, keep_freed_memory
from nativealign_workloads.text.language import identifier

DOCUMENTS = 500
SIZES = {
    "cpu": {"model": {"hiddenSize": 256, "layers": 4, "attentionHeads": 4}, "batch": 64, "precision": "Float32"},
    "cuda": {"model": {"hiddenSize": 2048, "layers": 16, "attentionHeads": 16}, "batch": 256, "precision": "BFloat16"},
}


def spec(size: dict[str, Any], corpus: Path) -> dict[str, Any]:
    base = size["model"] | {"vocabularySize": 4096, "maxPosition": 1024}
    return {
        "corpora": [{"name": "web", "uri": str(corpus)}],
        "sharding": {"shards": 1},
        "maxQuarantinedPercent": 20,
        "heldOut": {"documents": 0},
        "expert": {"rules": {}},
        "seed": {"documents": 32},
        "chunking": {"maxTokens": 128},
        "worker": {
            "base": {"fromConfig": base},
            "train": {"epochs": 1, "globalBatch": 16, "sequenceLength": 512, "deepspeed": {"precision": size["precision"]}},
        },
        "rewrite": {"transformers": {"batchSize": size["batch"], "precision": size["precision"]}, "maxRetries": 0},
    }


@contextmanager
def watched(calls: list[list[Request]], replies: list[Reply]) -> Iterator[None]:
    """What the step asks its engine, and what it gets, is noted."""
    generate = TransformersEngine.generate

    def noted(engine: TransformersEngine, requests: list[Request]) -> list[Reply]:
        found = generate(engine, requests)
        calls.append(list(requests))
        replies.extend(found)
        return found

    with mock.patch.object(TransformersEngine, "generate", noted):
        yield


class Reached(Exception):
    """The phase to be timed comes next."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit


def phase_of_rewrite(folder: Path, manifest: dict[str, Any], world: World) -> Unit:
    """Runs all that comes before it."""
    with pool_of(2) as pool:

        def run(world: World, units: list[Unit]) -> list[Ended]:
            if units[0].phase == "rewrite rewrite":
                raise Reached(units[0])
            return pool.run(world, units)

        try:
            run_phases(folder, manifest, world, run)
        except Reached as reached:
            return reached.unit
    raise RuntimeError("the job has no rewrite phase")


def step(folder: Path, unit: Unit, world: World) -> tuple[float, list[Request], list[Reply], Path]:
    """(seconds, requests, replies, the worker's folder) of the phase."""
    folder.mkdir()
    (folder / "job.json").write_bytes(unit.job.model_copy(update={"store_folder": str(world.store)}).dump())
    context = from_environment(os.environ | {ENV_JOB: str(folder / "job.json"), ENV_SCRATCH: str(folder / "scratch")})
    calls: list[list[Request]] = []
    replies: list[Reply] = []
    opened: list[float] = []

    def open_timed(*arguments: Any, **named: Any) -> TransformersEngine:
        started = time.perf_counter()
        engine = ready(*arguments, **named)
        calls.clear()
        replies.clear()
        opened.append(time.perf_counter() - started)
        return engine

    with watched(calls, replies), mock.patch.object(transformers_engine, "TransformersEngine", open_timed):
        identifier()
        started = time.perf_counter()
        rewrite.run(context)
        seconds = time.perf_counter() - started - sum(opened)
    return seconds, [request for call in calls for request in call], replies, next((folder / "scratch").rglob("config.json")).parent


def ready(*arguments: Any, **named: Any) -> TransformersEngine:
    """An engine that has answered once: what its libraries do at the first use is in nobody's time."""
    engine = TransformersEngine(*arguments, **named)
    engine.generate([Request("first", [{"role": "user", "content": "مرحبا"}], "", 8)])
    return engine


def bare(worker: Path, requests: list[Request], size: dict[str, Any]) -> float:
    """Seconds for the same prompts without anything of a step."""
    engine = ready(worker, size["batch"], precision=size["precision"])
    started = time.perf_counter()
    engine.generate(requests)
    return time.perf_counter() - started


def main() -> None:
    keep_freed_memory()
    import_libraries()
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = SIZES[device]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, str(QUICKSTART / "make_corpus.py"), str(folder / "corpus"), "--documents", str(DOCUMENTS)]
        subprocess.run(command, check=True, capture_output=True)
        manifest = manifest_of("AlignJob", "web", spec(size, folder / "corpus"))
        world = World(folder / "world").made()
        unit = phase_of_rewrite(folder, manifest, world)
        seconds, requests, replies, worker = step(folder / "0", unit, world.copy(folder / "world-0"))
        alone = bare(worker, requests, size) + bare(worker, requests, size)
        seconds += step(folder / "1", unit, world.copy(folder / "world-1"))[0]
        tokens = 2 * sum(reply.prompt_tokens + reply.completion_tokens for reply in replies)
    facts = {
        "device": device,
        "requests": len(requests),
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "bareSeconds": round(alone, 2),
    }
    rates = {
        "tokensPerSecond": round(tokens / seconds),
        "bareTokensPerSecond": round(tokens / alone),
        "ratio": round(alone / seconds, 4),
    }
    print(json.dumps(facts | rates, indent=1))


if __name__ == "__main__":
    main()
