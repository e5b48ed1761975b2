"""`python -m nativealign_operator`: the supervisor. Serves health and metrics, waits for the Lease, and while it holds it, works.

    leading ─┬─ watches (kopf)     events into cache and queue
             ├─ workers            keys from the queue to Reconciler.reconcile
             ├─ resync             everything listed anew, so that no lost event is lost for long
             └─ progress           pods asked how far they are

Whatever ends one of the four ends all, and they are started again; losing the Lease ends them too.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

import aiohttp
from kubernetes.aio.client.api_client import ApiClient

from nativealign_api.kinds import KINDS
from nativealign_api.vocabulary import ExitCode
from nativealign_operator import shell
from nativealign_operator.cache import Cache, Key
from nativealign_operator.cluster import ApiError, Cluster, configuration
from nativealign_operator.health import Health, serve
from nativealign_operator.lease import Lease
from nativealign_operator.logs import configure_logs
from nativealign_operator.metrics import Metrics
from nativealign_operator.paths import path_of
from nativealign_operator.progress import ProgressBoard
from nativealign_operator.reconcile import Reconciler
from nativealign_operator.settings import BadSettings, OperatorSettings, from_environment
from nativealign_operator.workqueue import WorkQueue

RESTART_SECONDS, LONGEST_RESTART_SECONDS = 0.2, 2.0
ELECTION = "election"
ELECTION_LIMIT, WORKER_LIMIT, QUEUE_LOOK_SECONDS = 60.0, 120.0, 5.0
"""Seconds: how late a loop may be before /healthz fails; how often an idle worker beats."""
log = logging.getLogger(__name__)


class Leading:
    """What the leader does. Nothing is carried over from one start to the next: all is listed anew."""

    def __init__(
        self, cluster: Cluster, settings: OperatorSettings, metrics: Metrics, health: Health, take_signals: Callable[[], None]
    ) -> None:
        self._take_signals = take_signals
        self._cluster, self._settings, self._metrics, self._health = cluster, settings, metrics, health
        self._cache, self._board = Cache(), ProgressBoard()
        self._namespaces: tuple[str, ...] = ()
        """Of the scope, that may be watched; none are all of the cluster."""
        self._queue: WorkQueue[Key] = WorkQueue()
        self._waiting: dict[Key, set[Key]] = defaultdict(set)
        """Jobs that wait for a job."""
        self._reconciler = Reconciler(cluster, self._cache, self._board, metrics, settings.rendering, self._wait_for)

    async def run(self) -> None:
        """Raises whatever ends one of the four; never returns by itself."""
        try:
            self._namespaces = await self._permitted()
            await self._resync_once()
        except Exception:
            self._health.ready = False
            raise
        self._health.ready = True
        self._metrics.keep_only(self._cache.keys(KINDS))
        stop = asyncio.Event()
        tasks: list[Coroutine[Any, Any, None]] = [
            shell.watch(self._cache, self._notice, self._namespaces, self._settings.identity, stop, self._take_signals),
            self._resync(),
            self._progress(),
            *(self._work(number) for number in range(self._settings.workers)),
        ]
        running = [asyncio.create_task(task) for task in tasks]
        try:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.cancelled():  # kopf cancels what it does not know when it ends, and so what a loop waits for
                    raise RuntimeError("a loop was cancelled")
                task.result()
        finally:
            await self._stop(running, stop)
            self._health.keep_only(ELECTION)

    async def _stop(self, running: list[asyncio.Task[None]], stop: asyncio.Event) -> None:
        """Writers first."""
        watches, *writers = running
        for task in writers:
            task.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        stop.set()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(watches, 5)

    def _notice(self, key: Key) -> None:
        """Something has happened to a job: it, and those that wait for it, are due."""
        if key.namespace in self._settings.excluded_namespaces:
            return
        self._queue.add(key)
        for waiting in self._waiting.pop(key, ()):
            self._queue.add(waiting)
        self._metrics.queue.set(len(self._queue))

    def _wait_for(self, key: Key, upstream: list[Key]) -> None:
        for other in upstream:
            self._waiting[other].add(key)

    async def _work(self, number: int) -> None:
        name = f"worker-{number}"
        while True:
            self._health.beat(name, WORKER_LIMIT)
            try:
                async with asyncio.timeout(QUEUE_LOOK_SECONDS):
                    key = await self._queue.get()
            except TimeoutError:
                continue
            self._metrics.queue.set(len(self._queue))
            await self._reconcile(key)
            await asyncio.sleep(0)  # a reconcile may wait for nothing, and the Lease must be renewed

    async def _reconcile(self, key: Key) -> None:
        """One key. An error is this key's alone: it comes again, later each time."""
        failed = True
        try:
            with self._metrics.reconcile_seconds.labels(key.kind).time():
                due = await self._reconciler.reconcile(key)
            failed = False
            if due is not None:
                self._queue.add_after(key, due)
        except ApiError as error:
            log.warning("%s %s/%s: %s", key.kind, key.namespace, key.name, error)
        except Exception:
            log.exception("%s %s/%s: a defect of nativealign", key.kind, key.namespace, key.name)
        finally:
            if failed:
                self._metrics.errors.labels(key.kind).inc()
            self._queue.done(key, failed=failed)

    async def _resync(self) -> None:
        while True:
            self._health.beat("resync", 2 * self._settings.resync_seconds + 60)
            await asyncio.sleep(self._settings.resync_seconds)
            try:
                if await self._permitted() != self._namespaces:
                    raise RuntimeError("other namespaces of the scope can be watched than before")
                await self._resync_once()
            except ApiError as error:
                log.warning("resync: %s", error)

    async def _permitted(self) -> tuple[str, ...]:
        """The namespaces of the scope but those whose jobs may not be listed: one that was deleted, with its Role, must not hold up
        the others. Raises ApiError where that are all.
        """
        found: list[str] = []
        refusal: ApiError | None = None
        for namespace in self._settings.watch_namespaces:
            try:
                await anext(self._cluster.pages(path_of(next(iter(KINDS)), namespace)))
                found.append(namespace)
            except ApiError as error:
                if error.code != HTTPStatus.FORBIDDEN:
                    raise
                log.warning("namespace %s is left out until its jobs may be listed: %s", namespace, error)
                refusal = error
        if refusal and not found:
            raise refusal
        return tuple(found)

    async def _resync_once(self) -> None:
        """Lists every watched kind; all jobs are due, spread over a while where there are many."""
        for kind in (*KINDS, *shell.CHILDREN):
            for namespace in self._namespaces or ("",):
                await self._list(kind, namespace)
        mine = (key for key in self._cache.keys(KINDS) if key.namespace not in self._settings.excluded_namespaces)
        self._queue.add_spread(mine, RESYNC_PER_SECOND)

    async def _list(self, kind: str, namespace: str) -> None:
        selector = shell.CHILD_SELECTOR if kind in shell.CHILDREN else ""
        listed: set[str] = set()
        version = 0
        async for page in self._cluster.pages(path_of(kind, namespace), selector):
            version = version or int(page["metadata"]["resourceVersion"])
            for item in page["items"]:
                listed.add(item["metadata"]["uid"])
                self._cache.put(kind, item)
            await asyncio.sleep(0)
        for key in self._cache.prune(kind, namespace, listed, version):
            if kind in KINDS:
                self._notice(key)

    def _beat_progress(self) -> None:
        self._health.beat("progress", self._settings.progress_seconds * 10)

    async def _progress(self) -> None:
        async with aiohttp.ClientSession(trust_env=False) as session:
            while True:
                self._beat_progress()
                await asyncio.sleep(self._settings.progress_seconds)
                news = await self._board.poll(session, self._beat_progress)
                self._queue.add_spread(news, PROGRESS_PER_SECOND)


RESYNC_PER_SECOND, PROGRESS_PER_SECOND = 200.0, 50.0
"""Jobs that a resync, and a round of asking pods, makes due in a second; most of the latter write a status."""


async def supervise(settings: OperatorSettings) -> None:
    """Runs until SIGTERM or SIGINT."""
    stop = asyncio.Event()

    def take_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)

    take_signals()
    metrics, health = Metrics(), Health()
    runner = await serve(health, metrics, settings.port)
    async with ApiClient(await configuration()) as client:
        cluster = Cluster(client)

        def lead() -> Coroutine[Any, Any, None]:
            return _lead(lambda: Leading(cluster, settings, metrics, health, take_signals), metrics)

        lease = Lease(cluster, settings.namespace, settings.lease_name, settings.identity, settings.lease_seconds)
        campaign = asyncio.create_task(_campaign(lease, health, metrics, settings, lead))
        waiter = asyncio.create_task(stop.wait())
        await asyncio.wait([campaign, waiter], return_when=asyncio.FIRST_COMPLETED)
        campaign.cancel()
        waiter.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await campaign
        await lease.release()
    await runner.cleanup()


async def _campaign(
    lease: Lease, health: Health, metrics: Metrics, settings: OperatorSettings, lead: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Waits for the Lease and leads, again and again. Whoever does not lead any more does not keep the Lease."""

    def beat() -> None:
        health.beat(ELECTION, ELECTION_LIMIT)
        health.ready = health.ready or lease.is_held_by_another

    while True:
        await lease.acquire(beat)
        log.info("leading as %s", settings.identity)
        metrics.leader.set(1)
        both = [asyncio.create_task(lead()), asyncio.create_task(lease.hold(beat))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            log.warning("leading has ended, or the Lease is lost")
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            metrics.clear()


async def _lead(leading: Callable[[], Leading], metrics: Metrics) -> None:
    """Leads, and starts again whatever ends it."""
    seconds = RESTART_SECONDS
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            await leading().run()
        except ApiError as error:
            log.warning("starting again: %s", error)
        except Exception as error:
            log.warning("starting again: %s: %s", type(error).__name__, error)
        metrics.restarts.inc()
        seconds = RESTART_SECONDS if clock() - began > 60 else min(LONGEST_RESTART_SECONDS, seconds * 2)
        await asyncio.sleep(seconds)


def main() -> int:
    """Returns the exit code."""
    configure_logs()
    try:
        settings = from_environment(os.environ)
    except BadSettings as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USAGE
    asyncio.run(supervise(settings))
    return ExitCode.OK
