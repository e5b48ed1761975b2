"""Any endpoint of the OpenAI chat completions protocol: a provider's, or a server of one's own.

Called by annotate, rewrite and assess. Requests go in as a batch and run concurrently under rates and a budget; each comes
back as a reply or, after bounded retries, as an `Error` reply. What stops everything raises: wrong key, unknown model, spent
budget, an endpoint that gives nothing usable at all.
"""

import asyncio
import ipaddress
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import openai

from nativealign_workloads.engines.billing import estimated_message_tokens
from nativealign_workloads.engines.budget import Budget, BudgetExhausted
from nativealign_workloads.engines.pacing import Backoff, Clock, Pace, Sleep, retry_after_seconds
from nativealign_workloads.engines.protocol import FinishReason, Reply, Request
from nativealign_workloads.errors import ConfigError, PermissionDenied, StepError, UnavailableError

MODERATED = {"content_filter", "content_policy_violation"}
"""Error codes of endpoints whose moderation refuses a prompt."""
_FINISH: dict[str, FinishReason] = {"length": "Length", "content_filter": "Refusal"}


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard the endpoint may be driven. Rates count requests and tokens (prompt and completion) per minute; None is no limit."""

    concurrency: int = 16
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    attempts: int = 6
    timeout_seconds: float = 120.0


class _NothingUsable(Exception):
    """An attempt failed in a way that another attempt may mend."""

    def __init__(self, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class _Rejected(Exception):
    """The endpoint refuses this one request for good, e.g. a prompt that is too long; `refusal` where its moderation does."""

    def __init__(self, problem: str, *, refusal: bool = False) -> None:
        super().__init__(problem)
        self.refusal = refusal


@dataclass
class _Bill:
    """What one request has cost over all its attempts: answers that were unusable are billed too."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class OpenAIEngine:
    """Fixed temperature and seed. Proxies of the environment are honoured, but never for a loopback address."""

    def __init__(
        self,
        endpoint: str,
        model: str,
        api_key: str | None,
        limits: Limits = Limits(),
        budget: Budget | None = None,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._endpoint, self._model, self._seed, self._limits = endpoint, model, seed, limits
        self._api_key, self._temperature = api_key or "", temperature
        self.budget = budget or Budget()
        self.unclaimed: list[Reply] = []
        self._sleep, self._backoff = sleep, Backoff(seed=seed)
        self._requests_pace = Pace(limits.requests_per_minute, clock, sleep)
        self._tokens_pace = Pace(limits.tokens_per_minute, clock, sleep)
        self._settled = asyncio.Condition()
        self._loop = asyncio.new_event_loop()
        self._client = _client(endpoint, self._api_key, limits)

    @property
    def name(self) -> str:
        return f"openai:{self._model}"

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Replies in the order of the requests.

        Where it raises, `unclaimed` has the answers that were paid for until then. Raises PermissionDenied `ExpertUnauthorized`
        (401, 403), ConfigError `ModelNotFound` (404) and `QuotaExhausted`, BudgetExhausted (after requests under way have ended),
        and UnavailableError `ExpertUnavailable` when no request of the batch got anything usable.
        """
        return self._loop.run_until_complete(self._generate(requests))

    def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._shut_down())
            self._loop.close()

    async def _shut_down(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}  # there are some after an interrupt
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._client.close()

    async def _generate(self, requests: Sequence[Request]) -> list[Reply]:
        batch = _Batch(min(len(requests), self._limits.concurrency))
        gate = asyncio.Semaphore(self._limits.concurrency)
        batch.tasks = [asyncio.create_task(self._answer(request, batch, gate)) for request in requests]
        results = await asyncio.gather(*batch.tasks, return_exceptions=True)
        replies = [result for result in results if isinstance(result, Reply)]
        if batch.stopped_by is not None:
            self.unclaimed = [reply for reply in replies if reply.finish_reason != "Error"]
            raise batch.stopped_by
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return replies

    async def _answer(self, request: Request, batch: "_Batch", gate: asyncio.Semaphore) -> Reply:
        bill = _Bill()
        async with gate:
            try:
                reply = await self._attempts(request, batch, bill)
                batch.usable = True
            except _Rejected as error:
                batch.usable = True
                return self._failed(request, str(error), bill, "Refusal" if error.refusal else "Error")
            except _NothingUsable as error:
                batch.give_up(self._endpoint, str(error))
                return self._failed(request, str(error), bill)
            except StepError as error:
                batch.stop(error)
                raise
            return reply

    async def _attempts(self, request: Request, batch: "_Batch", bill: _Bill) -> Reply:
        for failed in range(1, self._limits.attempts + 1):
            if batch.stopped_by is not None:
                raise batch.stopped_by
            try:
                return await self._attempt(request, bill)
            except _NothingUsable as error:
                if failed == self._limits.attempts:
                    raise _NothingUsable(f"{error} (after {failed} attempts)") from error
                wait = self._backoff.wait(failed, error.retry_after)
                if error.retry_after is not None:
                    self._requests_pace.hold(wait)
                await self._sleep(wait)
        raise AssertionError("attempts is at least 1")

    async def _attempt(self, request: Request, bill: _Bill) -> Reply:
        estimate, used = estimated_tokens(request), 0
        async with self._settled:  # what is under way may turn out cheaper than reserved
            await self._settled.wait_for(lambda: self.budget.fits(estimate) or not self.budget.under_way)
            self.budget.reserve(estimate)
        try:
            await self._requests_pace.take(1)
            await self._tokens_pace.take(estimate)
            bill.requests += 1
            completion = await self._send(request)
            usage = [_count(getattr(completion, "usage", None), field) for field in ("prompt_tokens", "completion_tokens")]
            used = sum(usage) or estimate
            bill.prompt_tokens, bill.completion_tokens = bill.prompt_tokens + usage[0], bill.completion_tokens + usage[1]
            return self._reply(request, completion, bill)
        finally:
            self.budget.settle(estimate, used)
            self._tokens_pace.give_back(estimate - used)
            async with self._settled:
                self._settled.notify_all()

    async def _send(self, request: Request) -> Any:
        try:
            return await self._client.chat.completions.create(
                model=self._model,
                messages=request.messages,  # type: ignore[arg-type]
                max_tokens=request.max_tokens,
                temperature=self._temperature,
                seed=self._seed + request.attempt,
            )
        except openai.APIStatusError as error:
            raise self._status_problem(error) from error
        except openai.APITimeoutError as error:
            raise _NothingUsable(f"no answer within {self._limits.timeout_seconds:g} s") from error
        except openai.APIConnectionError as error:
            raise _NothingUsable(f"connection failed: {self._redacted(error.__cause__ or error)}") from error
        except (openai.OpenAIError, ValueError) as error:  # a body that is no JSON is a ValueError
            raise _NothingUsable(f"unreadable reply: {self._redacted(error)}") from error

    def _status_problem(self, error: openai.APIStatusError) -> Exception:
        status, message = error.status_code, self._redacted(error.message)
        if status in (401, 403):
            return PermissionDenied("ExpertUnauthorized", f"{self._endpoint}: {message}", "check the key in the secret")
        if status == 404:
            return ConfigError(
                "ModelNotFound", f"{self._endpoint} has no model {self._model!r}: {message}", "check model and endpoint"
            )
        if status == 429 and error.code == "insufficient_quota":
            return ConfigError("QuotaExhausted", f"{self._endpoint} refuses: {message}", "the account's own quota is used up")
        if status in (408, 409, 429) or status >= 500:
            return _NothingUsable(message, retry_after_seconds(error.response.headers))
        return _Rejected(message, refusal=error.code in MODERATED)

    def _reply(self, request: Request, completion: Any, bill: _Bill) -> Reply:
        try:
            choice = completion.choices[0]
            text = (choice.message.content or "").strip()
            finish: FinishReason = _FINISH.get(choice.finish_reason, "Stop")
            if choice.message.refusal:
                finish = "Refusal"
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise _NothingUsable("unreadable reply: no choices[0].message") from error
        if not text and finish == "Stop":
            raise _NothingUsable("empty reply")
        model = _text(completion.model) or self._model
        return Reply(request.id, text, finish, bill.prompt_tokens, bill.completion_tokens, model, requests=bill.requests)

    def _failed(self, request: Request, problem: str, bill: _Bill, reason: FinishReason = "Error") -> Reply:
        return Reply(
            request.id, "", reason, bill.prompt_tokens, bill.completion_tokens, self._model, problem, requests=bill.requests
        )

    def _redacted(self, problem: object) -> str:
        text = str(problem).replace(self._api_key, "***") if self._api_key else str(problem)
        return " ".join(text.split())[:300]


class _Batch:
    """What the requests of one batch know of each other."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._given_up = 0
        self.usable = False
        self.stopped_by: StepError | None = None
        self.tasks: list[asyncio.Task[Reply]] = []

    def stop(self, error: StepError) -> None:
        """Nothing new starts. Only a spent budget lets what is under way end, because it is paid for."""
        if self.stopped_by is not None:
            return
        self.stopped_by = error
        if not isinstance(error, BudgetExhausted):
            for task in self.tasks:
                task.cancel()

    def give_up(self, endpoint: str, problem: str) -> None:
        """A request is out of attempts. When a whole width of them is and none ever succeeded, the endpoint is as good as down."""
        self._given_up += 1
        if not self.usable and self._given_up >= self._width:
            self.stop(
                UnavailableError(
                    "ExpertUnavailable",
                    f"{endpoint} gave nothing usable to {self._given_up} requests; the last: {problem}",
                    "check that the endpoint is up and speaks the chat completions protocol",
                )
            )


def estimated_tokens(request: Request) -> int:
    """Upper-side estimate of prompt and answer, which may be as long as it is allowed to."""
    return sum(estimated_message_tokens(m["content"]) for m in request.messages) + request.max_tokens


def _client(endpoint: str, api_key: str, limits: Limits) -> openai.AsyncOpenAI:
    """Retries are ours, and nothing but what the job says goes out: the library would else send OPENAI_API_KEY and its kin."""
    client = openai.AsyncOpenAI(
        base_url=endpoint,
        api_key=api_key or "none",
        timeout=limits.timeout_seconds,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(trust_env=not _is_loopback(endpoint)),
    )
    client.organization = client.project = None
    return client


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _count(usage: object, field: str) -> int:
    value = getattr(usage, field, None)
    return value if isinstance(value, int) and value > 0 else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
