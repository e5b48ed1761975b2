"""rewrite: let the worker, or without one the expert, rewrite the whole corpus; guards decide what may stand.

Reads the deduplicated documents; writes `documents` with `origin` (the cleaned text) and `rewritten` (the paper's field names), and
for every chunk what became of it and why; `rejected` has the worst answers of each guard. A document of which nothing is left, or
which has come to hold a question of a benchmark that is kept out, is `removed`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Literal

from nativealign_api.align import Chunking, Expert, Rewrite
from nativealign_api.plan import step_shards
from nativealign_api.vocabulary import Outcome
from nativealign_workloads.align.asking import (
    add_late_usage,
    clear_answers,
    open_expert,
    open_journal,
    open_worker,
    unless_overtaken,
)
from nativealign_workloads.align.chunks import Piece, counter, cut, pinned_conduct, request
from nativealign_workloads.align.decontamination import CONTAMINATED, question_finder
from nativealign_workloads.align.rejected import Worst, rejected_answer
from nativealign_workloads.align.waves import Cut, answered, waves
from nativealign_workloads.commit import Json, ShardCommit, commit_step, manifest, record_rows, shard_records
from nativealign_workloads.conduct import Action, Conduct
from nativealign_workloads.context import Context
from nativealign_workloads.documents import documents_left
from nativealign_workloads.engines import Engine, Reply
from nativealign_workloads.engines.billing import billed, billed_together, usage
from nativealign_workloads.engines.counted import billed_by
from nativealign_workloads.engines.journal import Journal
from nativealign_workloads.errors import StepError
from nativealign_workloads.guards import Verdict, check, decide, unchanged
from nativealign_workloads.inspection.corpora import TOKENS_PER_WORD
from nativealign_workloads.ledger import Tally
from nativealign_workloads.text.chunk import reassemble

IDENTITY = ("id", "corpus", "key", "ordinal", "userId", "license", "url")


NO_ANSWER = Verdict("NoAnswer", 1, 0, Action.RETRY)
"""The engine gave no answer at all, e.g. because the prompt is longer than the model's context."""


@dataclass
class Rewriting:
    """What became of one chunk."""

    piece: Piece
    state: str = ""
    """Rewritten, Unchanged, Original (a guard kept the original) or Dropped."""
    text: str | None = None
    by: str = ""
    """Engine whose answer decided."""
    verdicts: list[Verdict] = field(default_factory=list)
    """Every guard that an answer broke, over all tries."""
    rejected: list[tuple[str, str, Sequence[Verdict]]] = field(default_factory=list)
    """Engine, answer and the guards that it broke."""
    tries: int = 0
    usage: Json = field(default_factory=lambda: billed_together([]))
    """What endpoints billed for it; the worker's own answers cost nothing."""

    def dump(self) -> Json:
        guards = [_dump(verdict) for verdict in self.verdicts]
        return {"state": self.state, "by": self.by, "tries": self.tries, "tokens": self.piece.tokens, "guards": guards}


def _dump(verdict: Verdict) -> Json:
    return {"guard": verdict.guard, "value": round(verdict.value, 4), "limit": verdict.limit, "action": verdict.action}


class Rewriter:
    """Asks the engine, checks the answer, and does what the guards say: again, the expert, the original, or nothing."""

    def __init__(self, conduct: Conduct, settings: Rewrite, worker: Engine | None, expert: Engine | None, ratio: float) -> None:
        """Without a worker the expert rewrites. `ratio`: longest answer in tokens over the counted length of the chunk."""
        self._conduct, self._settings, self._worker, self._ratio = conduct, settings, worker, ratio
        self._engines = [engine for engine in (worker, expert) if engine]

    def run(self, pieces: list[Piece]) -> list[Rewriting]:
        """One result for each piece, in order. Called from several threads."""
        results = [Rewriting(piece) for piece in pieces]
        first, *others = self._engines
        open_ones = results
        for attempt in range(self._settings.max_retries + 1):
            last = attempt == self._settings.max_retries
            actions = self._ask(first, open_ones, attempt, retry=not last, expert=bool(others))
            to_expert = [result for result, action in actions if action is Action.EXPERT]
            self._ask(self._engines[-1], to_expert, attempt, retry=False, expert=False)
            open_ones = [result for result, action in actions if action is Action.RETRY]
        return results

    @property
    def wave(self) -> int:
        """Pieces that one call should have at least."""
        return self._engines[0].wave

    def interrupt(self, error: StepError) -> None:
        """Nothing more is asked; calls under way raise `error`."""
        for engine in self._engines:
            engine.interrupt(error)

    def close(self) -> None:
        for engine in self._engines:
            engine.close()

    def _ask(
        self, engine: Engine, results: list[Rewriting], attempt: int, *, retry: bool, expert: bool
    ) -> list[tuple[Rewriting, Action | None]]:
        if not results:
            return []
        reader: Literal["expert", "worker"] = "worker" if engine is self._worker else "expert"
        asked = [request(self._conduct, result.piece, reader, self._ratio, attempt) for result in results]
        replies = engine.generate(asked)
        return [(r, self._judge(engine, r, reply, retry, expert)) for r, reply in zip(results, replies, strict=True)]

    def _judge(self, engine: Engine, result: Rewriting, reply: Reply, retry: bool, expert: bool) -> Action | None:
        origin = result.piece.chunk.text
        failed = reply.finish_reason == "Error"
        verdicts = [NO_ANSWER] if failed else check(self._conduct, origin, reply.text, reply.finish_reason)
        action = decide(verdicts, result.verdicts, retry=retry, expert=expert)
        result.by, result.tries = engine.name, result.tries + 1
        if engine is not self._worker:
            result.usage = billed_together([result.usage, billed(reply)])
        result.verdicts += verdicts
        if verdicts and not failed:
            result.rejected.append((engine.name, reply.text, verdicts))
        if action is None:
            result.state, result.text = ("Unchanged", origin) if unchanged(origin, reply.text) else ("Rewritten", reply.text)
        elif action is Action.DROP:
            result.state, result.text = "Dropped", None
        elif action is Action.ORIGINAL:
            result.state, result.text = "Original", origin
        return action


def document_row(row: Json, results: list[Rewriting], lineage: Json) -> Json:
    """The output row of a document; `rewritten` is empty where every chunk was dropped."""
    chunks = [result.piece.chunk for result in results]
    return {name: row[name] for name in IDENTITY if row.get(name) is not None} | {
        **({"raw": row["raw"]} if "raw" in row else {}),
        "origin": row["text"],
        "rewritten": reassemble(chunks, {result.piece.chunk.index: result.text for result in results}),
        "chunks": [result.dump() for result in results],
        **billed_together(result.usage for result in results),
        **lineage,
    }


def rejected_answers(row: Json, results: list[Rewriting]) -> Iterator[Json]:
    """Every answer to a document's chunks that was rejected, once for each guard that it broke."""
    for result in results:
        chunk = result.piece.chunk
        for number, (by, answer, verdicts) in enumerate(result.rejected):
            for verdict in verdicts:
                yield rejected_answer(row, chunk.index, number, by, _dump(verdict), chunk.text, answer)


def run(context: Context) -> Json:
    """Phase `rewrite`: one shard."""
    shard = ShardCommit(context)
    return unless_overtaken(shard, partial(_rewrite, shard))


def _rewrite(shard: ShardCommit) -> Json:
    context, expert = shard.context, open_journal(shard.context, "expert")
    tally, facts = _divide(shard, _rewritten(context, expert), question_finder(context))
    expert.refresh()
    shard.commit(tally, **facts, **billed_by(expert))
    clear_answers(context)
    return {"counts": facts["chunks"], "usage": expert.usage()}


def _rewritten(context: Context, expert_journal: Journal) -> Iterator[tuple[Json, list[Json]]]:
    """The output rows of one shard, in the order of its documents, each with the answers that were rejected."""
    settings, chunking = context.job.require("rewrite", Rewrite), context.job.require("chunking", Chunking)
    conduct, conduct_hash = pinned_conduct(context)
    worker, tokenizer = open_worker(context, settings) if "train-worker" in context.job.inputs else (None, None)
    who = context.job.require("expert", Expert)
    alone = worker is not None and who.in_process  # memory is for one model
    expert = None if alone else open_expert(context, who, conduct, expert_journal, _annotated(context))
    ratio, count = settings.max_output_ratio * (1.0 if tokenizer else TOKENS_PER_WORD), counter(tokenizer)
    lineage = {"conduct": conduct_hash, "worker": context.job.inputs.get("train-worker", "").rpartition("/")[2] or None}
    documents = (Cut(row, cut(row["id"], row["text"], chunking, count)) for row in documents_left(context, "dedup"))
    with closing(Rewriter(conduct, settings, worker, expert, ratio)) as rewriter:

        def rewrite(wave: list[Cut]) -> list[tuple[Json, list[Json]]]:
            answers = iter(rewriter.run([piece for document in wave for piece in document.pieces]))
            results = [(found.row, list(islice(answers, len(found.pieces)))) for found in wave]
            return [(document_row(row, own, lineage), list(rejected_answers(row, own))) for row, own in results]

        with closing(answered(context, waves(documents, rewriter.wave), rewrite, rewriter.interrupt)) as found:
            for each in found:
                context.progress.advance()
                yield each


def _annotated(context: Context) -> Json:
    """What the expert was paid for the seed sample: one budget holds for both steps."""
    if "train-worker" not in context.job.inputs:
        return usage([])
    annotated = manifest(context.store, context.job.inputs["train-worker"])["inputs"]["annotate"]
    found: Json = manifest(context.store, annotated)["facts"]["usage"]
    return found


def _divide(shard: ShardCommit, rows: Iterable[tuple[Json, list[Json]]], question_in: Callable[[str], str]) -> tuple[Tally, Json]:
    """Writes the rows into `documents` and `removed`, the worst answers into `rejected`, and counts them."""
    tally, states, guards, worst = Tally(), Counter[str](), Counter[str](), Worst()
    for row, rejected in rows:
        removed = _why_removed(row["rewritten"], question_in)
        tally.add(row["id"], Outcome.FILTERED if removed else Outcome.OUT, removed.get("reason", ""))
        shard.part("removed" if removed else "documents").add(row | removed)
        states.update(chunk["state"] for chunk in row["chunks"])
        guards.update(f"{guard['guard']}/{guard['action']}" for chunk in row["chunks"] for guard in chunk["guards"])
        for answer in rejected:
            worst.add(answer)
    for answer in worst.answers():
        shard.part("rejected").add(answer)
    return tally, {"chunks": dict(sorted(states.items())), "guards": dict(sorted(guards.items()))}


def _why_removed(rewritten: str, question_in: Callable[[str], str]) -> Json:
    if not rewritten.strip():
        return {"outcome": Outcome.FILTERED, "reason": "Dropped"}
    question = question_in(rewritten)
    return {"outcome": Outcome.FILTERED, "reason": CONTAMINATED, "detail": question} if question else {}


def commit(context: Context) -> Json:
    """Phase `commit`."""
    upstream = manifest(context.store, context.job.inputs["dedup"])
    records = shard_records(context, "rewrite", step_shards("rewrite", context.job.pinned))
    facts = {name: _sum(record["facts"][name] for record in records) for name in ("chunks", "guards")}
    add_late_usage(context, "rewrite", records)
    spent, worst = usage(record["facts"]["usage"] for record in records), Worst()
    for answer in (row for record in records for row in record_rows(context.store, record, "rejected")):
        worst.add(answer)
    headline = {"counts": facts["chunks"], "usage": spent}
    return commit_step(
        context, records, headline, expected=Tally.load(upstream["tally"]), **facts, usage=spent, rejected=worst.answers()
    )


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    return dict(sorted(sum(map(Counter, counts), Counter[str]()).items()))
