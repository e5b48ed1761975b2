"""An endpoint's Batch API: a file of requests goes up, a file of answers comes back within a day, at a lower price.

Called where the spec says `batch`. The requests of a call are one batch, as far as size and budget allow. Its intents are in the
journal before it leaves and its id as soon as the endpoint says so; who comes after a kill waits for the batch that is there
(it is found by its name, which stands in its metadata) and sends nothing twice.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any, Literal, TypeVar

import openai
from openai.types import Batch as RemoteBatch

from nativealign_workloads.engines.budget import Budget, Tokens
from nativealign_workloads.engines.journal import Batch, Intent, Journal, Key, Settlement, key_of
from nativealign_workloads.engines.openai_endpoint import Bill, Endpoint, NothingUsable, Rejected, estimated_tokens
from nativealign_workloads.engines.pacing import Backoff
from nativealign_workloads.engines.protocol import Reply, Request
from nativealign_workloads.errors import ConfigError, StepError, StoppedError, UnavailableError

MAX_REQUESTS, MAX_BYTES = 10_000, 190_000_000
"""Of one batch, whose answers are in memory together; OpenAI takes 50,000 and 200 MB."""
ATTEMPTS = 6
FIRST_POLL, LAST_POLL = 1.0, 60.0
"""Seconds between two questions whether a batch is done, doubling."""
LEAVING_SECONDS = 300.0
"""From the claim to send a batch to the last moment at which its creation may begin; it may last as long."""
GONE_SECONDS = 2 * LEAVING_SECONDS
"""After which a batch that somebody has claimed, and that the endpoint does not know, will never be there."""
KEPT_SECONDS = 30 * 86400
"""How long an endpoint keeps the answers to a batch; older ones are not looked for."""
PATH: Literal["/v1/chat/completions"] = "/v1/chat/completions"
NAME = "nativealign"
"""Key of the batch's name in its metadata."""

T = TypeVar("T")


class OpenAIBatchEngine:
    """Its calls come one after another, whatever threads they come from."""

    def __init__(self, endpoint: Endpoint, journal: Journal, open_budget: Callable[[], Budget] = Budget) -> None:
        """`open_budget` gives what is left by the journal as it is when called."""
        self._endpoint, self._journal, self._open_budget = endpoint, journal, open_budget
        self._client = endpoint.client()
        self._size = MAX_REQUESTS
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._interrupted: StepError | None = None

    @property
    def name(self) -> str:
        return f"openai:{self._endpoint.model}"

    @property
    def wave(self) -> int:
        return MAX_REQUESTS

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Replies in the order of the requests. Raises as the engine for single requests, and ConfigError `NoBatchApi`,
        `BatchRejected` (the endpoint does not take the file) and UnavailableError `BatchCancelled`."""
        with self._lock:
            if self._interrupted:
                raise self._interrupted
            for batch in list(self._journal.batches.values()):
                self._finish(batch)
            given_up = self._ask(requests)
        return [given_up.get(key_of(request)) or self._journal.reply(key_of(request)) for request in requests]

    def interrupt(self, error: StepError) -> None:
        self._interrupted = error
        self._stopped.set()

    def close(self) -> None:
        self._client.close()

    def _ask(self, requests: Sequence[Request]) -> dict[Key, Reply]:
        """Until each request has a reply or is given up; returns the latter's."""
        given_up: dict[Key, Reply] = {}
        tries = Counter[Key]()
        while left := [r for r in requests if key_of(r) not in self._journal and key_of(r) not in given_up]:
            batch = self._journal.intend_batch(self._affordable(left))
            self._send(batch, {key_of(request): request for request in left})
            tries.update(intent.key for intent in batch.intents)
            for key, problem in self._finish(batch).items():
                if isinstance(problem, Rejected):
                    given_up[key] = self._endpoint.no_reply(key[0], str(problem), Bill(), "Refusal" if problem.refusal else "Error")
                elif tries[key] >= ATTEMPTS:
                    given_up[key] = self._endpoint.no_reply(key[0], f"{problem} (after {ATTEMPTS} attempts)", Bill())
        return given_up

    def _affordable(self, requests: Sequence[Request]) -> list[tuple[Request, Tokens]]:
        """The first requests, as many as fit into one batch and into the budget. Raises BudgetExhausted where none does."""
        budget, size = self._open_budget(), 0
        chosen: list[tuple[Request, Tokens]] = []
        for request in requests[: self._size]:
            highest = estimated_tokens(request)
            size += len(self._line("", request))
            if chosen and (size > MAX_BYTES or not budget.fits(highest)):
                break
            budget.reserve(highest)
            chosen.append((request, highest))
        return chosen

    def _line(self, identifier: str, request: Request) -> bytes:
        line = {"custom_id": identifier, "method": "POST", "url": PATH, "body": self._endpoint.body(request)}
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"

    def _send(self, batch: Batch, requests: dict[Key, Request]) -> None:
        content = b"".join(self._line(intent.id, requests[intent.key]) for intent in batch.intents)
        file = self._call(lambda: self._client.files.create(file=(f"{batch.name}.jsonl", content), purpose="batch"))
        if not self._journal.claim(batch):
            raise StoppedError("Stopped", f"another pod asks what batch {batch.name} was to ask", "its answers are used")
        claimed, asked = time.monotonic(), False

        def create() -> str:
            nonlocal asked
            found, asked = self._find(batch) if asked else "", True
            if found:
                return found
            if time.monotonic() - claimed > LEAVING_SECONDS:
                raise self._unavailable(f"batch {batch.name} could not be created")
            client, named = self._client.with_options(timeout=LEAVING_SECONDS), {NAME: batch.name}
            return client.batches.create(input_file_id=file.id, endpoint=PATH, completion_window="24h", metadata=named).id

        self._journal.batch_left(batch, self._call(create))

    def _find(self, batch: Batch) -> str:
        """The endpoint's id of a batch by its name; "" where it has none such. The endpoint lists the newest first."""
        oldest = time.time() - KEPT_SECONDS
        recent = takewhile(lambda found: found.created_at > oldest, self._client.batches.list(limit=100))
        return next((found.id for found in recent if (found.metadata or {}).get(NAME) == batch.name), "")

    def _finish(self, batch: Batch) -> dict[Key, Exception]:
        """Waits for a batch and settles it; what there is no reply for, and why."""
        batch.id = batch.id or self._call(lambda: self._find(batch))
        if not batch.id and not self._journal.claim(batch):
            batch.id = self._wait_for_leaving(batch)
        if not batch.id:  # it never left, and never will
            self._journal.settle_batch(batch, map(Settlement, batch.intents))
            return {}
        ended = self._wait(batch.id)
        lines = {line["custom_id"]: line for file in _files(ended) for line in self._read(file)}
        problems: dict[Key, Exception] = {}
        settled = [self._settlement(intent, lines.get(intent.id), problems) for intent in batch.intents]
        self._journal.settle_batch(batch, settled)
        for file in (ended.input_file_id, *_files(ended)):  # the provider would keep the texts for ever
            with suppress(openai.OpenAIError):
                self._client.files.delete(file)
        self._check(ended)
        for problem in problems.values():
            if isinstance(problem, StepError):  # what no other attempt can mend
                raise problem
        return problems

    def _wait_for_leaving(self, batch: Batch) -> str:
        """The endpoint's id of a batch that somebody has claimed, who may have died; "" where it does not come."""
        began, found = time.monotonic(), ""
        while not found and time.monotonic() - began < GONE_SECONDS:
            self._pause(FIRST_POLL)
            self._journal.alive()
            found = self._call(lambda: self._find(batch))
        return found

    def _wait(self, identifier: str) -> RemoteBatch:
        pause = FIRST_POLL
        while True:
            found = self._call(lambda: self._client.batches.retrieve(identifier))
            self._journal.alive()  # a batch may take the endpoint a day
            if found.status in ("completed", "failed", "expired", "cancelled"):
                return found
            self._pause(pause)
            pause = min(LAST_POLL, 2 * pause)

    def _read(self, file: str) -> Iterator[dict[str, Any]]:
        content = self._call(lambda: self._client.files.content(file).content)
        return (json.loads(line) for line in content.split(b"\n") if line)

    def _settlement(self, intent: Intent, line: dict[str, Any] | None, problems: dict[Key, Exception]) -> Settlement:
        if line is None:
            problems[intent.key] = NothingUsable("the batch ended without an answer to it")
            return Settlement(intent)
        response = line.get("response") or {}
        if response.get("status_code") != 200:
            found = (response.get("body") or {}).get("error") or line.get("error") or {}
            status, message = response.get("status_code") or 500, str(found.get("message", "no answer"))
            problems[intent.key] = self._endpoint.status_problem(status, message, found.get("code"), {})
            return Settlement(intent, 1)
        completion, bill = response["body"], Bill(requests=1)
        used = bill.add(completion, intent.highest)
        try:
            reply = self._endpoint.reply(intent.key[0], completion, bill)
        except NothingUsable as error:
            problems[intent.key] = error
            return Settlement(intent, 1, used.total, used.answer)
        return Settlement(intent, 1, used.total, used.answer, reply)

    def _check(self, ended: RemoteBatch) -> None:
        """Raises what a batch that did not run to its end means."""
        if ended.status == "cancelled":
            problem = f"{self._endpoint.url}: batch {ended.id} was cancelled"
            raise UnavailableError("BatchCancelled", problem, "start again to ask for the rest")
        if ended.status != "failed":
            return
        errors = (ended.errors.data if ended.errors else None) or []
        code, message = (errors[0].code, errors[0].message) if errors else (None, "no reason given")
        if code == "token_limit_exceeded" and self._size > 1:
            self._size = max(1, min(self._size, ended.request_counts.total if ended.request_counts else self._size) // 2)
            return
        raise ConfigError(
            "BatchRejected", f"{self._endpoint.url}: {message}", "check the model and the account's limits for batches"
        )

    def _call(self, ask: Callable[[], T]) -> T:
        """One question to the endpoint, again after failures that pass."""
        backoff, problem = Backoff(seed=self._endpoint.seed), ""
        for failed in range(1, ATTEMPTS + 1):
            try:
                return ask()
            except openai.NotFoundError as error:
                hint = "leave out `batch`, or name an endpoint that has one"
                raise ConfigError("NoBatchApi", f"{self._endpoint.url} has no Batch API: {error.message}", hint) from error
            except (openai.OpenAIError, ValueError) as error:
                found = self._endpoint.problem(error)
                if isinstance(found, StepError):
                    raise found from error
                if isinstance(found, Rejected):
                    raise self._rejected(found) from error
                problem = str(found)
                self._pause(backoff.wait(failed, getattr(found, "retry_after", None)))
        raise self._unavailable(f"{problem} (after {ATTEMPTS} attempts)")

    def _rejected(self, problem: object) -> ConfigError:
        hint = "check the model and the account's limits for batches"
        return ConfigError("BatchRejected", f"{self._endpoint.url}: {problem}", hint)

    def _unavailable(self, problem: str) -> UnavailableError:
        return UnavailableError("ExpertUnavailable", f"{self._endpoint.url}: {problem}", "check that the endpoint is up")

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(seconds) and self._interrupted:
            raise self._interrupted


def _files(batch: RemoteBatch) -> list[str]:
    return [file for file in (batch.output_file_id, batch.error_file_id) if file]
