"""A proxy between operator and apiserver that does bad things, each once: at the n-th write or watch event after a child.

    write  crash-before, crash-after   the operator is killed before, or after, the apiserver has done it
           drop                        done, and the answer is lost
           delay, duplicate            late; done twice
    event  drop, delay, duplicate      swallowed, late, sent twice
           stale                       followed by the first version of its object
           crash                       the operator is killed when it comes
           gone                        the watch ends with 410 in its place: what it stood at is compacted
    list   stale                       at the n-th write the operator is killed, and finds the lists of its first start again

Renewals of the Lease are not counted. One proxy serves one operator. What is after a child, a Job that is asked for the first time,
does not depend on how often something was tried before it.
"""

import asyncio
import contextlib
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from tests.cluster.control_plane import ControlPlane

Json = dict[str, Any]
DELAY_SECONDS = 3.0
GONE = b'{"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired"}}\n'
WRITES = {"POST", "PUT", "PATCH", "DELETE"}
FAULTS = [
    *(("write", what) for what in ("crash-before", "crash-after", "drop", "delay", "duplicate")),
    *(("event", what) for what in ("drop", "delay", "duplicate", "stale", "crash", "gone")),
    ("list", "stale"),
]


@dataclass(frozen=True)
class Place:
    """The n-th write or event (from 1) after a child, or before the first one."""

    child: str
    number: int

    def __str__(self) -> str:
        return f"{self.number} after {self.child or 'the start'}"


@dataclass(frozen=True)
class Fault:
    """What happens, and at which write or event."""

    on: str
    what: str
    place: Place

    def __str__(self) -> str:
        return f"{self.on} {self.place}: {self.what}"


@dataclass
class Proxy:
    """Counts, and does its faults."""

    upstream: str
    token: str
    faults: Sequence[Fault]
    kill: Callable[[], None] = lambda: None
    """Kills the operator and starts it again."""
    port: int = 0
    writes: list[str] = field(default_factory=list)
    places: dict[str, list[Place]] = field(default_factory=lambda: {"write": [], "event": []})
    """Of the writes and the events so far."""
    struck: dict[Fault, str] = field(default_factory=dict)
    """Where the faults struck that did."""
    _children: list[str] = field(default_factory=lambda: [""])
    _after: Counter[str] = field(default_factory=Counter)
    """How many writes and events there were after the last child."""
    _first: dict[str, Json] = field(default_factory=dict)
    """First version of each object seen in a watch, by uid."""
    _lists: dict[str, bytes] = field(default_factory=dict)
    _stale_lists: dict[str, bytes] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": request.headers.get("Content-Type", "application/json")}
        url = f"{self.upstream}{request.raw_path}"
        if request.query.get("watch"):
            return await self._watch(request, url, headers)
        if request.method in WRITES and "/leases" not in request.path:
            return await self._write(request, url, headers, body)
        return await self._read(request, url, headers, body)

    async def _send(self, method: str, url: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        async with self._session.request(method, url, headers=headers, data=body or None) as answer:
            return answer.status, await answer.read()

    async def _read(self, request: web.Request, url: str, headers: dict[str, str], body: bytes) -> web.Response:
        if request.path in self._stale_lists:
            return web.Response(body=self._stale_lists.pop(request.path), content_type="application/json")
        status, content = await self._send(request.method, url, headers, body)
        if request.method == "GET" and b'"items"' in content:
            self._lists.setdefault(request.path, content)
        return web.Response(status=status, body=content, content_type="application/json")

    async def _write(self, request: web.Request, url: str, headers: dict[str, str], body: bytes) -> web.Response:
        self.writes.append(f"{request.method} {request.path}")
        place = self._place("write")
        what = self._due("write", place, self.writes[-1])
        is_stale = self._due("list", place, self.writes[-1])
        if request.method == "POST" and request.path.endswith("/jobs"):
            self._ask_for(json.loads(body)["metadata"]["name"])
        if is_stale:
            self._stale_lists = dict(self._lists)
            await self._crash()
        if what == "crash-before":
            await self._crash()
        if what == "delay":
            await asyncio.sleep(DELAY_SECONDS)
        status, content = await self._send(request.method, url, headers, body)
        if what == "duplicate":
            status, content = await self._send(request.method, url, headers, body)
        if what in ("crash-after", "drop"):
            await self._crash() if what == "crash-after" else None
            if request.transport:  # the operator may have gone on to another connection
                request.transport.close()
        return web.Response(status=status, body=content, content_type="application/json")

    async def _watch(self, request: web.Request, url: str, headers: dict[str, str]) -> web.StreamResponse:
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(url, headers=headers, timeout=timeout) as answer:
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
            with contextlib.suppress(ConnectionResetError):  # the operator was killed
                await response.prepare(request)
                async for line in answer.content:
                    for sent in await self._event(line):
                        await response.write(sent)
                        if sent == GONE:
                            return response
        return response

    async def _event(self, line: bytes) -> list[bytes]:
        event = json.loads(line)
        if event["type"] in ("BOOKMARK", "ERROR"):
            return [line]
        place = self._place("event")
        metadata = event["object"]["metadata"]
        first = self._first.setdefault(metadata["uid"], event)
        what = self._due("event", place, f"{event['type']} {event['object'].get('kind')} {metadata['name']}")
        if what == "crash":
            await self._crash()
        if what == "delay":
            await asyncio.sleep(DELAY_SECONDS)
        stale = json.dumps({"type": "MODIFIED", "object": first["object"]}).encode() + b"\n"
        return {"drop": [], "gone": [GONE], "duplicate": [line, line], "stale": [line, stale]}.get(what, [line])

    def _place(self, on: str) -> Place:
        self._after[on] += 1
        self.places[on].append(Place(self._children[-1], self._after[on]))
        return self.places[on][-1]

    def _ask_for(self, child: str) -> None:
        if child not in self._children:
            self._children.append(child)
            self._after.clear()

    def _due(self, on: str, place: Place, where: str) -> str:
        left = (fault for fault in self.faults if fault.on == on and fault not in self.struck)
        due = next((fault for fault in left if self._has_come(fault.place, place)), None)
        if due is None:
            return ""
        self.struck[due] = where
        return due.what

    def _has_come(self, due: Place, place: Place) -> bool:
        """Or is over: not every run has as many writes and events after a child."""
        return place == due or due.child in self._children[:-1]

    async def _crash(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.kill)

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0)) as self._session:
            app = web.Application(client_max_size=16 << 20)
            app.router.add_route("*", "/{path:.*}", self.handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            ready.set()
            await stop.wait()
            await runner.cleanup()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


@contextmanager
def proxy(plane: ControlPlane, faults: Sequence[Fault]) -> Iterator[Proxy]:
    """A proxy for the time of a block, in a thread of its own."""
    connection = plane.connection
    found = Proxy(f"https://{connection.host}:{connection.port}", plane.token, faults)
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(found.serve(ready, stop),), daemon=True)
    thread.start()
    ready.wait(30)
    try:
        yield found
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
