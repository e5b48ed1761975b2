"""Processes of the runner, started by its server."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from tests.workloads.pipeline import python_path

from nativealign_api.common import Resources
from nativealign_api.resolved import ResolvedJob
from nativealign_api.status import Pinned
from nativealign_api.steps import Form
from nativealign_cli.forkserver import ForkServer
from nativealign_workloads.libraries import MODELS, libraries

PROGRAM = """
import os, sys, time
IMPORTED = os.getpid()

def main(arguments):
    print(arguments, os.environ["WORD"], repr(sys.stdin.read()), "own" if IMPORTED == os.getpid() else "fork", flush=True)
    if arguments[0] == "sleep":
        time.sleep(600)
    return int(arguments[0])

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
"""Echoes, tells whose interpreter it has, and ends with its argument, waits, or fails at what is no number."""
TORCH = """
class cuda:
    is_available = staticmethod(lambda: True)
"""
"""All that is looked at of a torch that has found a GPU."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "__main__.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", python_path(tmp_path))
    with closing(ForkServer()) as server:
        yield server


def test_processes_have_arguments_environment_log_and_exit_code_of_their_own(server: ForkServer, tmp_path: Path):
    logs = [tmp_path / "0.log", tmp_path / "3.log"]
    started = [server.start("program", [number], {"WORD": f"word-{number}"}, log) for number, log in zip("03", logs, strict=True)]
    assert [process.wait() for process in started] == [0, 3]
    assert [log.read_text() for log in logs] == ["['0'] word-0 '' fork\n", "['3'] word-3 '' fork\n"]
    assert "WORD" not in os.environ


def test_processes_that_end_at_the_same_time_are_all_told(server: ForkServer, tmp_path: Path):
    waiting = "import signal\ndef main(arguments):\n    print(flush=True)\n    signal.pause()\n"
    (tmp_path / "program" / "__main__.py").write_text(waiting)
    started = [server.start("program", [], {}, tmp_path / f"{number}.log") for number in range(40)]
    for process in started:
        process.send_signal(signal.SIGCONT)  # waits until it is there
    for process in started:
        os.kill(process.pid or 0, signal.SIGTERM)
    assert {process.wait() for process in started} == {-signal.SIGTERM}


def test_where_torch_has_found_cuda_a_process_has_an_interpreter_of_its_own(server: ForkServer, tmp_path: Path):
    (tmp_path / "torch.py").write_text(TORCH)
    program = tmp_path / "program" / "__main__.py"
    program.write_text(f"import torch{PROGRAM}")
    assert server.start("program", ["3"], {"WORD": "word"}, tmp_path / "log").wait() == 3
    assert (tmp_path / "log").read_text() == "['3'] word '' own\n"


def test_a_defect_is_in_the_log(server: ForkServer, tmp_path: Path):
    assert server.start("program", ["x"], {"WORD": ""}, tmp_path / "log").wait() == 1
    assert "ValueError: invalid literal" in (tmp_path / "log").read_text()


def test_a_module_that_is_missing_is_in_the_log(server: ForkServer, tmp_path: Path):
    assert server.start("no_such_program", [], {}, tmp_path / "log").wait() == 1
    assert "No module named 'no_such_program'" in (tmp_path / "log").read_text()


def test_a_signal_that_comes_before_the_process_reaches_it(server: ForkServer, tmp_path: Path):
    process = server.start("program", ["sleep"], {"WORD": ""}, tmp_path / "log")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM


def test_a_server_that_was_killed_takes_its_processes_along_and_is_started_again(server: ForkServer, tmp_path: Path):
    process = server.start("program", ["sleep"], {"WORD": ""}, tmp_path / "log")
    process.send_signal(signal.SIGCONT)  # waits until it is there
    child = psutil.Process(process.pid)
    child.parent().kill()
    assert process.wait() == -signal.SIGKILL
    psutil.wait_procs([child])
    assert server.start("program", ["0"], {"WORD": ""}, tmp_path / "log").wait() == 0


def test_the_end_of_the_runner_is_the_end_of_its_processes(server: ForkServer, tmp_path: Path):
    process = server.start("program", ["sleep"], {"WORD": ""}, tmp_path / "log")
    process.send_signal(signal.SIGCONT)
    child = psutil.Process(process.pid)
    server.close()
    assert not child.is_running()


def job(step: str, phase: str, *inputs: str, **resources: int) -> ResolvedJob:
    return ResolvedJob(
        kind="AlignJob",
        namespace="default",
        name="web",
        uid="u",
        attempt=0,
        step=step,
        step_version=1,
        phase=phase,
        form=Form.SINGLE,
        indexes=1,
        resources=Resources(**resources),
        inputs=dict.fromkeys(inputs, "x"),
        parameters={},
        pinned=Pinned(),
    )


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (job("clean", "filter"), ()),
        (job("annotate", "annotate", "dedup"), ()),
        (job("annotate", "annotate", "dedup", "expert.transformers"), MODELS),
        (job("annotate", "draw", "dedup"), ()),
        (job("annotate", "draw", "dedup", "seed.perplexityModel"), MODELS),
        (job("rewrite", "rewrite", "dedup"), ()),
        (job("rewrite", "rewrite", "dedup", "expert.transformers"), MODELS),
        (job("rewrite", "rewrite", "dedup", "train-worker"), MODELS),
        (job("assess", "measure", "rewrite"), ()),
        (job("assess", "measure", "rewrite", "assess.toxicityModel"), MODELS),
        (job("train", "train"), MODELS),
        (job("train", "train", processes_per_node=2), ()),
        (job("train", "train", gpus_per_node=1), ()),
        (job("train", "commit"), ()),
    ],
)
def test_libraries_are_imported_for_processes_that_use_them(of: ResolvedJob, expected: tuple[str, ...]):
    assert libraries(of) == expected
