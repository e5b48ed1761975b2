"""Records of a small chain, as the steps write them, for the tests of the report: in memory, or as a store and status files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from nativealign_api.status import ConditionStatus, Cost, JobStatus, Pinned, StepStatus
from nativealign_api.vocabulary import Outcome
from nativealign_workloads.ledger import Tally, document_id
from nativealign_workloads.records import encode_frame
from nativealign_workloads.report.gather import Answers, Job

Json = dict[str, Any]

SCRIPT = "<script>document.title = 'owned'</script>"
OVERRIDE = "\u202e"
"""RIGHT-TO-LEFT OVERRIDE."""

BEFORE = f"اعلنت الجامعه ,امس فتح باب القبول لـ 250 طالبا !!\nوهذا خبر طويل من مدينة الرياض\n{SCRIPT} {OVERRIDE}abc\nهاتف: 555-0133"
AFTER = f"أعلنت الجامعة، أمس، فتح باب القبول لـ 250 طالباً.\nوهذا خبر طويل من مدينة الرياض\n{SCRIPT} {OVERRIDE}abc\nهاتف: 555-0133"
KEPT = "يقع جبل طويق وسط الجزيرة العربية."

READ = 40
FATES = {"clean": {Outcome.OUT: 34, Outcome.FILTERED: 4, Outcome.QUARANTINED: 2}}
FATES["dedup"] = {Outcome.OUT: 25, Outcome.HELD_OUT: 3, Outcome.DUPLICATE: 6}
FATES["rewrite"] = {Outcome.OUT: 24, Outcome.FILTERED: 1}
CHUNKS = {"Dropped": 1, "Original": 21, "Rewritten": 5, "Unchanged": 3}

EXPERT = {"openai": {"endpoint": "https://expert.example/v1", "model": "expert", "budget": {"tokens": 1000}}}
NAMES = {"AlignJob": "news", "PretrainJob": "base", "EvalJob": "suite"}


def digest(step: str, kind: str = "") -> str:
    """Stands for a step's digest: 32 hex digits. Every kind has an inspect step of its own."""
    return document_id("digest", step, ("", *NAMES).index(kind) if step == "inspect" else 0)


def tallies() -> dict[str, Json]:
    """Tallies of clean, dedup and rewrite in which every document is accounted for."""
    documents = [document_id("web", "web.jsonl", n) for n in range(READ)]
    found: dict[str, Json] = {}
    for step, fates in FATES.items():
        tally, left = Tally(), iter(documents)
        kept = [next(left) for _ in range(fates[Outcome.OUT])]
        for identifier in kept:
            tally.add(identifier, Outcome.OUT)
        for outcome, count in list(fates.items())[1:]:
            for _ in range(count):
                tally.add(next(left), outcome, "" if outcome in (Outcome.HELD_OUT, Outcome.DUPLICATE) else "Reason")
        found[step], documents = tally.dump(), kept
    return found


def summary(mean: float | None, low: float = 0.0, high: float = 1.0) -> Json:
    """As assess writes the summary of a measure; None for one without any usable value."""
    if mean is None:
        return {"count": 0, "missing": 10, "mean": None}
    edges = [low + (high - low) * n / 4 for n in range(5)]
    histogram = {"counts": [1, 2, 3, 4], "edges": edges}
    return {
        "count": 10,
        "missing": 0,
        "mean": mean,
        "low": mean - 0.1,
        "high": mean + 0.1,
        "quartiles": [low, mean, high],
        "histogram": histogram,
    }


def manifest(step: str, facts: Json, tally: Json | None = None, shards: list[Json] | None = None, **inputs: str) -> Json:
    empty = Tally().dump()
    given = {name.replace("_", "-"): f"steps/{name.replace('_', '-')}/{value}" for name, value in inputs.items()}
    head = {"apiVersion": "nativealign.dev/v1alpha1", "step": step, "version": 1, "digest": digest(step), "inputs": given}
    return head | {"parameters": {"seed": 42}, "tally": tally or empty, "facts": facts, "shards": shards or [], "seconds": 1.0}


def status(kind: str, steps: list[str], **changes: Any) -> JobStatus:
    """Of a job all of whose steps are committed."""
    done = [StepStatus(name=step, state="Committed", digest=digest(step, kind), seconds=2.5) for step in steps]
    times = {"start_time": "2026-05-01T08:00:00Z", "completion_time": "2026-05-01T08:02:05Z"}
    pinned = Pinned(inspect=digest("inspect", kind), step_versions=dict.fromkeys(steps, 1))
    return JobStatus(
        **({"state": "Complete", "steps": done, "pinned": pinned, "cost": Cost(step_seconds=2.5 * len(steps))} | times | changes)
    )


def align_job() -> Job:
    """With a worker, without a perplexity, toxicity or judge model; one corpus has no licence."""
    tally = tallies()
    corpora = [_corpus("web", "CC0-1.0"), _corpus("forum", None)]
    forecast = {"documents": 40, "words": 900, "expertDocuments": 10, "promptTokens": 1800, "completionTokens": 1800}
    inputs = {
        "corpora": {"digest": digest("corpora"), "shards": 2, "files": 2, "bytes": 2048, "corpora": corpora, "forecast": forecast}
    }
    training = {"curve": [[1, 8.0, 1e-4], [2, 6.5, 1e-3], [3, 5.25, 1e-4]], "firstLoss": 8.0, "finalLoss": 5.25}
    training |= {"steps": 3, "tokens": 1234567, "labelTokens": 345678}
    guards = {"LengthRatio/Original": 18, "Refusal/Drop": 1, "NumberLost/Original": 9}
    seed = {"pairs": 12, "accepted": 10, "unchanged": 3, "guards": {"NumberLost": 2}, "usage": {"requests": 12, "tokens": 4321}}
    measures = {
        "changed": summary(0.2),
        "numbersKept": summary(0.9),
        "namesKept": summary(0.95),
        "lengthRatio": summary(1.01, 0.9, 1.1),
    }
    manifests = {
        "inspect": manifest("inspect", {"inputs": inputs}),
        "clean": manifest("clean", {}, tally["clean"]),
        "dedup": manifest(
            "dedup", {"clusterSizes": {"2": 3, "8": 1}, "clusters": 4, "duplicates": 6, "heldOut": 3}, tally["dedup"]
        ),
        "annotate": manifest("annotate", seed),
        "train-worker": manifest("train-worker", training),
        "rewrite": manifest(
            "rewrite",
            {"chunks": CHUNKS, "guards": guards, "usage": {"requests": 30, "tokens": 9876}, "rejected": [rejected()]},
            tally["rewrite"],
        ),
        "assess": manifest("assess", {"documents": 10, "measures": measures, "gates": [], "samples": samples()}),
    }
    given = {
        "corpora": [{"name": "web"}, {"name": "forum"}],
        "expert": EXPERT,
        "worker": {"base": {"uri": "models/base"}},
        "assess": {},
    }
    pinned = Pinned(inputs={"corpora": digest("corpora"), "conduct": digest("conduct")})
    conduct = {"name": "ar-1", "language": "ar", "guards": {"lengthRatio": {"minimum": 0.5, "maximum": 1.6, "action": "Original"}}}
    listing = {"files": [["web", f"{SCRIPT}.jsonl", 1024, "e1"], ["forum", f"forum{OVERRIDE}.jsonl", 1024, "e2"]], "shards": 2}
    return Job(
        "AlignJob",
        NAMES["AlignJob"],
        "default",
        digest("a"),
        given,
        status("AlignJob", list(manifests), pinned=pinned),
        manifests,
        listing,
        conduct,
    )


def _corpus(name: str, license_: str | None) -> Json:
    facts = {"name": name, "files": 1, "bytes": 1024, "license": license_, "schema": {"text": "str"}, "sampleRecords": 20}
    return facts | {"sampleProblems": {"NotUtf8": 1}, "expectedDocuments": 20, "expectedWords": 450}


def samples() -> list[Json]:
    head = {"corpus": "web", "key": "web.jsonl"}
    return [
        {"id": digest("s1"), "states": ["Rewritten"], "guards": [], "origin": BEFORE, "rewritten": AFTER} | head,
        {"id": digest("s2"), "states": ["Original"], "guards": ["LengthRatio (Original)"], "origin": KEPT, "rewritten": KEPT}
        | head,
    ]


def rejected() -> Json:
    """As rewrite writes the worst answer of a guard."""
    place = {"id": digest("s1"), "corpus": "web", "key": "web.jsonl", "chunk": 0, "try": 0, "by": "vllm:worker"}
    guard = {"guard": "LengthRatio", "value": 0.125, "limit": 0.5, "action": "Original"}
    return place | guard | {"origin": BEFORE, "rewritten": f"ملخص {SCRIPT}"}


def pretrain_job() -> Job:
    sources = [
        {"name": "news/Aligned", "digest": digest("aligned"), "documents": 24, "tokens": 31000},
        {"name": "news/Raw", "digest": digest("raw"), "documents": 25, "tokens": 42000},
    ]
    curve = [[1, 8.3, 2e-4], [2, 7.1, 2e-3], [3, 5.2, 2e-4]]
    facts = {
        "curve": curve,
        "firstLoss": 8.3,
        "finalLoss": 5.2,
        "steps": 3,
        "tokens": 400965,
        "labelTokens": 397830,
        "sources": sources,
    }
    manifests = {
        "inspect": manifest("inspect", {"inputs": {}}),
        "tokenize": manifest("tokenize", {"sources": sources}),
        "train": manifest("train", facts, tokenize=digest("tokenize")),
        "export": manifest("export", {"parameters": 950912}, train=digest("train")),
    }
    mix = [{"alignJob": "news", "view": "Aligned", "weight": 0.8}, {"alignJob": "news", "view": "Raw", "weight": 0.2}]
    upstream = {"AlignJob/news": {"uid": digest("a"), "rewrite": digest("rewrite"), "dedup": digest("dedup")}}
    found = status("PretrainJob", list(manifests), pinned=Pinned(upstream=upstream))
    tally = tallies()["rewrite"]
    own = {source["digest"]: manifest("tokenize", {"tokens": source["tokens"]}, tally) for source in sources}
    return Job("PretrainJob", NAMES["PretrainJob"], "default", digest("p"), {"mix": mix}, found, manifests, sources=own)


def score(metric: str, value: float, views: Json | None = None, **more: Any) -> Json:
    head = {"metric": metric, "score": value, "low": value - 0.05, "high": value + 0.05, "items": 40}
    return (
        head
        | ({"truncated": 1, "protocol": "acegpt-5shot-0123456789", "views": views or {}} if metric != "bitsPerByte" else {})
        | more
    )


def eval_job() -> Job:
    """With a baseline and a failed gate."""
    constant = {
        name: {"score": value, "low": value, "high": value, "items": 40}
        for name, value in (("alwaysYes", 0.35), ("alwaysNo", 0.32))
    }
    scores = {
        "exams-ar": score("accuracy", 0.42),
        "acva-all": score("macroF1", 0.3, constant),
        "bits-per-byte": score("bitsPerByte", 1.36),
    }
    baseline = {"exams-ar": score("accuracy", 0.4), "acva-all": score("macroF1", 0.36), "bits-per-byte": score("bitsPerByte", 1.41)}
    pairs = {"items": 40, "confidence": 0.95, "marginPoints": 1.0}
    compared = {
        "exams-ar": {
            "metric": "accuracy",
            "score": 0.42,
            "baseline": 0.4,
            "difference": 0.02,
            "low": 0.001,
            "high": 0.04,
            "wins": 5,
        }
        | {"losses": 4, "pValue": 0.5, "adjustedPValue": 1.0, "verdict": "Pass", "itemsNeeded": None}
        | pairs,
        "acva-all": {
            "metric": "macroF1",
            "score": 0.3,
            "baseline": 0.36,
            "difference": -0.06,
            "low": -0.1,
            "high": -0.02,
            "wins": 1,
        }
        | {"losses": 9, "pValue": 0.01, "adjustedPValue": 0.02, "verdict": "Fail", "itemsNeeded": None}
        | pairs,
    }
    facts = {"scores": scores, "baseline": baseline, "comparison": {"benchmarks": compared, "gate": "Fail"}}
    manifests = {
        "inspect": manifest("inspect", {"inputs": {}}),
        "evaluate": manifest("evaluate", {"items": {"exams-ar": 40}}, shards=[answered("model"), answered("baseline")]),
        "report": manifest("report", facts, evaluate=digest("evaluate")),
    }
    given = {"model": {"pretrainJob": "base"}, "baseline": {"uri": "models/base"}, "heldOut": {"alignJob": "news"}}
    given["gate"] = {"nonInferior": {"marginPoints": 1.0, "confidence": 0.95}}
    upstream = {"PretrainJob/base": {"uid": digest("p"), "export": digest("export")}}
    message = "gate not passed: nonInferior of acva-all Fail: -10.0 to -2.0 points (margin 1); the data is kept"
    found = status(
        "EvalJob",
        list(manifests),
        state="GateFailed",
        pinned=Pinned(upstream=upstream),
        conditions=[ConditionStatus(type="Failed", status="True", reason="GateFailed", message=message)],
    )
    answers = {role: {"exams-ar": Answers(len(ROWS), 1, ROWS)} for role in ("model", "baseline")}
    return Job("EvalJob", NAMES["EvalJob"], "default", digest("e"), given, found, manifests, answers=answers)


ROWS = [
    {"itemId": "Biology-1", "subject": "Biology", "gold": "B", "response": f" B {SCRIPT}", "extracted": "B", "correct": True},
    {"itemId": "Biology-2", "subject": "Biology", "gold": "A", "response": " 555---", "extracted": "", "correct": False},
]


def answered(role: str) -> Json:
    """A shard of evaluate, as the manifest names it."""
    key = f"steps/evaluate/{digest('evaluate')}/evaluate/exams-ar-{role}.jsonl.zst"
    return {"parts": {"exams-ar.jsonl.zst": {"key": key, "rows": len(ROWS)}}, "tally": None, "facts": {}}


def failed(job: Job, step: str) -> Job:
    """The job as it would be had this step failed."""
    place = [found.name for found in job.status.steps].index(step)
    steps = [found.model_copy() for found in job.status.steps]
    for later in steps[place:]:
        later.state, later.digest, later.seconds = "Waiting", None, None
    steps[place].state, steps[place].phase = "Failed", "filter"
    message = "12 of 40 records (30.0 %) cannot be read; mend the files, or raise maxQuarantinedPercent"
    cause = ConditionStatus(type="Failed", status="True", reason="TooMuchQuarantined", message=message)
    kept = {name: found for name, found in job.manifests.items() if name in [s.name for s in steps[:place]]}
    return replace(
        job, status=job.status.model_copy(update={"state": "Failed", "steps": steps, "conditions": [cause]}), manifests=kept
    )


def chain() -> list[Job]:
    return [align_job(), pretrain_job(), eval_job()]


def write(job: Job, store: Path, folder: Path) -> Path:
    """Puts the job's records into a store's folder; returns the status file."""
    for step, found in job.manifests.items():
        _put(store / "steps" / step / digest(step, job.kind) / "manifest.json", found)
        for shard in found["shards"]:
            for part in shard["parts"].values():
                _bytes(store / part["key"], encode_frame(ROWS))
    for source, found in job.sources.items():
        _put(store / "steps/tokenize" / source / "manifest.json", found)
    if job.listing:
        _put(store / "inputs" / digest("corpora") / "listing.json", job.listing)
        _put(store / "inputs" / digest("conduct") / "conduct.yaml", job.conduct)
    metadata = {"name": job.name, "namespace": job.namespace, "uid": job.uid}
    record = {"apiVersion": "nativealign.dev/v1alpha1", "kind": job.kind, "metadata": metadata, "spec": job.spec}
    path = folder / f"{job.kind}.json"
    _put(path, record | {"status": job.status.dump()})
    return path


def _put(path: Path, value: Json) -> None:
    _bytes(path, json.dumps(value, ensure_ascii=False).encode())


def _bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
