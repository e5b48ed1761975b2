"""What stops a job and lets it go on, and the accounts of its documents."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from tests.workloads.openai_server import Answer, OpenAIServer, completion, openai_server
from tests.workloads.pipeline import (
    HERE,
    PRETRAIN,
    RULES,
    WORKER,
    account,
    assert_conserved,
    make_corpus,
    manifest_facts,
    manifest_of,
    nativealign,
    rows,
    run_job_here,
    status,
    write_manifests,
)

from nativealign_api.vocabulary import ExitCode
from nativealign_workloads.ledger import document_id

SAUDI_NEWS = HERE.parents[2] / "shared" / "data" / "corpus" / "saudi-news.jsonl.gz"


def test_three_shards_two_at_a_time_account_for_every_document(here: Path):
    spec = RULES | {"sharding": {"shards": 3}, "parallelism": 2}
    (here / "corpus" / "odd.jsonl").write_text('{"text": "قصير"}\n{"text": \n')
    odd = [document_id("web", "odd.jsonl", ordinal) for ordinal in range(2)]
    write_manifests(here / "job.yaml", manifest_of("AlignJob", "web", spec))
    ran = nativealign("run", "job.yaml", "--home", "home", cwd=here)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    outputs = status(here / "home", "AlignJob/web")["outputs"]
    store = here / "home" / "store"
    clean, dedup, rewrite = (account(store, outputs[step]) for step in ("clean", "dedup", "rewrite"))
    assert_conserved(make_corpus(here / "again", 60) + odd, clean)
    assert_conserved(clean["out"], dedup)
    assert_conserved(dedup["out"], rewrite)
    assert dedup["duplicate"]
    explained(here, outputs)


def explained(here: Path, outputs: dict[str, str]) -> None:
    """`explain` tells of each kind of document what became of it."""

    def told(document: str, code: int = 0) -> str:
        ran = nativealign("explain", "web", document, "--home", "home", cwd=here)
        assert ran.returncode == code, ran.stderr
        return ran.stdout + ran.stderr

    def place(row: dict[str, Any]) -> str:
        return f"{row['corpus']}/{row['key']}:{row['ordinal']}"

    store = here / "home" / "store"
    assert "clean: filtered, TooShort" in told("web/odd.jsonl:0")
    assert "clean: set aside, NotJson: line 2" in told("web/odd.jsonl:1")
    duplicate = rows(store, outputs["dedup"], "removed")[0]
    assert f"dedup: a duplicate of {duplicate['of']}" in told(place(duplicate))
    held_out = rows(store, outputs["dedup"], "held-out")[0]
    assert "dedup: held out" in told(place(held_out))
    kept = rows(store, outputs["rewrite"], "documents")[0]
    by_place = told(place(kept))
    assert by_place == told(kept["id"]) == told(kept["userId"])
    assert "clean: kept" in by_place
    assert f"rewrite: chunk 0 {kept['chunks'][0]['state']} by rules:rules-1" in by_place
    assert "NoSuchDocument" in told("web/web.jsonl.gz:99999", ExitCode.NO_INPUT)


# Gates


def test_a_failed_gate_keeps_the_data_and_is_passed_on_only_where_it_is_accepted(here: Path):
    """The expert answers with one word always, so that the guards keep every original."""
    with openai_server() as server:
        server.forever = Answer(body=completion("نعم"))
        expert = {"expert": {"openai": {"model": "served", "endpoint": server.url}}, "gates": {"maxFallbackPercent": 50}}
        jobs = [manifest_of("AlignJob", "web", RULES | expert), manifest_of("PretrainJob", "web", PRETRAIN)]
        write_manifests(here / "jobs.yaml", *jobs)
        ran = nativealign("run", "jobs.yaml", "--home", "home", cwd=here)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "GateFailed: gate not passed: maxFallbackPercent 100 (limit 50); the data is kept" in ran.stdout
    aligned, refused = (status(here / "home", f"{kind}/web") for kind in ("AlignJob", "PretrainJob"))
    assert aligned["state"] == "GateFailed"
    kept = rows(here / "home" / "store", aligned["outputs"]["rewrite"], "documents")
    assert kept
    assert all(row["rewritten"] == row["origin"] for row in kept)
    assert refused["state"] == "Failed"
    assert refused["conditions"][0]["reason"] == "UpstreamFailed"
    assert "AlignJob/web is GateFailed" in refused["conditions"][0]["message"]

    accepting = PRETRAIN | {"mix": [{"alignJob": "web", "acceptFailedGate": True}]}
    write_manifests(here / "accepting.yaml", manifest_of("PretrainJob", "web", accepting))
    ran = nativealign("run", "accepting.yaml", "--home", "home", cwd=here)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert status(here / "home", "PretrainJob/web")["state"] == "Complete"


# The judge behind an endpoint


def test_a_judge_that_is_held_to_a_schema_scores_every_sample_in_both_orders(here: Path):
    """As a server with structured outputs it answers what the schema of the request allows: each aspect's highest score."""
    with openai_server() as server:

        def answer(request: dict[str, Any], headers: dict[str, str]) -> Answer:
            with server.lock:
                server.requests.append(request)
            schema = request["response_format"]["json_schema"]["schema"]
            scores = {name: max(allowed["enum"]) for name, allowed in schema["properties"].items()}
            return Answer(body=completion(json.dumps({name: scores[name] for name in schema["required"]})))

        server.next_answer = answer  # type: ignore[method-assign]
        judge = {"model": "served", "endpoint": server.url, "structuredOutputs": True}
        spec = RULES | {"assess": {"documents": 20, "judge": judge}, "gates": {"minJudgeScore": 9.5}}
        store, outputs = run_job_here(here, spec)
    facts = manifest_facts(store, outputs["assess"])
    judged = {name: value for name, value in facts["measures"].items() if name.startswith("judge")}
    assert len(judged) == 5
    assert {(value["mean"], value["count"]) for value in judged.values()} == {(10.0, 20)}
    assert len(server.requests) == 40


# The expert behind an endpoint


def polished(request: dict[str, Any]) -> Answer:
    """The chunk of the request with a full stop more, as an expert who always finds something to mend."""
    _, text = re.findall(r"<([\w-]+)>\n(.*)\n</\1>", request["messages"][-1]["content"], re.DOTALL)[-1]
    return Answer(body=completion(f"{text} ."))


BUDGET = 180
"""Fewer requests than the sample needs."""


@pytest.fixture
def expert() -> Iterator[OpenAIServer]:
    with openai_server() as server:

        def answer(request: dict[str, Any], headers: dict[str, str]) -> Answer:
            with server.lock:
                server.requests.append(request)
            return polished(request)

        server.next_answer = answer  # type: ignore[method-assign]
        yield server


def test_a_spent_budget_stops_the_job_and_a_larger_one_goes_on_where_it_stopped(here: Path, expert: OpenAIServer):
    """With one shard its budget is the whole one."""

    def job(requests: int) -> dict[str, Any]:
        openai = {"model": "served", "endpoint": expert.url, "budget": {"requests": requests}}
        return manifest_of("AlignJob", "web", WORKER | {"expert": {"openai": openai}})

    write_manifests(here / "job.yaml", job(BUDGET))
    ran = nativealign("run", "job.yaml", "--home", "home", cwd=here)
    assert ran.returncode == ExitCode.CONFIG, ran.stdout + ran.stderr
    assert f"BudgetExhausted: spent {BUDGET} of {BUDGET} requests" in ran.stdout
    assert "raise the expert's budget" in ran.stdout
    assert len(expert.requests) == BUDGET
    notes = [
        json.loads(path.read_text()) for path in (here / "home" / "store").glob("steps/annotate/*/annotate/answers/00000/expert/*")
    ]
    paid = [row["reply"]["text"] for note in notes for row in note["settled"]]
    assert len(paid) == BUDGET

    write_manifests(here / "job.yaml", job(100_000))
    ran = nativealign("run", "job.yaml", "--home", "home", cwd=here)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found, store = status(here / "home", "AlignJob/web"), here / "home" / "store"
    pairs = rows(store, found["outputs"]["annotate"], "pairs")
    assert Counter(paid) <= Counter(pair["rewritten"] for pair in pairs)
    assert len({row["id"] for row in pairs}) == WORKER["seed"]["documents"]
    assert {row["expert"] for row in pairs} == {"openai:served"}
    spent = [manifest_facts(store, found["outputs"][step])["usage"] for step in ("annotate", "rewrite")]
    assert spent[0].items() >= {"requests": len(pairs), "tokens": 15 * len(pairs)}.items()
    assert len(expert.requests) == len(pairs) + spent[1]["requests"], "an answer was paid for twice"
    assert not list(store.glob("steps/*/*/*/answers/*/*/*"))
    assert found["cost"]["expertRequests"] == sum(usage["requests"] for usage in spent)
    assert found["cost"]["expertTokens"] == sum(usage["tokens"] for usage in spent)


def test_every_document_of_a_real_corpus_is_accounted_for(tmp_path: Path):
    if not SAUDI_NEWS.is_file():
        pytest.skip("no shared data")
    with gzip.open(SAUDI_NEWS) as lines, gzip.open(tmp_path / "news.jsonl.gz", "wb") as kept:
        kept.writelines(islice(lines, 0, None, 8))
    spec = RULES | {"corpora": [{"name": "news", "uri": "news.jsonl.gz"}], "sharding": {"shards": 3}, "maxQuarantinedPercent": 0}
    store, outputs = run_job_here(tmp_path, spec)
    clean, dedup, rewrite = (account(store, outputs[step]) for step in ("clean", "dedup", "rewrite"))
    with gzip.open(tmp_path / "news.jsonl.gz") as lines:
        records = sum(1 for _ in lines)
    assert_conserved([document_id("news", "news.jsonl.gz", ordinal) for ordinal in range(records)], clean)
    assert_conserved(clean["out"], dedup)
    assert_conserved(dedup["out"], rewrite)
    assert len(dedup["heldOut"]) == 6
