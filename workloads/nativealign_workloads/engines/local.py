"""What the engines that generate on this machine have in common. Called by transformers_engine, vllm_engine and recorded."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from nativealign_workloads.engines.protocol import Reply, Request
from nativealign_workloads.errors import StepError

REPETITION_PENALTY = 0.2
"""Added to the penalty of 1 (Keskar et al. 2019) for each further attempt, since a greedy engine would only repeat itself."""

Answers = list[tuple[Request, Reply]]


class LocalEngine(Protocol):
    """What `Recorded` makes an engine of: its answers can be had while others are still being generated."""

    def answers(self, batches: Sequence[Sequence[Request]]) -> Iterator[Answers]:
        """What came of them, batch for batch or, where the engine makes its own batches, in any order."""
        ...

    def interrupt(self, error: StepError) -> None:
        """As an engine's."""
        ...

    def close(self) -> None:
        """As an engine's."""
        ...


def penalty(attempt: int) -> float:
    """The penalty on repetition of an attempt, counted from 0."""
    return 1.0 + REPETITION_PENALTY * attempt


def end_ids(*given: int | list[int] | None) -> frozenset[int]:
    """Every token that ends an answer, by a model's files and by its tokenizer."""
    return frozenset(i for entry in given if entry is not None for i in (entry if isinstance(entry, list) else [entry]))


def reply_to(request: Request, prompt_tokens: int, generated: list[int], ends: frozenset[int], tokenizer: Any, model: str) -> Reply:
    """The reply that was generated, up to the first of `ends`."""
    end = next((n for n, token in enumerate(generated) if token in ends), None)
    answer = generated if end is None else generated[:end]
    text = tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    used = len(answer) + (end is not None)
    return Reply(request.id, text.strip(), "Length" if end is None else "Stop", prompt_tokens, used, model)


def too_long(request: Request, prompt_tokens: int, context: int, model: str) -> Reply:
    """The reply to a prompt that leaves no room for an answer."""
    problem = f"the prompt has {prompt_tokens} tokens, the model's context {context}"
    return Reply(request.id, "", "Error", prompt_tokens, 0, model, problem)
