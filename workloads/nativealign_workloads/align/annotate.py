"""annotate: let the expert rewrite a seed sample, in the unit that the worker will rewrite in.

draw      each shard: of its documents those that may be in the sample, by rank
sample    one pod: the sample; the worker's tokenizer where it is made on the spot
annotate  each shard: pairs of the sampled documents in it
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

from nativealign_api.align import Chunking, Expert, Seed
from nativealign_api.common import BaseModelSource
from nativealign_workloads.align.asking import add_late_usage, clear_answers, open_expert, open_journal, unless_overtaken
from nativealign_workloads.align.chunks import Piece, counter, cut, pinned_conduct, request
from nativealign_workloads.align.sampling import Drawn, random_rank, shares, smallest
from nativealign_workloads.align.waves import Cut, answered, waves
from nativealign_workloads.commit import (
    Json,
    ShardCommit,
    commit_step,
    count_rows,
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
from nativealign_workloads.sources import model_folder

TOKENIZER_DOCUMENTS = 20_000
"""Documents that a tokenizer made on the spot learns from, at most."""
EVERYTHING = "everything"
"""The only stratum of all strategies but Stratified, whose strata are the corpora."""


def draw(context: Context) -> Json:
    """Phase `draw`: the documents of one shard that may be in the sample: the first by rank, of each stratum."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    settings = context.job.require("seed", Seed)
    drawn = Drawn(settings.documents)
    for stratum, row in _ranked(context, settings):
        drawn.add(stratum, row)
        context.progress.advance()
    for stratum, rows in drawn.strata().items():
        for row in rows:
            shard.part(_part(stratum)).add(row)
    shard.commit(documents=dict(drawn.documents))
    return {}


def _ranked(context: Context, settings: Seed) -> Iterator[tuple[str, Json]]:
    """Stratum, id and rank of each document of this shard."""
    upstream = manifest(context.store, context.job.inputs["dedup"])["shards"][context.index]
    context.progress.begin(count_rows([upstream], "documents"), "documents")
    documents = record_rows(context.store, upstream, "documents")
    if settings.strategy in ("HighPerplexity", "LowPerplexity"):
        from nativealign_workloads.align.perplexity import perplexities

        sign = -1.0 if settings.strategy == "HighPerplexity" else 1.0
        for identifier, value in perplexities(
            model_folder(context, "seed.perplexityModel"), _texts(context, documents), context.device
        ):
            yield EVERYTHING, {"id": identifier, "rank": sign * value}
        return
    for row in documents:
        context.check_stop()
        stratum = row["corpus"] if settings.strategy == "Stratified" else EVERYTHING
        yield stratum, {"id": row["id"], "rank": random_rank(row["id"], settings.seed)}


def _texts(context: Context, documents: Iterator[Json]) -> Iterator[tuple[str, str]]:
    for row in documents:
        context.check_stop()
        yield row["id"], row["text"]


def _part(stratum: str) -> str:
    return f"drawn-{stratum}"


def sample(context: Context) -> Json:
    """Phase `sample`: which documents the expert gets."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    settings = context.job.require("seed", Seed)
    records = shard_records(context, "draw", len(manifest(context.store, context.job.inputs["dedup"])["shards"]))
    found = sum((Counter(record["facts"]["documents"]) for record in records), Counter[str]())
    for stratum, count in shares(found, settings.documents).items():
        for row in smallest((_drawn(context, record, stratum) for record in records), count):
            shard.part(f"sample-{row['shard']:05d}").add({"id": row["id"]})
    base = context.job.require("worker.base", BaseModelSource)
    if base.from_config:
        shard.folder("tokenizer", _train_tokenizer(context, base.from_config.vocabulary_size))
    shard.commit()
    return {}


def _drawn(context: Context, record: Json, stratum: str) -> Iterator[Json]:
    for row in record_rows(context.store, record, _part(stratum)):
        context.check_stop()
        yield row | {"shard": record["shard"]}


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
