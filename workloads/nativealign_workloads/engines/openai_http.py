"""Any endpoint of the OpenAI chat completions protocol: a provider's, or a server of one's own.

Called by annotate, rewrite and assess. Requests go in as calls, from any number of threads, and run concurrently under rates and a
budget; each comes back as a reply or, after bounded retries, as an `Error` reply. What stops everything raises: wrong key, unknown
model, spent budget, an endpoint that gives nothing usable at all. The journal knows of every request before it leaves.
"""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from nativealign_workloads.engines.budget import Budget, Tokens
from nativealign_workloads.engines.journal import Intent, Journal, Settlement, key_of
from nativealign_workloads.engines.openai_endpoint import (
    REQUEST_ID,
    Bill,
    Endpoint,
    Json,
    NothingUsable,
    Rejected,
    estimated_tokens,
)
from nativealign_workloads.engines.pacing import Backoff, Clock, Pace, Sleep, refill_seconds
from nativealign_workloads.engines.protocol import Reply, Request
from nativealign_workloads.errors import StepError, UnavailableError

WINDOW = 4
"""Requests between the wish and the durable answer, over those that may be at the endpoint: writing the journal idles no slot."""
ENOUGH_FAILURES = 4
"""Requests given up in a row, at least, before an endpoint that has answered is taken to be down."""
GIVE_UP_SECONDS = 10.0
"""How long an interrupted engine waits for answers that are under way."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How hard the endpoint may be driven. Rates count requests and tokens (prompt and completion) per minute; None is no limit."""

    concurrency: int = 16
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    attempts: int = 6


class OpenAIEngine:
    """Asks each request by itself, many at a time, and no faster than the endpoint says that it has room for."""

    def __init__(
        self,
        endpoint: Endpoint,
        journal: Journal,
        rates: Rates = Rates(),
        budget: Budget | None = None,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._endpoint, self._journal, self._rates = endpoint, journal, rates
        self._budget = budget or Budget()
        self._sleep, self._backoff = sleep, Backoff(seed=endpoint.seed)
        self._requests_pace = Pace(rates.requests_per_minute, clock, sleep)
        self._tokens_pace = Pace(rates.tokens_per_minute, clock, sleep)
        self._room = Pace(None, clock, sleep)
        """What the endpoint says itself."""
        self._window = asyncio.Semaphore(rates.concurrency * WINDOW)
        self._slots = asyncio.Semaphore(rates.concurrency)
        self._settled = asyncio.Condition()
        self._calls: set[_Call] = set()
        self._interrupted: StepError | None = None
        self._health = _Health()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai", daemon=True)
        self._thread.start()
        self._session = asyncio.run_coroutine_threadsafe(_session(endpoint), self._loop).result()

    @property
    def name(self) -> str:
        return f"openai:{self._endpoint.model}"

    @property
    def wave(self) -> int:
        return max(256, self._rates.concurrency)

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Replies in the order of the requests; what the journal knows is not asked.

        Raises PermissionDenied `ExpertUnauthorized` (401, 403), ConfigError `ModelNotFound` (404) and `QuotaExhausted`,
        BudgetExhausted, and UnavailableError `ExpertUnavailable` when several requests in a row got nothing usable, after the
        requests under way have ended. The answers that came are in the journal, the last ones when the engine is closed.
        """
        unknown = [request for request in requests if key_of(request) not in self._journal]
        asked = asyncio.run_coroutine_threadsafe(self._generate(unknown), self._loop).result()
        fresh = {key_of(request): reply for request, reply in zip(unknown, asked, strict=True)}
        return [fresh.get(key_of(request)) or self._journal.reply(key_of(request)) for request in requests]

    def interrupt(self, error: StepError) -> None:
        self._loop.call_soon_threadsafe(self._interrupt, error)

    def close(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _interrupt(self, error: StepError) -> None:
        self._interrupted = error
        for call in self._calls:
            call.stop(error)
            self._loop.call_later(GIVE_UP_SECONDS, call.cancel)

    async def _shut_down(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}  # there are some after an interrupt
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._session.close()
        await self._journal.flush()

    async def _generate(self, requests: Sequence[Request]) -> list[Reply]:
        if self._interrupted and requests:
            raise self._interrupted
        call = _Call(min(len(requests), self._rates.concurrency), self._health)
        self._calls.add(call)
        call.tasks = [asyncio.create_task(self._answer(request, call)) for request in requests]
        results = await asyncio.gather(*call.tasks, return_exceptions=True)
        self._calls.discard(call)
        if call.stopped_by is not None:
            raise call.stopped_by
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Reply)]

    async def _answer(self, request: Request, call: "_Call") -> Reply:
        bill = Bill()
        async with self._window:
            try:
                reply = await self._attempts(request, call, bill)
                self._health.answered()
                return reply
            except Rejected as error:
                self._health.answered()
                return self._endpoint.no_reply(request.id, str(error), bill, "Refusal" if error.refusal else "Error")
            except NothingUsable as error:
                call.give_up(self._endpoint.url, str(error))
                return self._endpoint.no_reply(request.id, str(error), bill)
            except StepError as error:
                call.stop(error)
                raise
            finally:
                if bill.reserved:  # the answer is lost
                    await self._book(bill, bill.reserved)

    async def _attempts(self, request: Request, call: "_Call", bill: Bill) -> Reply:
        async with self._settled:  # what is under way may turn out cheaper than reserved
            await self._settled.wait_for(lambda: self._budget.fits(estimated_tokens(request)) or not self._budget.under_way)
        intent = await self._intend(request, call, bill)
        async with self._slots:  # also between attempts: who fails slows down
            settlement, reply = await self._until_usable(request, call, bill, intent)
        await self._settle(settlement, bill)
        return reply

    async def _until_usable(self, request: Request, call: "_Call", bill: Bill, intent: Intent) -> tuple[Settlement, Reply]:
        for failed in range(1, self._rates.attempts + 1):
            try:
                return await self._ask(request, call, bill, intent)
            except NothingUsable as error:
                if failed == self._rates.attempts:
                    raise NothingUsable(f"{error} (after {failed} attempts)") from error
                wait = self._backoff.wait(failed, error.retry_after)
                if error.retry_after is not None:
                    self._room.hold(wait)
                with call.pausing():
                    await self._sleep(wait)
                intent = await self._intend(request, call, bill)
        raise AssertionError("attempts is at least 1")

    async def _intend(self, request: Request, call: "_Call", bill: Bill) -> Intent:
        """Takes its part of the budget, waits for its turn, and until the intent is durable."""
        call.check()
        highest = estimated_tokens(request)
        self._budget.reserve(highest)
        bill.reserved = highest
        with call.pausing():
            await self._requests_pace.take(1)
            await self._tokens_pace.take(highest.total)
        return await self._journal.intend(request, highest)

    async def _ask(self, request: Request, call: "_Call", bill: Bill, intent: Intent) -> tuple[Settlement, Reply]:
        """One attempt. Where it raises, its intent is settled or its answer lost."""
        sent = 0
        try:
            await self._turn(call)
            sent = 1
            bill.requests += 1
            completion = await self._send(request, intent)
        except (StepError, NothingUsable, Rejected) as error:
            if isinstance(error, NothingUsable) and error.lost:
                await self._book(bill, intent.highest)
            else:
                await self._settle(Settlement(intent, sent), bill)
            raise
        used = bill.add(completion, intent.highest)
        try:
            reply = self._endpoint.reply(request.id, completion, bill)
        except NothingUsable:
            await self._settle(Settlement(intent, 1, used.total, used.answer), bill)
            raise
        return Settlement(intent, 1, used.total, used.answer, reply), reply

    async def _turn(self, call: "_Call") -> None:
        """Waits until the endpoint has room. Raises what has stopped the call meanwhile."""
        try:
            with call.pausing():
                await self._room.take(1)
        finally:
            call.check()

    async def _settle(self, settlement: Settlement, bill: Bill) -> None:
        await self._book(bill, settlement.used)
        await self._journal.settle(settlement)

    async def _book(self, bill: Bill, used: Tokens) -> None:
        """Puts what was used in the place of what was reserved."""
        reserved, bill.reserved = bill.reserved, None
        if reserved:
            self._budget.settle(reserved, used)
            self._tokens_pace.give_back(reserved.total - used.total)
            async with self._settled:
                self._settled.notify_all()

    async def _send(self, request: Request, intent: Intent) -> Json:
        """The body of the answer."""
        headers = {"Content-Type": "application/json", REQUEST_ID: intent.id}
        body = orjson.dumps(self._endpoint.body(request))
        try:
            async with self._session.post(self._endpoint.completions, data=body, headers=headers) as answer:
                content = await answer.read()
        except TimeoutError as error:
            raise NothingUsable(f"no answer within {self._endpoint.timeout_seconds:g} s", lost=True) from error
        except aiohttp.ClientError as error:
            never_sent = isinstance(error, aiohttp.ClientConnectorError)
            raise NothingUsable(f"connection failed: {self._endpoint.redacted(error)}", lost=not never_sent) from error
        self._room.adapt(refill_seconds(answer.headers, intent.tokens))
        found = _object(content)
        if answer.status != 200:
            raise self._endpoint.refusal(answer.status, found.get("error"), answer.headers)
        if not found:
            raise NothingUsable("unreadable reply: no JSON object", lost=True)
        return found


async def _session(endpoint: Endpoint) -> aiohttp.ClientSession:
    """As many connections as there are slots; nothing but what the job says goes out."""
    headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=endpoint.timeout_seconds),
        headers=headers,
        trust_env=endpoint.trust_env,
    )


def _object(content: bytes) -> Json:
    """The JSON object that an answer holds; {} where it holds none."""
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


class _Call:
    """What the requests of one call know of each other, and of the endpoint's `health`."""

    def __init__(self, width: int, health: "_Health") -> None:
        self._width, self._health = width, health
        self.stopped_by: StepError | None = None
        self.tasks: list[asyncio.Task[Reply]] = []
        self._pausing: set[asyncio.Task[Any] | None] = set()

    def check(self) -> None:
        """Raises what has stopped the call."""
        if self.stopped_by is not None:
            raise self.stopped_by

    def stop(self, error: StepError) -> None:
        """Nothing new starts; what is under way, which is paid for, ends."""
        if self.stopped_by is None:
            self.stopped_by = error
            for task in filter(None, self._pausing):
                task.cancel()

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """While the request of this task is not at the endpoint: there is nothing to wait for when the call is stopped."""
        task = asyncio.current_task()
        self._pausing.add(task)
        try:
            yield
        finally:
            self._pausing.discard(task)

    def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()

    def give_up(self, endpoint: str, problem: str) -> None:
        """A request is out of attempts; so many without an answer between them, and the endpoint is as good as down."""
        self._health.failures += 1
        if self._health.failures >= (max(ENOUGH_FAILURES, self._width) if self._health.proven else self._width):
            self.stop(
                UnavailableError(
                    "ExpertUnavailable",
                    f"{endpoint} gave nothing usable to {self._health.failures} requests; the last: {problem}",
                    "check that the endpoint is up and speaks the chat completions protocol",
                )
            )


@dataclass
class _Health:
    """Whether the endpoint has ever given an answer, and how many requests were given up since the last."""

    proven: bool = False
    failures: int = 0

    def answered(self) -> None:
        self.proven, self.failures = True, 0
