"""tokenize: every source of the mix becomes token shards, once for each (source, tokenizer, sequence length).

    tokenizer  one pod: the base model's tokenizer, or one trained on the sources
    tokenize   each shard of each source, in the order of the mix
    commit     a manifest for each source under its own digest, and one for the step that names them

Two jobs that mix the same sources by other weights share the sources' shards.
"""

import json
import shutil
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from nativealign_api.common import BaseModelSource
from nativealign_api.plan import step_prefix
from nativealign_api.pretrain import MixEntry
from nativealign_api.resolved import ResolvedSource
from nativealign_api.vocabulary import API_VERSION, Outcome
from nativealign_workloads.align.clean import check_quarantine
from nativealign_workloads.commit import (
    Json,
    ShardCommit,
    check_counts,
    commit_step,
    create_first,
    fetch_folder,
    manifest,
    manifest_key,
    read_json,
    record_key,
    shard_records,
)
from nativealign_workloads.context import Context
from nativealign_workloads.documents import corpus_documents, view_documents
from nativealign_workloads.errors import ConfigError, NoInputError
from nativealign_workloads.ledger import Tally, total
from nativealign_workloads.model_files import TOKENIZER_FILES
from nativealign_workloads.records import BadRecord
from nativealign_workloads.sources import model_folder
from nativealign_workloads.training.packing import ShardWriter

TOKENIZER_DOCUMENTS = 20_000
"""Documents of each source that a tokenizer made on the spot learns from, at most."""


def tokenizer(context: Context) -> Json:
    """Phase `tokenizer`."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    base = context.job.require("base", BaseModelSource)
    if base.from_config:
        from nativealign_workloads.training.model import train_tokenizer

        folder = train_tokenizer(_all_texts(context), base.from_config.vocabulary_size, context.scratch / "tokenizer")
    else:
        folder = _only_tokenizer(model_folder(context, "base", tokenizer_only=True), context.scratch / "tokenizer")
    shard.folder("tokenizer", folder)
    shard.commit()
    return {}


def _only_tokenizer(model: Path, target: Path) -> Path:
    if not (model / "tokenizer.json").is_file():
        raise ConfigError("TokenizerMissing", "the base model has no tokenizer.json", "save its tokenizer as a fast one")
    target.mkdir()
    for name in TOKENIZER_FILES:
        if (model / name).is_file():
            shutil.copy(model / name, target / name)
    return target


def _all_texts(context: Context) -> Iterator[str]:
    for source in context.job.sources:
        texts = (_texts(context, source, shard, Tally()) for shard in range(source.shards))
        yield from islice(chain.from_iterable(texts), TOKENIZER_DOCUMENTS)


def _texts(context: Context, source: ResolvedSource, shard: int, tally: Tally) -> Iterator[str]:
    """The texts of one shard of a source; what cannot be read is tallied as quarantined."""
    if source.view:
        for identifier, text in view_documents(context, source.input, source.view, shard, source.shards):
            tally.add(identifier, Outcome.OUT)
            yield text
        return
    corpora = [entry.corpus for entry in context.job.require("mix", list[MixEntry]) if entry.corpus]
    for row, found in corpus_documents(context, corpora, source.input, shard):
        if isinstance(found, BadRecord):
            tally.add(row["id"], Outcome.QUARANTINED, found.reason)
        else:
            tally.add(row["id"], Outcome.OUT)
            yield found.text


def place(sources: list[ResolvedSource], index: int) -> tuple[ResolvedSource, int]:
    """(source, shard of it) of an index of the phase."""
    for source in sources:
        if index < source.shards:
            return source, index
        index -= source.shards
    raise IndexError(index)


def run(context: Context) -> Json:
    """Phase `tokenize`: one shard of one source. Documents end in the end-of-sequence token."""
    source, number = place(context.job.sources, context.index)
    shard = ShardCommit(context, step_prefix("tokenize", source.digest), number)
    if shard.committed():
        return {"skipped": True}
    encode, end = load_tokenizer(context)
    tally = Tally()
    context.progress.begin(0, "documents")
    with ShardWriter(context.scratch / "tokens") as writer:
        for text in _texts(context, source, number, tally):
            writer.add([*encode(text), end])
            context.progress.advance(tokens=writer.tokens)
    for suffix in ("bin", "idx"):
        shard.file(f"tokens.{suffix}", context.scratch / f"tokens.{suffix}", writer.documents)
    shard.commit(tally, tokens=writer.tokens, documents=writer.documents)
    return {"counts": {"documents": writer.documents, "tokens": writer.tokens}}


def load_tokenizer(context: Context) -> Any:
    """(text -> ids, id of the end-of-sequence token) of this step's tokenizer; needs no torch."""
    from tokenizers import Tokenizer

    (record,) = shard_records(context, "tokenizer", 1)
    folder = fetch_folder(context, record, "tokenizer", context.scratch / "tokenizer")
    loaded = Tokenizer.from_file(str(folder / "tokenizer.json"))
    stated = json.loads((folder / "tokenizer_config.json").read_text()).get("eos_token")
    end = loaded.token_to_id(stated["content"] if isinstance(stated, dict) else stated or "")
    if end is None:
        raise ConfigError("NoEndToken", "the tokenizer names no end-of-sequence token", "set eos_token in tokenizer_config.json")
    return (lambda text: loaded.encode_batch_fast([text], add_special_tokens=False)[0].ids), end


def commit(context: Context) -> Json:
    """Phase `commit`."""
    summaries = [_commit_source(context, source) for source in context.job.sources]
    (record,) = shard_records(context, "tokenizer", 1)
    headline = {"counts": {"tokens": sum(summary["tokens"] for summary in summaries)}}
    return commit_step(context, [record], headline, sources=summaries)


def _commit_source(context: Context, source: ResolvedSource) -> Json:
    prefix = step_prefix("tokenize", source.digest)
    records = [read_json(context.store, record_key(prefix, "tokenize", shard)) for shard in range(source.shards)]
    tally = total(Tally.load(record["tally"]) for record in records)
    expected = Tally.load(manifest(context.store, source.input)["tally"]) if source.view else None
    check_counts(prefix, tally, expected)
    check_quarantine(context, tally)
    tokens = sum(record["facts"]["tokens"] for record in records)
    if not tokens:
        raise NoInputError("InputEmpty", f"source {source.name} has no tokens", "check the source")
    value = {
        "apiVersion": API_VERSION,
        "step": "tokenize",
        "version": context.job.step_version,
        "digest": source.digest,
        "tally": tally.dump(),
        "facts": {"tokens": tokens},
        "shards": [{"parts": record["parts"], "tally": record["tally"], "facts": record["facts"]} for record in records],
    }
    create_first(context.store, manifest_key(prefix), value)
    return {"name": source.name, "digest": source.digest, "tokens": tokens, "documents": tally.of(Outcome.OUT).count}
