"""An endpoint of the OpenAI protocol: who it is, what it is asked, and what its answers and errors mean.

Called by the engines for single requests (`openai_http`) and for batches of them (`openai_batch`).
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import openai

from nativealign_workloads.engines.billing import estimated_message_tokens
from nativealign_workloads.engines.budget import Tokens
from nativealign_workloads.engines.pacing import retry_after_seconds
from nativealign_workloads.engines.protocol import FinishReason, Reply, Request
from nativealign_workloads.errors import ConfigError, PermissionDenied

Json = dict[str, Any]

MODERATED = {"content_filter", "content_policy_violation"}
"""Error codes of endpoints whose moderation refuses a prompt."""
_FINISH: dict[str, FinishReason] = {"length": "Length", "content_filter": "Refusal"}
RETRY_TEMPERATURE = 0.3
"""At which another seed gives another answer."""
REQUEST_ID = "X-Client-Request-Id"
"""Header for the intent's id; OpenAI finds a request in its records by it, other servers ignore it."""


class NothingUsable(Exception):
    """An attempt failed in a way that another attempt may mend. `lost`: it may have been billed, and nobody says how much."""

    def __init__(self, problem: str, retry_after: float | None = None, *, lost: bool = False) -> None:
        super().__init__(problem)
        self.retry_after, self.lost = retry_after, lost


class Rejected(Exception):
    """The endpoint refuses this one request for good, e.g. a prompt that is too long; `refusal` where its moderation does."""

    def __init__(self, problem: str, *, refusal: bool = False) -> None:
        super().__init__(problem)
        self.refusal = refusal


@dataclass
class Bill:
    """What one request has cost over all its attempts: answers that were unusable are billed too."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reserved: Tokens | None = None
    """What the attempt under way may take of the budget."""

    def add(self, completion: Json, highest: Tokens) -> Tokens:
        """Books an answer; returns what it took, `highest` where the endpoint does not say."""
        found = Tokens(*(_count(completion.get("usage"), name) for name in ("prompt_tokens", "completion_tokens")))
        self.prompt_tokens, self.completion_tokens = self.prompt_tokens + found.prompt, self.completion_tokens + found.answer
        return found if found.total else highest


@dataclass(frozen=True)
class Endpoint:
    """A model behind a URL. No message holds the key. Proxies of the environment are honoured, but never for a loopback address."""

    url: str
    model: str
    api_key: str | None
    temperature: float = 0.0
    seed: int = 0
    timeout_seconds: float = 120.0

    def body(self, request: Request) -> dict[str, Any]:
        """The request as the protocol wants it; a further attempt has another seed, and a temperature at which that matters."""
        body = {
            "model": self.model,
            **self._prompt(request),
            "max_tokens": request.max_tokens,
            "temperature": max(self.temperature, RETRY_TEMPERATURE) if request.attempt else self.temperature,
            "seed": self.seed + request.attempt,
        }
        if request.schema:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": request.schema},
            }
        return body

    @property
    def completions(self) -> str:
        """Where requests go."""
        return f"{self.url.rstrip('/')}/chat/completions"

    @property
    def trust_env(self) -> bool:
        """Whether a proxy that the environment names stands between."""
        return not _is_loopback(self.url)

    def client(self) -> openai.OpenAI:
        client = openai.OpenAI(http_client=openai.DefaultHttpxClient(trust_env=self.trust_env), **self._client_options)
        client.organization = client.project = None
        return client

    def reply(self, request: str, completion: Json, bill: Bill) -> Reply:
        """The reply to the request of that id. Raises NothingUsable where the answer has no text."""
        try:
            choice = completion["choices"][0]
            message = self._message(choice)
            text = (message.get("content") or "").strip()
            finish: FinishReason = _FINISH.get(choice.get("finish_reason"), "Stop")
            if message.get("refusal"):
                finish = "Refusal"
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise NothingUsable("unreadable reply: no answer in choices[0]") from error
        if not text and finish == "Stop":
            raise NothingUsable("empty reply")
        model = _text(completion.get("model")) or self.model
        return Reply(request, text, finish, bill.prompt_tokens, bill.completion_tokens, model, requests=bill.requests)

    def no_reply(self, request: str, problem: str, bill: Bill, reason: FinishReason = "Error") -> Reply:
        return Reply(request, "", reason, bill.prompt_tokens, bill.completion_tokens, self.model, problem, requests=bill.requests)

    def problem(self, error: Exception) -> Exception:
        """What an error of the library's client means: NothingUsable, Rejected, PermissionDenied or ConfigError."""
        if isinstance(error, openai.APIStatusError):
            return self.status_problem(error.status_code, error.message, error.code, error.response.headers)
        if isinstance(error, openai.APITimeoutError):
            return NothingUsable(f"no answer within {self.timeout_seconds:g} s", lost=True)
        if isinstance(error, openai.APIConnectionError):
            never_sent = type(error.__cause__).__name__.startswith("Connect")  # the library's transport has changed its name before
            return NothingUsable(f"connection failed: {self.redacted(error.__cause__ or error)}", lost=not never_sent)
        return NothingUsable(f"unreadable reply: {self.redacted(error)}", lost=True)

    def refusal(self, status: int, error: object, headers: Mapping[str, str]) -> Exception:
        """What an answer of another status than 200 means; `error` as its body has it."""
        told = error if isinstance(error, dict) else {}
        return self.status_problem(status, f"Error code: {status} - {told.get('message') or error}", told.get("code"), headers)

    def status_problem(self, status: int, message: str, code: str | None, headers: Mapping[str, str]) -> Exception:
        """What a status other than 200 means."""
        message = self.redacted(message)
        if status in (401, 403):
            return PermissionDenied("ExpertUnauthorized", f"{self.url}: {message}", "check the key in the secret")
        if status == 404:
            return ConfigError("ModelNotFound", f"{self.url} has no model {self.model!r}: {message}", "check model and endpoint")
        if status == 429 and code == "insufficient_quota":
            return ConfigError("QuotaExhausted", f"{self.url} refuses: {message}", "the account's own quota is used up")
        if status in (400, 422) and "response_format" in message:
            problem = f"{self.url} does not hold {self.model!r} to a schema: {message}"
            return ConfigError("NoStructuredOutputs", problem, "leave out structuredOutputs")
        if status in (408, 409, 429) or status >= 500:
            return NothingUsable(message, retry_after_seconds(headers))
        return Rejected(message, refusal=code in MODERATED)

    def redacted(self, problem: object) -> str:
        text = str(problem).replace(self.api_key, "***") if self.api_key else str(problem)
        return " ".join(text.split())[:300]

    def _prompt(self, request: Request) -> Json:
        return {"messages": request.messages}

    def _message(self, choice: Json) -> Json:
        message: Json = choice["message"]
        return message

    @property
    def _client_options(self) -> dict[str, Any]:
        """Retries are ours."""
        return {"base_url": self.url, "api_key": self.api_key or "none", "timeout": self.timeout_seconds, "max_retries": 0}


@dataclass(frozen=True)
class TokensEndpoint(Endpoint):
    """A server's protocol of completions, which takes a prompt as tokens: those that a worker was trained on, whatever template the
    server has for chats."""

    tokenize: Callable[[list[dict[str, str]]], list[int]] = field(kw_only=True)

    @property
    def completions(self) -> str:
        return f"{self.url.rstrip('/')}/completions"

    def _prompt(self, request: Request) -> Json:
        return {"prompt": self.tokenize(request.messages)}

    def _message(self, choice: Json) -> Json:
        return {"content": choice["text"]}


def estimated_tokens(request: Request) -> Tokens:
    """Upper-side estimate of prompt and answer, which may be as long as it is allowed to."""
    return Tokens(sum(estimated_message_tokens(m["content"]) for m in request.messages), request.max_tokens)


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _count(usage: object, field: str) -> int:
    value = usage.get(field) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value > 0 else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
