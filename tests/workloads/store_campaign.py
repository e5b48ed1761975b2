"""`make store-campaign`: an AlignJob on a real S3 server, over a wire and by processes that fail, many times, each time otherwise.

Every second schedule has an expert behind an endpoint, the others the rules. A schedule is drawn from its number alone: 1 to 8
workers, of which each has a faulty way to the server (answers 500 and 503 SlowDown, connections cut before and after the server
acts, silence for a moment, listings that miss what is new), is killed now and then before or after one of its requests, and may
do what another does at the same time. What failed is tried again, as the operator would. In the end the store must hold what the
quiet run left, every document must be in it once, and what the endpoint was asked must be in the records. Prints one line for
each schedule and a summary; the exit code is 1 if any differs.
"""

import http.client
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.s3 import S3Server, s3_server
from tests.serving import QuietHandler, serving
from tests.workloads.openai_server import OpenAIServer, openai_server
from tests.workloads.pipeline import (
    RULES,
    Ended,
    Unit,
    World,
    account,
    assert_conserved,
    differing,
    logical,
    make_corpus,
    manifest_facts,
    manifest_of,
    run_phases,
)

from nativealign_api import vocabulary
from nativealign_api.common import Store
from nativealign_api.kinds import JobObject
from nativealign_api.messages import TerminationMessage, unpack
from nativealign_api.vocabulary import ExitCode
from nativealign_cli.forkserver import ForkServer, Process

SCHEDULES = 200
DOCUMENTS = 120
SHARDS = 4
WORKERS = 8
EXPERTS = ("rules", "endpoint")
PASSING = {-signal.SIGKILL, ExitCode.UNAVAILABLE, ExitCode.TEMPORARY}
"""How a process may end that is tried again."""
TRIES = 30
ENTRY = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
BROKEN = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"


@dataclass
class Way:
    """One worker's way to the server: what goes wrong on it, by the schedule's own dice."""

    dice: random.Random
    faults: float = 0.0
    """Part of the requests that something happens to."""
    process: Process | None = None
    kill_at: int = 0
    """Request of the process at which it is killed; 0: never."""
    after: bool = False
    """Killed when the server has acted, else before."""
    seen: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, process: Process, kill: float) -> None:
        with self.lock:
            self.process, self.seen = process, 0
            self.kill_at = self.dice.randint(1, 25) if self.dice.random() < kill else 0
            self.after = self.dice.random() < 0.5

    def draw(self, listing: bool) -> tuple[str, bool]:
        """(what happens to the next request, whether its process is killed at it)."""
        with self.lock:
            self.seen += 1
            fault = ""
            if self.dice.random() < self.faults:
                fault = self.dice.choice(["500", "503", "cut before", "cut after", "slow"] + ["stale"] * 3 * listing)
                self.happened[fault] += 1
            return fault, self.seen == self.kill_at

    def kill(self) -> None:
        if self.process and self.process.pid and self.process.code is None:
            self.happened["killed"] += 1
            os.kill(self.process.pid, signal.SIGKILL)


@contextmanager
def proxy(server: S3Server, way: Way) -> Iterator[str]:
    """The endpoint of a way."""

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            listing = self.command == "GET" and "list-type=2" in self.path
            fault, deadly = way.draw(listing)
            if deadly and not way.after:
                way.kill()
            if fault == "cut before" or (deadly and not way.after):
                self.close_connection = True
                return
            if fault in ("500", "503"):
                self.reply(int(fault), [("content-type", "application/xml")], BROKEN if fault == "500" else SLOW_DOWN)
                return
            if fault == "slow":
                time.sleep(way.dice.uniform(0, 0.3))
            status, headers, data = self.ask(body)
            if deadly:
                way.kill()
            if fault == "cut after" or deadly:
                self.close_connection = True
                return
            self.reply(status, headers, _stale(data, way.dice) if fault == "stale" else data)

        def ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            backend = http.client.HTTPConnection(server.endpoint.removeprefix("http://"))
            backend.request(self.command, self.path, body, dict(self.headers.items()))
            answer = backend.getresponse()
            data = answer.read()
            backend.close()
            return answer.status, answer.getheaders(), data

        def reply(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
            self.send_response_only(status)
            length = next((value for name, value in headers if name.lower() == "content-length"), "")
            for name, value in headers:
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("content-length", length if self.command == "HEAD" else str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # its process was killed
                return

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}"


def _stale(listing: bytes, dice: random.Random) -> bytes:
    """The listing without some of its entries."""
    return ENTRY.sub(lambda entry: b"" if dice.random() < 0.5 else entry[0], listing)


class Schedule:
    """Runs phases on the server under one prefix, with the faults of one number; number 0 is the quiet run."""

    def __init__(
        self, number: int, prefix: str, server: S3Server, starter: ForkServer, folder: Path, ways: list[tuple[Way, str]]
    ) -> None:
        self._number, self._prefix, self._server, self._starter = number, prefix, server, starter
        self._folder, self._ways = folder, ways
        self.dice = random.Random(number)
        self.started = 0

    def run(self, _: World, units: list[Unit]) -> list[Ended]:
        """Every unit until it has ended well."""
        left = units + ([unit for unit in units if self.dice.random() < 0.2] if self._number else [])
        tries, running, done = Counter[int](), list[tuple[Unit, Way, Ended]](), dict[int, Ended]()
        while left or running:
            busy = [way for _, way, _ in running]
            free = [(way, endpoint) for way, endpoint in self._ways if way not in busy]
            while left and free:
                (way, endpoint), unit = free.pop(), left.pop(0)
                tries[unit.index] += 1
                assert tries[unit.index] <= TRIES, f"{unit.phase} {unit.index} never ends well"
                running.append((unit, way, self._start(unit, way, endpoint)))
            self._starter.hear(0.05)
            for found in [entry for entry in running if entry[2].process and entry[2].process.code is not None]:
                running.remove(found)
                unit, _, ended = found
                if ended.process.code == 0:
                    done[unit.index] = self._ended(ended)
                else:
                    assert ended.process.code in PASSING, f"{unit.phase} {unit.index}: {ended.output}"
                    left.append(unit)
        return [done[unit.index] for unit in units]

    def _start(self, unit: Unit, way: Way, endpoint: str) -> Ended:
        self.started += 1
        folder = self._folder / f"process-{self.started}"
        secrets = folder / "secrets" / "store"
        secrets.mkdir(parents=True)
        (secrets / "AWS_ACCESS_KEY_ID").write_text(self._server.access_key)
        (secrets / "AWS_SECRET_ACCESS_KEY").write_text(self._server.secret_key)
        store = Store(bucket=self._server.bucket, prefix=self._prefix, endpoint=endpoint, region=self._server.region)
        (folder / "job.json").write_bytes(unit.job.model_copy(update={"store": store, "store_folder": None}).dump())
        environment = {
            vocabulary.ENV_JOB: str(folder / "job.json"),
            vocabulary.ENV_INDEX: str(unit.index),
            vocabulary.ENV_WRITER: f"w{self.started}",
            vocabulary.ENV_TERMINATION_LOG: str(folder / "message.json"),
            vocabulary.ENV_SCRATCH: str(folder / "scratch"),
            vocabulary.ENV_SECRETS: str(folder / "secrets"),
            "OMP_NUM_THREADS": "1",
        }
        log = folder / "log"
        process = self._starter.start("nativealign_workloads", [unit.job.step, unit.job.phase], environment, log)
        way.begin(process, kill=0.2 if self._number else 0.0)
        return Ended(process, None, [], TerminationMessage(), log)

    def _ended(self, ended: Ended) -> Ended:
        message = ended.log.with_name("message.json")
        said = unpack(message.read_text() if message.is_file() else "") or TerminationMessage()
        return Ended(ended.process, 0, [], said, ended.log)


@dataclass
class Campaign:
    """Everything that schedules share."""

    folder: Path
    server: S3Server
    endpoint: OpenAIServer
    starter: ForkServer
    ids: list[str]

    def run(self, number: int, expert: str) -> tuple[dict[str, object], str]:
        """(what the store holds after a schedule, a line about it)."""
        dice, began = random.Random(f"ways of {number}"), time.monotonic()
        workers = dice.randint(1, WORKERS) if number else 2
        ways = [
            Way(random.Random(f"way {n} of {number}"), faults=dice.choice([0.02, 0.05, 0.1]) if number else 0.0)
            for n in range(workers)
        ]
        prefix = f"schedule-{number}-{expert}"
        work = self.folder / prefix
        work.mkdir()
        asked = len(self.endpoint.requests)
        with ExitStack() as stack:
            proxies = [(way, stack.enter_context(proxy(self.server, way))) for way in ways]
            schedule = Schedule(number, prefix, self.server, self.starter, work, proxies)
            digests = run_phases(self.folder, self._job(expert), World(work), schedule.run)["AlignJob/web"]
        shutil.rmtree(work)
        store = self.folder / "s3" / "data" / self.server.bucket / prefix
        self._check_documents(store, digests)
        self._check_bill(store, digests, len(self.endpoint.requests) - asked)
        happened = sum((way.happened for way in ways), Counter[str]())
        counts = ", ".join(f"{count} {name}" for name, count in sorted(happened.items()))
        line = f"{expert}, {workers} workers, {schedule.started} processes, {time.monotonic() - began:.0f} s: {counts or 'quiet'}"
        return _without_bill(logical(store)), line

    def _job(self, expert: str) -> JobObject:
        chosen = {"openai": {"model": "served", "endpoint": self.endpoint.url}} if expert == "endpoint" else {"rules": {}}
        more = {"expert": chosen, "sharding": {"shards": SHARDS}, "clean": {"repeatedLines": {"minDocuments": 3}}}
        return manifest_of("AlignJob", "web", RULES | more)

    def _check_bill(self, store: Path, digests: dict[str, str], asked: int) -> None:
        """Of those whose answer was lost nobody knows whether they arrived."""
        usage = manifest_facts(store, f"steps/rewrite/{digests['rewrite']}")["usage"]
        assert usage["requests"] <= asked <= usage["requests"] + usage["unsettledRequests"], (asked, usage)

    def _check_documents(self, store: Path, digests: dict[str, str]) -> None:
        clean = account(store, f"steps/clean/{digests['clean']}")
        assert_conserved(self.ids, clean)
        dedup = account(store, f"steps/dedup/{digests['dedup']}")
        assert_conserved(clean["out"], dedup)
        assert_conserved(dedup["out"], account(store, f"steps/rewrite/{digests['rewrite']}"))


def _without_bill(held: Any) -> Any:
    """What was asked twice is paid twice."""
    if isinstance(held, dict):
        return {name: _without_bill(value) for name, value in held.items() if name not in ("usage", "counted")}
    return [_without_bill(value) for value in held] if isinstance(held, list) else held


@contextmanager
def campaign(folder: Path) -> Iterator[Campaign]:
    """A store, an endpoint, a process that forks, and a corpus."""
    starter = ForkServer()
    try:
        with s3_server(folder / "s3") as server, openai_server() as endpoint:
            yield Campaign(folder, server, endpoint, starter, make_corpus(folder / "corpus", DOCUMENTS))
    finally:
        starter.close()


def try_schedules(numbers: Sequence[int]) -> int:
    """How many of them leave something else than the quiet run, or end otherwise than they should."""
    differing_ones = 0
    with tempfile.TemporaryDirectory() as name, campaign(Path(name)) as shared:
        quiet = {}
        for expert in EXPERTS:
            quiet[expert], said = shared.run(0, expert)
            print(f"quiet run: {said}", flush=True)
        for number in numbers:
            expert = EXPERTS[number % len(EXPERTS)]
            try:
                held, said = shared.run(number, expert)
                differences = differing(held, quiet[expert])
            except AssertionError as error:
                said, differences = expert, [str(error)]
            differing_ones += bool(differences)
            print(f"schedule {number}: {said}; {len(differences)} differences {differences[:3] or ''}", flush=True)
    return differing_ones


def main(schedules: int) -> int:
    """Two at a time, each with a server of its own: one alone leaves half of two processors unused."""
    halves = range(1, schedules // 2 + 1), range(schedules // 2 + 1, schedules + 1)
    with ProcessPoolExecutor(len(halves), multiprocessing.get_context("spawn")) as pool:
        differing_ones = sum(pool.map(try_schedules, halves))
    print(f"{schedules} schedules tried, {differing_ones} differing")
    return 1 if differing_ones else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else SCHEDULES))
