"""A small real HTTP server of the chat completions protocol, whose failures a test writes down beforehand.

Used by the tests of the HTTP engine and of the steps that ask an expert. Each request takes the next answer of `script`; when the
script is at its end, the server answers well, with the last message of the request in upper case.
"""

import contextlib
import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.serving import QuietHandler, serving


@dataclass(frozen=True)
class Answer:
    """One scripted answer: `body` as it is, or a connection that is cut at once (`close`) or silent to the end (`hang`)."""

    status: int = 200
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False
    hang: bool = False


def completion(text: str | None, finish_reason: str = "stop", refusal: str | None = None) -> bytes:
    """A well-formed reply of 10 prompt and 5 completion tokens."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    reply = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "served",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
    return json.dumps(reply).encode()


def error(status: int, message: str = "no", code: str | None = None, **headers: str) -> Answer:
    body = json.dumps({"error": {"message": message, "type": "x", "code": code}}).encode()
    return Answer(status, body, tuple((name.replace("_", "-"), value) for name, value in headers.items()))


@dataclass
class OpenAIServer:
    script: deque[Answer] = field(default_factory=deque)
    forever: Answer | None = None
    """Answer of every request that finds the script empty."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    port: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    gate: threading.Semaphore | None = None
    """Where there is one, each request waits for its turn."""
    under_way: int = 0
    most_under_way: int = 0
    arrived: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def wait_for(self, under_way: int) -> None:
        """Until so many requests are under way."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: self.under_way >= under_way, timeout=30)

    @contextmanager
    def turn(self) -> Iterator[None]:
        with self.arrived:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            self.arrived.notify_all()
        if self.gate:
            self.gate.acquire()
        yield
        with self.arrived:
            self.under_way -= 1

    def next_answer(self, request: dict[str, Any], headers: dict[str, str]) -> Answer:
        with self.lock:
            self.requests.append(request)
            self.headers.append(headers)
            if self.script:
                return self.script.popleft()
        return self.forever or Answer(body=completion(request["messages"][-1]["content"].upper()))


@contextmanager
def openai_server() -> Iterator[OpenAIServer]:
    """Serves on a free port of 127.0.0.1 until the block ends."""
    state = OpenAIServer()

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.turn():
                answer = state.next_answer(body, {k.lower(): v for k, v in self.headers.items()})
            if answer.hang:
                state.stopping.wait()
            if answer.hang or answer.close:
                self.close_connection = True
                return
            self.send_response(answer.status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(answer.body or b"")), **dict(answer.headers)}
            for name, value in headers.items():
                self.send_header(name, value)
            with contextlib.suppress(ConnectionError):  # the client may have had enough
                self.end_headers()
                self.wfile.write(answer.body or b"")

    with serving(Handler) as state.port:
        try:
            yield state
        finally:
            state.stopping.set()
