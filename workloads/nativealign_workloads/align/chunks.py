"""The unit of rewriting: how a document becomes requests and comes back. Used by annotate, train-worker and rewrite alike.

Because all three come through here, the worker is trained on the very prompts that it will meet.
"""

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from nativealign_api.align import Chunking, Expert
from nativealign_api.common import OpenAIEngine as OpenAISpec
from nativealign_api.vocabulary import DEFAULT_SECRETS
from nativealign_workloads.commit import Json, ShardCommit, read_json, record_key
from nativealign_workloads.conduct import Conduct, load_conduct
from nativealign_workloads.conduct.prompt import render_messages
from nativealign_workloads.context import Context
from nativealign_workloads.engines import Engine, Request
from nativealign_workloads.engines.billing import usage
from nativealign_workloads.engines.counted import is_counted, late_usage
from nativealign_workloads.engines.journal import Journal
from nativealign_workloads.errors import ConfigError
from nativealign_workloads.store import NotFound
from nativealign_workloads.text.chunk import Chunk, chunk, context_of

CountTokens = Callable[[str], int]
ENDPOINTS = ("expert", "judge")
"""Engines whose journals say what was paid."""


@dataclass(frozen=True)
class Piece:
    """A chunk of a document with all that a prompt needs."""

    document: str
    """Id of the document."""
    chunk: Chunk
    context: str
    """The original text before it, for reading only."""
    tokens: int

    @property
    def id(self) -> str:
        return f"{self.document}:{self.chunk.index}"


def cut(document: str, text: str, settings: Chunking, count: CountTokens) -> list[Piece]:
    """The pieces of a document, in order."""
    chunks = chunk(text, settings.max_tokens, count)
    contexts = [context_of(chunks, c.index, settings.context_tokens, count) if settings.context_tokens else "" for c in chunks]
    return [Piece(document, c, context, count(c.text)) for c, context in zip(chunks, contexts, strict=True)]


def request(conduct: Conduct, piece: Piece, reader: Literal["expert", "worker"], ratio: float, attempt: int = 0) -> Request:
    """What an engine is asked: the one prompt, and an answer of at most `ratio` times the chunk's tokens, plus 64."""
    messages = render_messages(conduct, piece.chunk.text, piece.context, reader)
    return Request(piece.id, messages, piece.chunk.text, int(piece.tokens * ratio) + 64, attempt)


def counter(tokenizer: Path | None) -> CountTokens:
    """Counts tokens with a tokenizer.json; without one, words. Needs no torch."""
    if tokenizer is None:
        return lambda text: len(text.split())
    from tokenizers import Tokenizer

    if not tokenizer.is_file():
        raise ConfigError("TokenizerMissing", f"{tokenizer.name} is missing from the model's folder", "save it as a fast tokenizer")
    loaded = Tokenizer.from_file(str(tokenizer))

    @lru_cache(maxsize=1024)  # a chunk is counted when it is cut, when it is asked for, and where it is the context of the next
    def count(text: str) -> int:
        return len(loaded.encode_batch_fast([text], add_special_tokens=False)[0])

    return count


def pinned_conduct(context: Context) -> tuple[Conduct, str]:
    """The code of conduct as it was pinned, and its hash."""
    prefix = context.job.inputs["conduct"]
    return load_conduct(context.store.read(f"{prefix}/conduct.yaml"), "code of conduct"), prefix.rpartition("/")[2]


def open_expert(context: Context, expert: Expert, conduct: Conduct, journal: Journal, spent: Json | None = None) -> Engine:
    """The expert. `spent`: what earlier steps have used up of its budget."""
    if expert.openai:
        return open_endpoint(context, expert.openai, "expert", journal, spent)
    from nativealign_workloads.engines.rules import RulesEngine

    return RulesEngine(conduct)


def open_endpoint(context: Context, spec: OpenAISpec, name: str, journal: Journal, spent: Json | None = None) -> Engine:
    """An OpenAI-compatible endpoint. Pods that run at once share the rates, all shards the budget, of which `spent` is gone."""
    from nativealign_workloads.engines.budget import Budget
    from nativealign_workloads.engines.grants import Grants
    from nativealign_workloads.engines.openai_batch import OpenAIBatchEngine
    from nativealign_workloads.engines.openai_endpoint import Endpoint
    from nativealign_workloads.engines.openai_http import Limits, OpenAIEngine

    pods = context.job.parallelism
    before = _requests_and_tokens(usage([spent or {}]))
    requests, tokens = (
        None if limit is None else max(0, limit - gone)
        for limit, gone in zip((spec.budget.requests, _token_limit(spec)), before, strict=True)
    )

    def open_budget() -> Budget:
        grants = Grants(context.store, budget_prefix(context, name), context.index, context.job.indexes, (requests, tokens))
        spent_requests, spent_tokens = _requests_and_tokens(journal.usage())
        return Budget(*grants.limits, spent_requests=spent_requests, spent_tokens=spent_tokens, more=grants.more)

    key = _api_key(context, spec, name)
    endpoint = Endpoint(spec.endpoint, spec.model, key, spec.temperature, spec.seed, float(spec.timeout_seconds))
    if spec.batch:
        return OpenAIBatchEngine(endpoint, journal, open_budget)
    limits = Limits(
        concurrency=max(1, spec.limits.concurrency // pods),
        requests_per_minute=_rate(spec.limits.requests_per_minute, pods),
        tokens_per_minute=_rate(spec.limits.tokens_per_minute, pods),
    )
    return OpenAIEngine(endpoint, journal, limits, open_budget())


def open_journal(context: Context, engine: str) -> Journal:
    """The record of what this shard has asked `engine` (expert, worker or judge) so far."""

    def alive() -> None:
        context.progress.alive(**{f"{engine}Answers": journal.answers})

    journal = Journal(context.store, f"{answers_prefix(context)}/{engine}", context.writer, alive)
    return journal


def budget_prefix(context: Context, engine: str) -> str:
    """Where the shards of this phase share the budget of an engine."""
    return f"{context.phase_prefix}/budget/{engine}"


def answers_prefix(context: Context) -> str:
    return f"{context.phase_prefix}/answers/{context.index:05d}"


def unless_overtaken(shard: ShardCommit, work: Callable[[], Json]) -> Json:
    """What `work`, which commits the shard, returns; `skipped` where another writer has committed it, before or meanwhile.

    Who commits first removes the journal, from which the slower one may still be reading.
    """
    try:
        if not shard.committed():
            return work()
    except NotFound:
        if not shard.committed():
            raise
    clear_answers(shard.context)
    return {"skipped": True}


def clear_answers(context: Context) -> None:
    """Removes what led to a shard's record, once that stands, but for what the record has not counted."""
    facts = read_json(context.store, record_key(context.prefix, context.job.phase, context.index))["facts"]
    for key in [info.key for info in context.store.list(f"{answers_prefix(context)}/")]:
        if not _is_late(facts, key):
            context.store.delete(key)


def add_late_usage(context: Context, phase: str, records: list[Json]) -> None:
    """Adds to the usage of each shard's record what was asked for the shard after the record stood."""
    late, folder = defaultdict[int, list[Json]](list), f"{context.prefix}/{phase}/answers/"
    for info in context.store.list(folder):
        shard = int(info.key.removeprefix(folder).partition("/")[0])
        if _is_late(records[shard]["facts"], info.key):
            late[shard].append(read_json(context.store, info.key))
    for shard, entries in late.items():
        facts = records[shard]["facts"]
        facts["usage"] = usage([facts["usage"], late_usage(facts, entries)])


def _is_late(facts: Json, key: str) -> bool:
    """Whether an object is of the journal of an endpoint, and in no record."""
    engine, name = key.split("/")[-2:]
    return engine in ENDPOINTS and not is_counted(facts, name)


def _rate(limit: int | None, share: int) -> int | None:
    return None if limit is None else max(1, limit // share)


def _requests_and_tokens(used: Json) -> tuple[int, int]:
    """Of a usage; what was not settled counts in full."""
    return used["requests"] + used["unsettledRequests"], used["tokens"] + used["unsettledTokens"]


def _token_limit(spec: OpenAISpec) -> int | None:
    """The smaller of the token budget and of what the money buys at the higher price."""
    budget = spec.budget
    limits = [budget.tokens] if budget.tokens else []
    if budget.usd is not None:
        price = max(budget.prompt_usd_per_million_tokens or 0, budget.completion_usd_per_million_tokens or 0)
        limits += [int(budget.usd * 1_000_000 / price)] if price else []
    return min(limits) if limits else None


def _api_key(context: Context, spec: OpenAISpec, name: str) -> str | None:

    if spec.api_key_secret:
        path = (context.secrets or Path(DEFAULT_SECRETS)) / name / spec.api_key_secret.key
        if path.is_file():
            return path.read_text().strip()
    return os.environ.get("OPENAI_API_KEY")
