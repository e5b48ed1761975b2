"""Commands that look at a cluster again and again: what ends them, and what they outlast."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from tests.serving import QuietHandler, serving

from nativealign_cli import remote, workloads
from nativealign_cli.inspecting import show_logs
from nativealign_cli.state import Home

PLUGIN = """
import json, pathlib, sys
count = pathlib.Path(sys.argv[1])
number = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(number))
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": str(number)}}))
"""
"""A credential plugin that gives another token at each call."""
UNAVAILABLE, UNAUTHORIZED = (503, {"message": "apiserver is shutting down"}), (401, {"message": "Unauthorized"})


def in_state(state: str) -> tuple[int, dict[str, Any]]:
    """A list with one job."""
    ended = "True" if state == "Complete" else "False"
    about = {"reason": state, "message": "told", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    conditions = [{"type": "Ready", "status": ended, **about}, {"type": "Finished", "status": ended, **about}]
    job = {"metadata": {"name": "web"}, "status": {"state": state, "conditions": conditions}}
    return 200, {"metadata": {"resourceVersion": "1"}, "items": [job]}


@dataclass
class Server:
    """Answers each request with the next answer; the last one stays."""

    answers: list[tuple[int, dict[str, Any]]]
    tokens: list[str] = field(default_factory=list)
    """What each request came with."""
    err: io.StringIO = field(default_factory=io.StringIO)

    def wait(self, seconds: float | None) -> tuple[int, str]:
        """What `nativealign wait ej/web` ends with, and says."""
        out = io.StringIO()
        err = Console(file=self.err)
        code = remote.ask(remote.wait(None, "team", "ej/web", seconds, Console(file=out), err), err)
        return code, out.getvalue()


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Starts a server that a kubeconfig with a credential plugin leads to."""
    servers = ExitStack()

    def start(*answers: tuple[int, dict[str, Any]]) -> Server:
        server = Server(list(answers))

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                server.tokens.append(self.headers["Authorization"].removeprefix("Bearer "))
                code, body = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                self.send_response(code)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

        _write_kubeconfig(tmp_path, servers.enter_context(serving(Handler)))
        return server

    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0)
    with servers:
        yield start


def _write_kubeconfig(folder: Path, port: int) -> None:
    (folder / "plugin.py").write_text(PLUGIN)
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(folder / "plugin.py"), str(folder / "count")],
        "interactiveMode": "Never",
    }
    kubeconfig = {
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
        "users": [{"name": "here", "user": {"exec": plugin}}],
    }
    (folder / "config").write_text(yaml.safe_dump(kubeconfig))


def test_a_wait_outlasts_a_restart_and_an_expired_token(serve: Callable[..., Server]) -> None:
    server = serve(in_state("Running"), UNAUTHORIZED, in_state("Running"), UNAVAILABLE, UNAVAILABLE, in_state("Complete"))
    assert server.wait(None) == (0, "EvalJob/web: Complete: Complete: told\n")
    assert server.tokens == ["1", "1", "2", "2", "3", "4"]
    assert server.err.getvalue().count("apiserver is shutting down; trying again") == 1


def test_a_token_that_is_refused_anew_ends_a_wait(serve: Callable[..., Server]) -> None:
    server = serve(in_state("Running"), UNAUTHORIZED)
    assert server.wait(None) == (77, "")
    assert server.tokens == ["1", "1", "2"]


@pytest.mark.parametrize(
    ("answer", "code"), [(UNAVAILABLE, 69), ((429, {}), 69), (UNAUTHORIZED, 77), ((403, {}), 77), ((400, {}), 78)]
)
def test_what_the_first_answer_says_is_final(answer: tuple[int, dict[str, Any]], code: int, serve: Callable[..., Server]) -> None:
    server = serve(answer)
    assert server.wait(None) == (code, "")
    assert len(server.tokens) == 1


def test_a_wait_of_no_time_looks_once(serve: Callable[..., Server]) -> None:
    server = serve(in_state("Running"))
    assert server.wait(0) == (75, "EvalJob/web is still Running\n")
    assert len(server.tokens) == 1


def test_a_log_is_printed_as_it_is(tmp_path: Path) -> None:
    folder, out = tmp_path / "runs/default/aj-web-1", io.StringIO()
    (folder / "logs").mkdir(parents=True)
    (folder / "status.json").write_text(
        json.dumps({"kind": "AlignJob", "metadata": {"name": "web"}, "status": {"state": "Complete"}})
    )
    (folder / "logs" / "clean-shards-0.log").write_text("one\t[two] :smile:\n")
    assert show_logs(Home(tmp_path), "aj/web", None, False, Console(file=out), Console(file=out)) == 0
    assert out.getvalue() == "[clean-shards-0] one\t[two] :smile:\n"


@pytest.mark.parametrize(
    ("missing", "module", "extras"), [("torch", "gc", "workloads-cpu"), ("jinja2", "report", "workloads-cpu,report")]
)
def test_a_command_without_its_packages_names_the_extra(
    missing: str, module: str, extras: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workloads, "is_installed", lambda package: package != missing)
    err = io.StringIO()
    assert workloads.run_module(module, None, err=Console(file=err, width=200)) == 78
    assert err.getvalue() == f"{missing} is not installed: pip install 'nativealign[{extras}]'\n"
