"""Any phase of any step killed before any change of a file, and run again: the store then holds what it would have held anyway.

The reference is one undisturbed walk through all four kinds of work: rules as the expert, a pre-training, a worker of transformers
and an evaluation. Before each phase the store is kept; each kill begins from there.
"""

import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.workloads.pipeline import (
    HERE,
    QUICKSTART,
    RULES,
    TINY,
    TRAINING,
    Ended,
    Pool,
    Starter,
    Unit,
    World,
    account,
    assert_conserved,
    differing,
    logical,
    make_corpus,
    manifest_of,
    nativealign,
    pool_of,
    python_path,
    run_phases,
    status,
    write_manifests,
)

from nativealign_api.vocabulary import ExitCode
from nativealign_workloads.__main__ import PHASES

CORPUS = RULES | {"sharding": {"shards": 3}, "clean": {"repeatedLines": {"minDocuments": 3}}}
BY_RULES = manifest_of("AlignJob", "rules", CORPUS)
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
BY_WORKER = manifest_of(
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
        "rewrite": {"transformers": {"batchSize": 64}, "maxRetries": 0, "maxOutputRatio": 1},
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
EVERY_POINT = "NATIVEALIGN_EVERY_POINT" in os.environ
"""`NATIVEALIGN_EVERY_POINT=1 make workloads` strikes quick phases everywhere; else some points are drawn with a seed."""
SLOW = {"train train", "train-worker train", "rewrite rewrite worker", "annotate draw", "evaluate evaluate", "export export"}
"""Phases that compute with torch."""
KILLED, OVERTAKEN = (2, 3), (1, 1)
"""Points that are drawn: of slow phases, of quick ones."""


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
def pool() -> Iterator[Pool]:
    with pool_of(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def reference(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    base = tmp_path_factory.mktemp("reference")
    ids = make_corpus(base / "corpus", 120)
    stages: dict[str, Stage] = {}

    def run(world: World, units: list[Unit]) -> list[Ended]:
        before = world.copy(base / f"before-{len(list(base.iterdir()))}")
        first = pool.run(world, units[:1])
        stages.setdefault(name_of(units[0]), Stage(units[0], before, first[0].changes, logical(world.store)))
        return first + pool.run(world, units[1:])

    world = World(base / "world").made()
    digests = run_phases(base, BY_RULES, world, run)
    digests = run_phases(base, PRETRAIN, world, run, digests)
    copy_model(world, digests["PretrainJob/tiny"]["export"], base / "model")
    for manifest in (BY_WORKER, EVALUATION):
        digests = run_phases(base, manifest, world, run, digests)
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


def points_of(name: str, stage: Stage, of_slow: int, of_quick: int) -> list[int]:
    """Numbers of the changes to strike before: all, or the last, which commits, and some before it."""
    every = list(range(1, len(stage.changes) + 1))
    drawn = of_slow if name in SLOW else of_quick
    if len(every) <= drawn or (EVERY_POINT and name not in SLOW):
        return every
    chosen = sorted([*random.Random(name).sample(every[:-1], drawn - 1), every[-1]])
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

    pool.each(check, points_of(name, stage, *KILLED))


@pytest.mark.parametrize("name", STAGES)
def test_of_two_writers_the_first_to_commit_wins_and_the_other_ends_well(
    name: str, reference: Reference, pool: Pool, tmp_path: Path
):
    """One stops before a change, the other does all the work, the first goes on."""
    stage = reference.stages[name]

    def check(starter: Starter, point: int) -> None:
        world, what = stage.before.copy(tmp_path / str(point)), f"overtaken before {point}: {stage.changes[point - 1]}"
        slow = starter.run(world, stage.unit, at=point, number="SIGSTOP")
        assert slow.code is None, what
        fast = starter.run(world, stage.unit, writer="second")
        assert fast.code == 0, f"{what}\n{fast.output}"
        assert starter.go_on(slow) == 0, f"{what}\n{slow.output}"
        assert differing(logical(world.store), stage.after) == [], what

    pool.each(check, points_of(name, stage, *OVERTAKEN))


def test_a_training_goes_on_from_its_last_checkpoint_with_the_same_losses(reference: Reference, pool: Pool, tmp_path: Path):
    """Killed after a step beyond a checkpoint, and in the middle of writing the next one."""
    stage = reference.stages["train train"]
    is_step = [change.startswith("open") and change.endswith("run/metrics.jsonl") for change in stage.changes]
    steps = [number for number, found in enumerate(is_step, 1) if found][1:]  # the first empties the file
    into_checkpoint = next(n for n, change in enumerate(stage.changes, 1) if n > steps[3] and "/checkpoints/step-" in change) + 3

    def check(starter: Starter, case: tuple[int, int]) -> None:
        point, left = case
        world = stage.before.copy(tmp_path / str(point))
        assert starter.run(world, stage.unit, at=point).code == -signal.SIGKILL
        again = starter.run(world, stage.unit)
        assert again.code == 0, again.output
        written = [change for change in again.changes if change.startswith("open") and change.endswith("run/metrics.jsonl")]
        assert len(written) == 2 + left, "an empty file, the checkpoint's, and a line for each step that was left"
        assert differing(logical(world.store), stage.after) == []

    assert len(steps) == 6
    pool.each(check, [(steps[3], 4), (into_checkpoint, 4), (steps[5], 2)])


# The runner


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a store holds after `nativealign run` of a small AlignJob."""
    folder = with_job(tmp_path_factory.mktemp("undisturbed"))
    ran = nativealign("run", "job.yaml", "--home", "home", cwd=folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return logical(folder / "home" / "store")


def with_job(folder: Path) -> Path:
    make_corpus(folder / "corpus", 120)
    write_manifests(folder / "job.yaml", manifest_of("AlignJob", "web", RULES | {"sharding": {"shards": 2}}))
    return folder


def strike(folder: Path, moment: str, number: signal.Signals) -> dict[str, str]:
    """Environment in which the runner gets a signal when a process of its is about to make that change."""
    names = {"ROOT": str(folder), "PATTERN": moment, "AT": "1", "SIGNAL": number.name, "TO": "leader", "LOG": str(folder / "log")}
    return {f"FAULT_{name}": value for name, value in names.items()} | {"PYTHONPATH": python_path(HERE / "faults")}


MOMENTS = [
    "rename .*/clean/.*/documents-00001",
    "link .*/dedup/.*/link/shards",
    "link .*/rewrite/.*/manifest.json",
    "open .*/report.html",
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_runner_goes_on_as_if_nothing_had_been(moment: str, undisturbed: dict[str, Any], tmp_path: Path):
    folder = with_job(tmp_path)
    struck = nativealign("run", "job.yaml", "--home", "home", cwd=folder, environment=strike(folder, moment, signal.SIGKILL))
    assert struck.returncode == -signal.SIGKILL, struck.stdout + struck.stderr
    assert status(folder / "home", "AlignJob/web")["state"] != "Running"
    again = nativealign("run", "job.yaml", "--home", "home", cwd=folder)
    assert again.returncode == 0, again.stdout + again.stderr
    assert differing(logical(folder / "home" / "store"), undisturbed) == []


@pytest.mark.parametrize(
    ("moment", "number"), [(MOMENTS[0], signal.SIGINT), (MOMENTS[1], signal.SIGTERM), (MOMENTS[3], signal.SIGINT)]
)
def test_a_runner_asked_to_stop_says_how_to_go_on_and_does(
    moment: str, number: signal.Signals, undisturbed: dict[str, Any], tmp_path: Path
):
    folder = with_job(tmp_path)
    asked = nativealign("run", "job.yaml", "--home", "home", cwd=folder, environment=strike(folder, moment, number))
    assert asked.returncode == ExitCode.TEMPORARY, asked.stdout + asked.stderr
    assert "run the same command again to go on" in asked.stderr
    assert "Traceback" not in asked.stdout + asked.stderr
    assert status(folder / "home", "AlignJob/web")["state"] != "Running"
    again = nativealign("run", "job.yaml", "--home", "home", cwd=folder)
    assert again.returncode == 0, again.stdout + again.stderr
    assert differing(logical(folder / "home" / "store"), undisturbed) == []


# The accounts


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
