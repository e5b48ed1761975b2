"""A pod's `/progress` (JSON) and `/metrics` (Prometheus text), made from its progress file; read by the operator and by scrapers.

Only where the pod's address is known: a laptop reads the file itself. A server that cannot start is no reason to stop the work.
"""

import json
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET6
from typing import Any

from nativealign_api.vocabulary import PROGRESS_PORT

GAUGES = ("done", "total", "percent", "etaSeconds")


def serve(progress: Path, address: str) -> None:
    """Serves from a thread that ends with the process."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            found = _read(progress)
            if self.path == "/progress":
                self._answer("application/json", json.dumps(found))
            elif self.path == "/metrics":
                self._answer("text/plain; version=0.0.4", exposition(found))
            else:
                self.send_error(404)

        def _answer(self, form: str, text: str) -> None:
            content = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", form)
            self.send_header("Content-Length", str(len(content)))
            with suppress(ConnectionError):  # the scraper may have had enough
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nobody wants a line for every scrape."""

    class Server(ThreadingHTTPServer):
        address_family = AF_INET6 if ":" in address else ThreadingHTTPServer.address_family

    try:
        server = Server((address, PROGRESS_PORT), Handler)
    except OSError as error:
        print(f"no /progress on {address}:{PROGRESS_PORT}: {error}", file=sys.stderr)
        return
    threading.Thread(target=server.serve_forever, daemon=True).start()


def exposition(progress: dict[str, Any]) -> str:
    """The progress as gauges, e.g. `nativealign_progress_done{step="clean",phase="filter",index="0"} 12`."""
    labels = ",".join(f'{name}="{progress.get(name, "")}"' for name in ("step", "phase", "index"))
    values = {_snake(name): progress.get(name) for name in GAUGES}
    values |= {f"count_{_snake(name)}": value for name, value in progress.get("counts", {}).items()}
    return "".join(f"nativealign_progress_{name}{{{labels}}} {value}\n" for name, value in values.items() if value is not None)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name if letter.isalnum())


def _read(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text())
        return value
    except (OSError, ValueError):
        return {"done": 0, "total": 0}
