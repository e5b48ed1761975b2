"""Ranks in processes of their own: two train together, some are killed, one has no compiler to call."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nativealign_api.vocabulary import ExitCode
from nativealign_workloads.errors import DataError, StepError
from nativealign_workloads.training import launch as launching
from nativealign_workloads.training.launch import STEP, RankError, Steps, launch, tell

HERE = Path(__file__).parent
ENTRY = "test_training_runs:train_cases"


@pytest.fixture(autouse=True)
def importable_by_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def runs() -> ModuleType:
    """The sibling file, which pytest imports under a name of its own."""
    spec = importlib.util.spec_from_file_location("test_training_runs", HERE / "test_training_runs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def base(runs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def curve(runs: ModuleType, base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """Metrics of one uninterrupted process."""
    return runs.run(base, tmp_path_factory.mktemp("whole"))[1]


def approximately(rows: list[dict[str, float]]) -> list[Any]:
    return [pytest.approx(row, rel=1e-4, abs=1e-5) for row in rows]


def test_two_ranks_give_the_curve_of_one_also_after_a_stop(
    runs: ModuleType, base: Path, curve: list[dict[str, float]], tmp_path: Path
) -> None:
    cases = [
        {"zero_stage": 1},
        {"zero_stage": 3, "micro_batch_samples": 1},
        {"zero_stage": 3, "store": "stopped", "stop_after": 2},
        {"zero_stage": 3, "store": "stopped"},
        {"zero_stage": 1, "precision": "BFloat16", "store": "half", "stop_after": 4},
        {"zero_stage": 1, "precision": "BFloat16", "store": "half"},
        {"zero_stage": 1, "precision": "BFloat16"},
    ]
    launch(ENTRY, [str(base), str(tmp_path), json.dumps(cases)], processes=2)
    metrics = {number: runs.rows(tmp_path / str(number) / "metrics.jsonl") for number in (0, 1, 3, 5, 6)}
    assert metrics[0] == approximately(curve)
    assert metrics[1] == approximately(curve)
    assert metrics[3] == approximately(curve)
    assert metrics[5] == metrics[6]
    for rank in (0, 1):
        assert "2 of 6 steps are saved" in (tmp_path / "2" / f"stopped-{rank}").read_text()
        resumed = json.loads((tmp_path / "3" / f"result-{rank}.json").read_text())
        assert (resumed["resumed_from"], resumed["steps"]) == (2, 6)
    files = sorted(path.name for path in (tmp_path / "stopped" / "checkpoints").glob("step-00000003*/*"))
    assert len([name for name in files if name.endswith("optim_states.pt")]) == 2
    from safetensors.torch import load_file

    one, three = (load_file(tmp_path / stage / "model" / "model.safetensors") for stage in "01")
    assert one.keys() == three.keys()
    for name in one:
        assert (three[name] - one[name]).abs().mean().item() < 1e-5, name


def test_a_run_killed_while_it_saves_goes_on_from_the_save_before_and_needs_no_compiler(
    runs: ModuleType, base: Path, curve: list[dict[str, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing-here"))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))

    def start(case: dict[str, Any]) -> int:
        code = "import sys, test_training_runs as t; t.train_cases(*sys.argv[1:])"
        return subprocess.run([sys.executable, "-c", code, str(base), str(tmp_path), json.dumps([case])]).returncode

    def saved() -> dict[str, list[str]]:
        folders = [folder for folder in (tmp_path / "store-0" / "checkpoints").iterdir() if any(folder.iterdir())]
        return {folder.name[:13]: sorted(path.name for path in folder.iterdir()) for folder in folders}

    assert start({"checkpoint_every_steps": 2, "fatal": "step-00000004.*/mp_rank"}) == -signal.SIGKILL
    assert len(runs.rows(tmp_path / "0" / "metrics.jsonl")) == 4
    assert "manifest.json" in saved()["step-00000002"]
    assert saved()["step-00000004"]
    assert "manifest.json" not in saved()["step-00000004"]
    assert start({"checkpoint_every_steps": 2, "keep_checkpoints": 1}) == 0
    assert runs.rows(tmp_path / "0" / "metrics.jsonl") == curve
    assert json.loads((tmp_path / "0" / "result-0.json").read_text())["resumed_from"] == 2
    assert list(saved()) == ["step-00000004"]
    assert "manifest.json" in saved()["step-00000004"]
    assert not (tmp_path / "extensions").exists()


def test_two_nodes_without_a_shared_disk_resume_from_the_store(
    runs: ModuleType, base: Path, curve: list[dict[str, float]], tmp_path: Path
) -> None:
    store = str(tmp_path / "store")
    cases = json.dumps([{"zero_stage": 3, "store": store, "stop_after": 3}, {"zero_stage": 3, "store": store}])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def node(number: int) -> list[Any]:
        return [ENTRY, [str(base), str(tmp_path / f"node-{number}"), cases], 1, 2, number, "127.0.0.1", port]

    code = f"from nativealign_workloads.training.launch import launch; launch(*{node(1)!r})"
    other = subprocess.Popen([sys.executable, "-c", code])
    launch(*node(0))
    assert other.wait() == 0
    assert runs.rows(tmp_path / "node-0" / "1" / "metrics.jsonl") == approximately(curve)
    assert (tmp_path / "node-0" / "1" / "model" / "model.safetensors").is_file()
    assert json.loads((tmp_path / "node-1" / "1" / "result-1.json").read_text())["resumed_from"] == 3


def fail(how: str) -> None:
    """Entry of a rank that fails: rank 1 for a reason, rank 0 as its victim."""
    if os.environ.get("RANK") == "0":
        raise ConnectionError("connection closed by peer")
    if how == "data":
        raise DataError("NonFiniteLoss", "the loss of step 3 is nan", "lower the learning rate")
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_signal(folder: str, doing: str, heeds: str) -> None:
    """Entry of a rank that ends when asked to, or waits for what does not come."""
    import time

    from nativealign_workloads.errors import StoppedError
    from nativealign_workloads.training.launch import stop_flag

    stopped = stop_flag()
    if doing:
        tell(doing)
    Path(folder, os.environ["RANK"]).touch()
    if os.environ["RANK"] == "1":
        while not Path(folder, "0").exists():
            time.sleep(0.01)
        os.kill(os.getppid(), signal.SIGTERM)
    while not (heeds and stopped()):
        time.sleep(0.01)
    raise StoppedError("Stopped", "4 of 6 steps are saved")


def test_the_cause_is_reported_and_not_its_victims() -> None:
    with pytest.raises(RankError, match="NonFiniteLoss: the loss of step 3 is nan") as caught:
        launch("test_training_processes:fail", ["data"], processes=2)
    assert caught.value.exit_code == ExitCode.DATA
    assert caught.value.hint == "lower the learning rate"
    with pytest.raises(StepError, match="RankKilled: rank 1 was ended by SIGKILL") as killed:
        launch("test_training_processes:fail", ["kill"], processes=2)
    assert killed.value.exit_code.retryable


def test_one_process_runs_in_place() -> None:
    launch("os:putenv", ["NATIVEALIGN_TEST", "1"], processes=1)
    with pytest.raises(ModuleNotFoundError):
        launch("no.such.module:function", [], processes=1)


@pytest.mark.parametrize(
    ("doing", "heeds", "message"),
    [
        (STEP, "yes", "4 of 6 steps are saved"),
        ("save", "yes", "4 of 6 steps are saved"),
        ("", "", "asked to stop before the first step"),
        (STEP, "", "asked to stop in a step that has not ended for"),
    ],
)
def test_ranks_that_are_asked_to_stop_end_by_themselves_or_are_ended(doing: str, heeds: str, message: str, tmp_path: Path) -> None:
    """The signal comes to the process that started them, whose exit code is theirs."""
    code = (
        "import sys\n"
        "from nativealign_workloads.errors import StepError\n"
        "from nativealign_workloads.training import launch\n"
        "entry, patience, *arguments = sys.argv[1:]\n"
        "launch.HANGING_SECONDS = float(patience)\n"
        "try: launch.launch(entry, arguments, 2)\n"
        "except StepError as error: print(error.message); sys.exit(error.exit_code)\n"
    )
    patience = launching.HANGING_SECONDS if heeds else 0.1
    given = ["test_training_processes:wait_for_signal", str(patience), str(tmp_path), doing, heeds]
    ended = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True)
    assert ended.returncode == ExitCode.TEMPORARY
    assert ended.stdout.startswith(message)


def test_a_step_hangs_when_it_lasts_longer_than_a_minute_and_than_three_of_the_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "0.mark"
    monkeypatch.setenv(launching.ENV_MARK_FILE, str(mark))
    steps = Steps([mark, tmp_path / "1.mark"])

    def told(doing: str, seconds: float) -> None:
        tell(doing)
        os.utime(mark, (seconds, seconds))
        assert steps.in_vain(False, seconds) == ""

    told(STEP, 1000)
    told(STEP, 1030)
    told("save", 1031)
    told(STEP, 1431)
    assert steps.in_vain(True, 1433) == ""
    assert steps.in_vain(True, 1433 + 90) == ""
    assert steps.in_vain(True, 1433 + 91) == "in a step that has not ended for 90 s"
    tell("save")
    os.utime(mark, (1530, 1530))
    assert steps.in_vain(True, 9000) == ""
