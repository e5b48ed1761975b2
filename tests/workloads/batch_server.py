"""A small real HTTP server of the Batch API: files, batches, answers. Used by the tests of the batch engine."""

import email
import email.policy
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.serving import QuietHandler, serving
from tests.workloads.openai_server import completion

Json = dict[str, Any]


def line(custom_id: str, body: bytes, status: int = 200) -> Json:
    return {"id": "l", "custom_id": custom_id, "response": {"status_code": status, "body": json.loads(body)}, "error": None}


def upper(request: Json) -> Json:
    return line(request["custom_id"], completion(request["body"]["messages"][-1]["content"].upper()))


@dataclass
class BatchServer:
    """Every batch is done at once, unless `ends` says otherwise."""

    answer: Callable[[Json], Json | None] = upper
    """The line for a request; None: it has none, as in a batch that expired."""
    ends: list[Json] = field(default_factory=list)
    """What the next batches come to, e.g. {"status": "expired"}."""
    polls: int = 0
    """So many times each batch is under way before it ends."""
    before: Callable[[str], None] = lambda what: None
    after: Callable[[str], None] = lambda what: None
    """Called with `POST /v1/batches` and the like, before the server acts and after; what they raise cuts the connection."""
    files: dict[str, bytes] = field(default_factory=dict)
    batches: list[Json] = field(default_factory=list)
    requests: list[Json] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def handle(self, method: str, path: list[str], body: bytes, kind: str) -> tuple[int, bytes]:
        match method, path:
            case "POST", ["files"]:
                name = f"file-{len(self.files)}-{len(self.batches)}"
                self.files[name] = _uploaded(kind, body)
                return 200, _dump(_file(name))
            case "GET", ["files", name, "content"]:
                return 200, self.files[name]
            case "DELETE", ["files", name]:
                self.files.pop(name, None)
                return 200, _dump({"id": name, "object": "file", "deleted": True})
            case "POST", ["batches"]:
                return 200, _dump(self._begin(json.loads(body)))
            case "GET", ["batches"]:
                return 200, _dump({"object": "list", "data": self.batches[::-1], "has_more": False})
            case "GET", ["batches", name]:
                return 200, _dump(self._look(next(found for found in self.batches if found["id"] == name)))
        return 404, b'{"error": {"message": "no such path"}}'

    def _begin(self, asked: Json) -> Json:
        end = self.ends.pop(0) if self.ends else {}
        requests = [json.loads(text) for text in self.files[asked["input_file_id"]].decode().splitlines()]
        batch = {
            "id": f"batch-{len(self.batches)}",
            "object": "batch",
            "created_at": int(time.time()),
            "status": "in_progress",
            **asked,
        }
        batch |= {"left": self.polls, "end": {"status": "completed"} | end, "request_counts": _counts(len(requests))}
        self.batches.append(batch)
        if batch["end"]["status"] != "failed":
            self.requests += requests
            lines = [found for request in requests if (found := self.answer(request))]
            self.files[f"{batch['id']}-out"] = "\n".join(json.dumps(found, ensure_ascii=False) for found in lines).encode()
            batch["end"]["output_file_id"] = f"{batch['id']}-out"
        return batch

    def _look(self, batch: Json) -> Json:
        batch["left"] -= 1
        if batch["left"] < 0:
            batch |= batch["end"]
        return batch


def _counts(total: int) -> Json:
    return {"total": total, "completed": total, "failed": 0}


def _file(name: str) -> Json:
    return {"id": name, "object": "file", "bytes": 1, "created_at": 0, "filename": name, "purpose": "batch", "status": "processed"}


def _dump(value: Json) -> bytes:
    return json.dumps(value).encode()


def _uploaded(kind: str, body: bytes) -> bytes:
    message = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body, policy=email.policy.HTTP)
    parts = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}  # type: ignore[attr-defined]
    content: bytes = parts["file"].get_payload(decode=True)
    return content


@contextmanager
def batch_server() -> Iterator[BatchServer]:
    """Serves on a free port of 127.0.0.1 until the block ends."""
    state, lock = BatchServer(), threading.Lock()

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0].removeprefix("/v1/").split("/")
            with lock:
                try:
                    state.before(f"{self.command} {path[0]}")
                    status, answer = state.handle(self.command, path, body, self.headers.get("Content-Type", ""))
                    state.after(f"{self.command} {path[0]}")
                except ConnectionError:
                    self.close_connection = True
                    return
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_DELETE = _do

    with serving(Handler) as state.port:
        yield state
