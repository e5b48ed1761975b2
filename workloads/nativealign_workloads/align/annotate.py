"""annotate: let the expert rewrite a seed sample, in the unit that the worker will rewrite in.

score     each shard, for the perplexity strategies only: perplexity of its documents
sample    one pod: the sample; the worker's tokenizer where it is made on the spot
annotate  each shard: pairs of the sampled documents in it
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import xxhash

from nativealign_api.align import Chunking, Expert, Seed
from nativealign_api.common import BaseModelSource
from nativealign_api.vocabulary import Outcome
from nativealign_workloads.align.chunks import (
    Piece,
    add_late_usage,
    clear_answers,
    counter,
    cut,
    open_expert,
    open_journal,
    pinned_conduct,
    request,
    unless_overtaken,
)
from nativealign_workloads.align.sampling import Ranked, draw, draw_stratified
from nativealign_workloads.align.waves import Cut, answered, waves
from nativealign_workloads.commit import (
    Json,
    ShardCommit,
    commit_step,
    fetch_folder,
    manifest,
    record_rows,
    shard_records,
    step_rows,
)
from nativealign_workloads.conduct import Conduct
from nativealign_workloads.context import Context
from nativealign_workloads.engines import Reply
from nativealign_workloads.engines.billing import billed, usage
from nativealign_workloads.engines.counted import billed_by
from nativealign_workloads.engines.journal import Journal
from nativealign_workloads.guards import check, unchanged
from nativealign_workloads.ledger import Tally
from nativealign_workloads.sources import model_folder

TOKENIZER_DOCUMENTS = 20_000
"""Documents that a tokenizer made on the spot learns from, at most."""


def score(context: Context) -> Json:
    """Phase `score`: perplexity of each document of one shard."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    from nativealign_workloads.align.perplexity import perplexities

    documents = step_rows(context.store, context.job.inputs["dedup"], "documents", [context.index])
    for identifier, value in perplexities(
        model_folder(context, "seed.perplexityModel"), _texts(context, documents), context.device
    ):
        shard.part("perplexity").add({"id": identifier, "perplexity": value})
        context.progress.advance()
    shard.commit()
    return {}


def _texts(context: Context, documents: Iterator[Json]) -> Iterator[tuple[str, str]]:
    for row in documents:
        context.check_stop()
        yield row["id"], row["text"]


def sample(context: Context) -> Json:
    """Phase `sample`: which documents the expert gets."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    settings = context.job.require("seed", Seed)
    upstream = manifest(context.store, context.job.inputs["dedup"])
    context.progress.begin(Tally.load(upstream["tally"]).of(Outcome.OUT).count, "documents")
    choose = draw_stratified if settings.strategy == "Stratified" else draw
    drawn = choose(_ranked(context, settings, len(upstream["shards"])), settings.documents)
    for document in sorted(drawn, key=lambda document: document.id):
        shard.part(f"sample-{document.shard:05d}").add({"id": document.id})
    base = context.job.require("worker.base", BaseModelSource)
    if base.from_config:
        shard.folder("tokenizer", _train_tokenizer(context, base.from_config.vocabulary_size))
    shard.commit()
    return {}


def _ranked(context: Context, settings: Seed, shards: int) -> Iterator[Ranked]:
    by_perplexity = settings.strategy in ("HighPerplexity", "LowPerplexity")
    records = shard_records(context, "score", shards) if by_perplexity else []
    sign = -1.0 if settings.strategy == "HighPerplexity" else 1.0
    for shard in range(shards):
        if by_perplexity:
            for row in record_rows(context.store, records[shard], "perplexity"):
                yield Ranked(sign * row["perplexity"], row["id"], shard, "")
        else:
            for row in step_rows(context.store, context.job.inputs["dedup"], "documents", [shard]):
                context.check_stop()
                context.progress.advance()
                yield Ranked(float(xxhash.xxh3_64_intdigest(row["id"], settings.seed)), row["id"], shard, row["corpus"])


def _train_tokenizer(context: Context, vocabulary: int) -> Path:
    from nativealign_workloads.training.model import train_tokenizer

    documents = islice(step_rows(context.store, context.job.inputs["dedup"], "documents"), TOKENIZER_DOCUMENTS)
    return train_tokenizer((row["text"] for row in documents), vocabulary, context.scratch / "tokenizer")


def annotate(context: Context) -> Json:
    """Phase `annotate`: the pairs of one shard."""
    shard = ShardCommit(context)
    return unless_overtaken(shard, partial(_annotate, shard))


def _annotate(shard: ShardCommit) -> Json:
    context = shard.context
    (drawn,) = shard_records(context, "sample", 1)
    wanted = {row["id"] for row in record_rows(context.store, drawn, f"sample-{context.index:05d}")}
    rows = step_rows(context.store, context.job.inputs["dedup"], "documents", [context.index])
    context.progress.begin(len(wanted), "documents")
    journal, found = open_journal(context, "expert"), Counter[str]()
    for pair in _pairs(context, (row for row in rows if row["id"] in wanted), _tokenizer(context, drawn), journal):
        shard.part("pairs").add(pair)
        found.update(counted(pair))
    journal.refresh()
    facts = summarize(found) | billed_by(journal)
    shard.commit(**facts)
    clear_answers(context)
    return {"counts": {"pairs": facts["pairs"], "accepted": facts["accepted"]}, "usage": facts["usage"]}


def counted(pair: Json) -> list[str]:
    """What a pair counts as, for `summarize`."""
    return ["pairs"] + ["accepted"] * pair["accepted"] + ["unchanged"] * pair["unchanged"] + [f"guard/{g}" for g in pair["guards"]]


def summarize(found: Counter[str]) -> Json:
    """Counts over pairs: all, accepted for training, left unchanged by the expert, broken guards."""
    guards = {name.removeprefix("guard/"): count for name, count in sorted(found.items()) if name.startswith("guard/")}
    return {name: found[name] for name in ("pairs", "accepted", "unchanged")} | {"guards": guards}


def _pairs(context: Context, rows: Iterable[Json], tokenizer: Path, journal: Journal) -> Iterator[Json]:
    """The pairs of the documents, in order."""
    conduct, conduct_hash = pinned_conduct(context)
    chunking, count = context.job.require("chunking", Chunking), counter(tokenizer)
    documents = (Cut(row, cut(row["id"], row["text"], chunking, count)) for row in rows)
    with closing(open_expert(context, context.job.require("expert", Expert), conduct, journal)) as expert:
        lineage = {"expert": expert.name, "conduct": conduct_hash}

        def annotate(wave: list[Cut]) -> list[list[Json]]:
            pieces = [piece for document in wave for piece in document.pieces]
            replies = iter(expert.generate([request(conduct, piece, "expert", 2.0) for piece in pieces]))
            return [[_pair(conduct, piece, next(replies)) | lineage for piece in document.pieces] for document in wave]

        with closing(answered(context, waves(documents, expert.wave), annotate, expert.interrupt)) as found:
            for pairs in found:
                context.progress.advance()
                yield from pairs


def _pair(conduct: Conduct, piece: Piece, reply: Reply) -> Json:
    origin = piece.chunk.text
    failed = reply.finish_reason == "Error"
    verdicts = [] if failed else check(conduct, origin, reply.text, reply.finish_reason)
    return {
        "id": piece.document,
        "chunk": piece.chunk.index,
        "context": piece.context,
        "origin": origin,
        "rewritten": reply.text,
        "unchanged": unchanged(origin, reply.text),
        "guards": ["NoAnswer"] if failed else [verdict.guard for verdict in verdicts],
        "accepted": not verdicts and not failed,
        "error": reply.error,
        **billed(reply),
    }


def _tokenizer(context: Context, drawn: Json) -> Path:
    if "worker.base" in context.job.inputs:
        return model_folder(context, "worker.base", tokenizer_only=True) / "tokenizer.json"
    return fetch_folder(context, drawn, "tokenizer", context.scratch / "tokenizer") / "tokenizer.json"


def commit(context: Context) -> Json:
    """Phase `commit`. The manifest's first shard also names the tokenizer that sample made."""
    shards = len(manifest(context.store, context.job.inputs["dedup"])["shards"])
    records = shard_records(context, "annotate", shards)
    (drawn,) = shard_records(context, "sample", 1)
    tokenizer = {name: part for name, part in drawn["parts"].items() if name.startswith("tokenizer/")}
    records[0]["parts"] |= tokenizer
    totals = {name: sum(record["facts"][name] for record in records) for name in ("pairs", "accepted", "unchanged")}
    guards = sum((Counter(record["facts"]["guards"]) for record in records), Counter[str]())
    add_late_usage(context, "annotate", records)
    spent = usage([record["facts"]["usage"] for record in records])
    headline = {"counts": totals, "usage": spent}
    return commit_step(context, records, headline, **totals, guards=dict(sorted(guards.items())), usage=spent)
