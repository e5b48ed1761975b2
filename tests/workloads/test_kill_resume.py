"""Any phase of any step killed before any change of a file, and run again: the store then holds what it would have held anyway.

The reference is one undisturbed walk through all four kinds of work: rules as the expert, a pre-training, a worker of transformers
and an evaluation. Before each phase the store is kept; each kill begins from there.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from tests.workloads.pipeline import (
    QUICKSTART,
    Ended,
    Starter,
    Unit,
    World,
    account,
    assert_conserved,
    differing,
    logical,
    make_corpus,
    manifest_of,
    run_phases,
    starters,
)

from nativealign_workloads.__main__ import PHASES

TINY = {"hiddenSize": 32, "layers": 1, "attentionHeads": 2, "vocabularySize": 400, "maxPosition": 512}
TRAINING = {"optimizer": {"learningRate": 3e-3, "warmupPercent": 10}, "deepspeed": {"precision": "Float32"}}
CORPUS = {
    "corpora": [{"name": "web", "uri": "corpus/", "idField": "id"}],
    "sharding": {"shards": 3},
    "heldOut": {"documents": 6},
    "maxQuarantinedPercent": 20,
    "expert": {"rules": {}},
    "assess": {"documents": 20},
}
RULES = manifest_of("AlignJob", "rules", CORPUS | {"rewrite": {"segmentDocuments": 8}})
PRETRAIN = manifest_of(
    "PretrainJob",
    "tiny",
    TRAINING
    | {
        "base": {"fromConfig": TINY},
        "mix": [{"alignJob": "rules"}, {"alignJob": "rules", "view": "Raw"}],
        "sequenceLength": 64,
        "tokens": 64 * 4 * 6,
        "globalBatch": 4,
        "checkpoints": {"everySteps": 2},
    },
)
WORKER = manifest_of(
    "AlignJob",
    "worker",
    CORPUS
    | {
        "seed": {"documents": 40, "strategy": "HighPerplexity", "perplexityModel": {"uri": "model/"}},
        "chunking": {"maxTokens": 32},
        "worker": {
            "base": {"fromConfig": TINY},
            "train": TRAINING | {"epochs": 1, "globalBatch": 16, "sequenceLength": 512, "checkpointEverySteps": 2},
        },
        "rewrite": {"transformers": {"batchSize": 64}, "maxRetries": 0, "maxOutputRatio": 1, "segmentDocuments": 8},
    },
)
EVALUATION = manifest_of(
    "EvalJob",
    "tiny",
    {
        "model": {"pretrainJob": "tiny"},
        "data": {"uri": str(QUICKSTART / "benchmarks")},
        "benchmarks": [{"name": "exams-ar"}, {"name": "acva-all"}],
        "heldOut": {"alignJob": "rules"},
    },
)
SLOW = {"train train", "train-worker train", "rewrite rewrite worker", "annotate score", "evaluate evaluate", "export export"}
"""Phases that compute with torch: some points, drawn with a seed, instead of all."""
DRAWN = 6


@dataclass(frozen=True)
class Stage:
    """The first index of a phase in the reference."""

    unit: Unit
    before: World
    """The store that it began with."""
    changes: list[str]
    """What it did to files."""
    after: dict[str, Any]
    """What the store held when it had ended."""


@dataclass(frozen=True)
class Reference:
    """The undisturbed walk."""

    world: World
    stages: dict[str, Stage]
    ids: list[str]
    """Ids of all records of the corpus, worked out by the test."""
    digests: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def pool() -> Iterator["Pool"]:
    with starters(2) as started:
        yield Pool(started)


@pytest.fixture(scope="module")
def reference(pool: "Pool", tmp_path_factory: pytest.TempPathFactory) -> Reference:
    base = tmp_path_factory.mktemp("reference")
    ids = make_corpus(base / "corpus", 120)
    world = World(base / "world").made()
    stages: dict[str, Stage] = {}

    def run(unit: Unit) -> Ended:
        before = world.copy(base / f"before-{len(list(base.iterdir()))}")
        with pool.starter() as starter:
            ended = starter.run(world, unit)
        assert ended.code == 0, f"{unit.phase} {unit.index}: {ended.output}"
        stages.setdefault(name_of(unit), Stage(unit, before, ended.changes, logical(world.store)))
        return ended

    digests = run_phases(base, PRETRAIN, run_phases(base, RULES, {}, world, run), world, run)
    copy_model(world, digests["PretrainJob/tiny"]["export"], base / "model")
    for manifest in (WORKER, EVALUATION):
        digests = run_phases(base, manifest, digests, world, run)
    return Reference(world, stages, ids, digests)


def name_of(unit: Unit) -> str:
    """`step phase`; the rewriting by a worker has a name of its own."""
    return unit.phase + (" worker" if unit.phase == "rewrite rewrite" and "train-worker" in unit.job.inputs else "")


def copy_model(world: World, export: str, folder: Path) -> None:
    """The exported model as a folder that a URI can name."""
    folder.mkdir()
    record = json.loads((world.store / f"steps/export/{export}/manifest.json").read_text())
    for name, part in record["shards"][0]["parts"].items():
        shutil.copy(world.store / part["key"], folder / Path(name).name)


class Pool:
    """Runs checks side by side, each with a starter of its own."""

    def __init__(self, started: list[Starter]) -> None:
        self._free: SimpleQueue[Starter] = SimpleQueue()
        for starter in started:
            self._free.put(starter)
        self._workers = len(started)

    @contextmanager
    def starter(self) -> Iterator[Starter]:
        starter = self._free.get()
        try:
            yield starter
        finally:
            self._free.put(starter)

    def each(self, check: Callable[[Starter, int], None], points: list[int]) -> None:
        def run(point: int) -> None:
            with self.starter() as starter:
                check(starter, point)

        with ThreadPoolExecutor(self._workers) as threads:
            list(threads.map(run, points))


def points_of(name: str, stage: Stage, drawn: int) -> list[int]:
    """Numbers of the changes to strike before: all, or the first, the last and some in between."""
    every = list(range(1, len(stage.changes) + 1))
    if len(every) <= drawn:
        return every
    chosen = sorted({1, every[-1], *random.Random(name).sample(every, drawn - 2)})
    print(f"{name}: {len(chosen)} of {len(every)} points:", *(f"\n  {n} {stage.changes[n - 1]}" for n in chosen))
    return chosen


STAGES = [*PHASES, "rewrite rewrite worker"]


@pytest.mark.parametrize("name", STAGES)
def test_a_phase_killed_before_any_change_and_run_again_leaves_the_same_store(
    name: str, reference: Reference, pool: Pool, tmp_path: Path
):
    stage = reference.stages[name]

    def check(starter: Starter, point: int) -> None:
        world, what = stage.before.copy(tmp_path / str(point)), f"killed before {point}: {stage.changes[point - 1]}"
        assert starter.run(world, stage.unit, at=point).code == -9, what
        again = starter.run(world, stage.unit, writer="second")
        assert again.code == 0, f"{what}\n{again.output}"
        assert differing(logical(world.store), stage.after) == [], what

    pool.each(check, points_of(name, stage, DRAWN if name in SLOW else 1000))


@pytest.mark.parametrize("name", STAGES)
def test_of_two_writers_the_first_to_commit_wins_and_the_other_ends_well(
    name: str, reference: Reference, pool: Pool, tmp_path: Path
):
    """One stops before a change, the other does all the work, the first goes on."""
    stage = reference.stages[name]

    def check(starter: Starter, point: int) -> None:
        world, what = stage.before.copy(tmp_path / str(point)), f"overtaken before {point}: {stage.changes[point - 1]}"
        slow = starter.run(world, stage.unit, at=point, signal="SIGSTOP")
        assert slow.code is None, what
        fast = starter.run(world, stage.unit, writer="second")
        assert fast.code == 0, f"{what}\n{fast.output}"
        assert starter.go_on(slow) == 0, f"{what}\n{slow.output}"
        assert differing(logical(world.store), stage.after) == [], what

    pool.each(check, points_of(name, stage, 3 if name in SLOW else 12))


def test_every_document_is_somewhere_once(reference: Reference):
    store, digests = reference.world.store, reference.digests["AlignJob/worker"]
    clean = account(store, f"steps/clean/{digests['clean']}")
    assert_conserved(reference.ids, clean)
    assert set(clean) >= {"out", "filtered", "quarantined"}
    dedup = account(store, f"steps/dedup/{digests['dedup']}")
    assert_conserved(clean["out"], dedup)
    assert dedup["heldOut"]
    assert dedup["duplicate"]
    for job in ("AlignJob/rules", "AlignJob/worker"):
        assert_conserved(dedup["out"], account(store, f"steps/rewrite/{reference.digests[job]['rewrite']}"))
