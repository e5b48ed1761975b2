"""What every engine takes and gives. Called by annotate, rewrite and assess, which know no engine by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from nativealign_workloads.errors import StepError

FinishReason = Literal["Stop", "Length", "Refusal", "Error"]


@dataclass(frozen=True, slots=True)
class Request:
    """One chat request. `text` is the chunk itself, for engines that need no prompt; `max_tokens` bounds the answer.

    `attempt` counts from 0. A later attempt must be able to give another answer: an endpoint gets another seed, a greedy engine a
    penalty on repetition. `rules` has one answer only.
    """

    id: str
    messages: list[dict[str, str]]
    text: str
    max_tokens: int
    attempt: int = 0
    schema: dict[str, Any] | None = None
    """JSON schema of the answer, for an endpoint; other engines answer in text."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the request of the same id.

    `Error` means that there is no answer, and `error` says why; `Length` that the answer was cut at `max_tokens`; `Refusal` that
    the engine itself declined. Token counts are 0 where the engine has no tokens.
    """

    id: str
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    model: str
    error: str | None = None
    requests: int = 0
    """Requests that an endpoint bills for it."""


class Engine(Protocol):
    """Text generation."""

    @property
    def name(self) -> str:
        """Kind and model, e.g. `openai:gpt-4-turbo`; goes into records."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply per request, in the order of the requests. A bad request gives an `Error` reply; only what stops all raises."""
        ...

    @property
    def wave(self) -> int:
        """Requests that one call should have at least, so that batches are full and no slot is empty."""
        ...

    def interrupt(self, error: StepError) -> None:
        """Called from another thread: nothing more begins, calls under way raise `error`."""
        ...

    def close(self) -> None:
        """Frees connections and memory."""
        ...
