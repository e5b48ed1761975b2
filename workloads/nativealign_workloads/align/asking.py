"""Who is asked: opens the expert, the worker and the judge of a spec, with their journals, budgets and keys.

Called by annotate, rewrite, assess and evaluate. A shard keeps what it has asked in a journal, until its record stands.
"""

import os
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nativealign_api.align import Expert, Rewrite
from nativealign_api.common import Budget as BudgetSpec
from nativealign_api.common import OpenAIEngine as OpenAISpec
from nativealign_api.common import RateLimits, SecretKeyReference, ServedModel
from nativealign_api.common import TransformersEngine as TransformersSpec
from nativealign_api.common import VllmEngine as VllmSpec
from nativealign_api.vocabulary import DEFAULT_SECRETS
from nativealign_workloads.commit import Json, ShardCommit, read_json, record_key
from nativealign_workloads.conduct import Conduct
from nativealign_workloads.conduct.prompt import prompt_ids
from nativealign_workloads.context import Context
from nativealign_workloads.engines import Engine
from nativealign_workloads.engines.billing import usage
from nativealign_workloads.engines.budget import Budget, Limits, Prices, Spent, Tokens, money, price
from nativealign_workloads.engines.counted import is_counted, late_usage
from nativealign_workloads.engines.journal import Journal
from nativealign_workloads.engines.local import LocalEngine
from nativealign_workloads.engines.recorded import Recorded
from nativealign_workloads.sources import model_folder
from nativealign_workloads.store import NotFound, ObjectStore

if TYPE_CHECKING:
    from nativealign_workloads.engines.openai_endpoint import Endpoint

ENDPOINTS = ("expert", "judge")
"""Engines whose journals say what was paid."""


def open_expert(context: Context, expert: Expert, conduct: Conduct, journal: Journal, spent: Json | None = None) -> Engine:
    """The expert. `spent`: what earlier steps have used up of its budget."""
    if expert.openai:
        return open_endpoint(context, expert.openai, "expert", journal, spent)
    if local := expert.transformers or expert.vllm:
        name = "expert.vllm" if expert.vllm else "expert.transformers"
        return open_local(context, model_folder(context, name), local, journal)
    from nativealign_workloads.engines.rules import RulesEngine

    return RulesEngine(conduct)


def open_worker(context: Context, settings: Rewrite) -> tuple[Engine, Path]:
    """The trained worker, and the file of its tokenizer."""
    journal = open_journal(context, "worker")
    if settings.openai:
        folder = model_folder(context, "train-worker", tokenizer_only=True)
        return open_served(context, folder, settings.openai, journal), folder / "tokenizer.json"
    folder, spec = model_folder(context, "train-worker"), settings.vllm or settings.transformers or TransformersSpec()
    return open_local(context, folder, spec, journal), folder / "tokenizer.json"


def open_local(context: Context, folder: Path, spec: TransformersSpec | VllmSpec, journal: Journal) -> Engine:
    """A model in this process, which is loaded when something is to be asked."""
    load: Callable[[], LocalEngine]
    if isinstance(spec, VllmSpec):
        from nativealign_workloads.engines.vllm_engine import VllmEngine

        gpus = context.job.resources.gpus_per_node or 1
        load = partial(VllmEngine, folder, spec.sequences, spec.precision, gpus)
        return Recorded(f"vllm:{folder.name}", None, load, journal)
    from nativealign_workloads.engines.transformers_engine import TransformersEngine

    load = partial(TransformersEngine, folder, spec.batch_size, precision=spec.precision)
    return Recorded(f"transformers:{folder.name}", spec.batch_size, load, journal)


def open_served(context: Context, tokenizer: Path, spec: ServedModel, journal: Journal) -> Engine:
    """The worker on a server of one's own, which bills nothing. Pods that run at once share the rates."""
    from transformers import AutoTokenizer

    from nativealign_workloads.engines.openai_endpoint import TokensEndpoint

    key = _api_key(context, spec.api_key_secret, "worker")
    tokenize = partial(prompt_ids, tokenizer=AutoTokenizer.from_pretrained(tokenizer, local_files_only=True))
    endpoint = TokensEndpoint(spec.endpoint, spec.model, key, timeout_seconds=float(spec.timeout_seconds), tokenize=tokenize)
    return _asked_singly(context, endpoint, spec.limits, journal)


def open_endpoint(context: Context, spec: OpenAISpec, name: str, journal: Journal, spent: Json | None = None) -> Engine:
    """An OpenAI-compatible endpoint. Pods that run at once share the rates, all shards the budget, of which `spent` is gone."""
    from nativealign_workloads.engines.grants import Grants
    from nativealign_workloads.engines.openai_batch import OpenAIBatchEngine
    from nativealign_workloads.engines.openai_endpoint import Endpoint

    prices = Prices(price(spec.budget.prompt_usd_per_million_tokens), price(spec.budget.completion_usd_per_million_tokens))
    limits = _what_is_left(spec.budget, _spent(usage([spent or {}]), prices))

    def open_budget() -> Budget:
        grants = Grants(context.store, budget_prefix(context, name), context.index, context.job.indexes, limits)
        return Budget(grants.limits, prices, spent=_spent(journal.usage(), prices), more=grants.more)

    key = _api_key(context, spec.api_key_secret, name)
    endpoint = Endpoint(spec.endpoint, spec.model, key, spec.temperature, spec.seed, float(spec.timeout_seconds))
    if spec.batch:
        return OpenAIBatchEngine(endpoint, journal, open_budget)
    return _asked_singly(context, endpoint, spec.limits, journal, open_budget())


def _asked_singly(
    context: Context, endpoint: "Endpoint", limits: RateLimits, journal: Journal, budget: Budget | None = None
) -> Engine:
    from nativealign_workloads.engines.openai_http import OpenAIEngine, Rates

    pods = context.job.parallelism
    rates = Rates(
        concurrency=max(1, limits.concurrency // pods),
        requests_per_minute=_rate(limits.requests_per_minute, pods),
        tokens_per_minute=_rate(limits.tokens_per_minute, pods),
    )
    return OpenAIEngine(endpoint, journal, rates, budget)


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
    for key in sorted(_listed_again(context.store, folder)):
        shard = int(key.removeprefix(folder).partition("/")[0])
        if _is_late(records[shard]["facts"], key):
            late[shard].append(read_json(context.store, key))
    for shard, entries in late.items():
        facts = records[shard]["facts"]
        facts["usage"] = usage([facts["usage"], late_usage(facts, entries)])


def _listed_again(store: ObjectStore, prefix: str) -> set[str]:
    """Keys, listed until a listing brings no new one: what a stale listing leaves out would be missing in the bill."""
    found = {info.key for info in store.list(prefix)}
    while new := {info.key for info in store.list(prefix)} - found:
        found |= new
    return found


def _is_late(facts: Json, key: str) -> bool:
    """Whether an object is of the journal of an endpoint, and in no record."""
    engine, name = key.split("/")[-2:]
    return engine in ENDPOINTS and not is_counted(facts, name)


def _rate(limit: int | None, share: int) -> int | None:
    return None if limit is None else max(1, limit // share)


def _spent(used: Json, prices: Prices) -> Spent:
    """By a usage; what was not settled counts in full."""
    tokens = Tokens(used["tokens"] - used["completionTokens"], used["completionTokens"])
    return Spent(
        used["requests"] + used["unsettledRequests"],
        used["tokens"] + used["unsettledTokens"],
        prices.cost(tokens) + prices.higher * used["unsettledTokens"],
    )


def _what_is_left(budget: BudgetSpec, spent: Spent) -> Limits:
    given = (budget.requests, budget.tokens, None if budget.usd is None else money(budget.usd))
    return Limits(*(None if limit is None else max(0, limit - gone) for limit, gone in zip(given, spent, strict=True)))


def _api_key(context: Context, secret: SecretKeyReference | None, name: str) -> str | None:
    if secret:
        path = (context.secrets or Path(DEFAULT_SECRETS)) / name / secret.key
        if path.is_file():
            return path.read_text().strip()
    return os.environ.get("OPENAI_API_KEY")
