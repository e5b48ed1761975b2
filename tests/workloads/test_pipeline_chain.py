"""The three jobs one after the other as a user runs them, what a second run costs, and what stops a job and lets it go on."""

import gzip
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.s3 import s3_server
from tests.workloads.openai_server import Answer, OpenAIServer, completion, openai_server
from tests.workloads.pipeline import (
    HERE,
    QUICKSTART,
    RULES,
    TINY,
    TRAINING,
    Pool,
    World,
    account,
    assert_conserved,
    make_corpus,
    manifest_of,
    nativealign,
    pool_of,
    rows,
    run_phases,
    status,
    write_manifests,
)

from nativealign_api.vocabulary import ExitCode
from nativealign_workloads.conduct import BUILTIN
from nativealign_workloads.ledger import document_id
from nativealign_workloads.records import read_rows

WORKER = RULES | {
    "sharding": {"shards": 1},
    "seed": {"documents": 24},
    "worker": {"base": {"fromConfig": TINY}, "train": TRAINING | {"epochs": 1, "globalBatch": 16, "sequenceLength": 512}},
    "rewrite": {"transformers": {"batchSize": 64}, "maxRetries": 0, "maxOutputRatio": 1},
    "chunking": {"maxTokens": 64},
}
"""With a worker of transformers, as small as can be."""
PRETRAIN = TRAINING | {
    "base": {"fromConfig": TINY},
    "mix": [{"alignJob": "web"}],
    "sequenceLength": 64,
    "tokens": 1024,
    "globalBatch": 4,
}
SAUDI_NEWS = HERE.parents[2] / "shared" / "data" / "corpus" / "saudi-news.jsonl.gz"


def small_quickstart() -> list[dict[str, Any]]:
    """The quickstart's own manifests with less of everything."""
    align, pretrain, evaluate = yaml.safe_load_all((QUICKSTART / "quickstart.yaml").read_text())
    align["spec"] |= {"corpora": RULES["corpora"], "maxQuarantinedPercent": 20, "seed": {"documents": 24}}
    align["spec"]["worker"]["base"]["fromConfig"] = TINY
    align["spec"]["worker"]["train"]["optimizer"]["learningRate"] = 3e-3
    align["spec"]["rewrite"]["maxOutputRatio"] = 1
    align["spec"]["chunking"] = {"maxTokens": 64}
    pretrain["spec"] |= {"tokens": 20_000, "base": {"fromConfig": TINY}}
    pretrain["spec"]["optimizer"]["learningRate"] = 2e-3
    evaluate["spec"]["data"]["uri"] = str(QUICKSTART / "benchmarks")
    return [align, pretrain, evaluate]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a corpus of 60 records."""
    make_corpus(tmp_path / "corpus", 60)
    return tmp_path


def listing(store: Path) -> dict[str, tuple[int, int, int]]:
    """Every file with what changes when somebody writes it: size, time, inode."""
    found = {path: path.stat() for path in store.rglob("*") if path.is_file()}
    return {str(path): (stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in found.items()}


def manifest_facts(store: Path, prefix: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((store / prefix / "manifest.json").read_text())["facts"]
    return facts


def computed(steps: list[dict[str, Any]]) -> list[str]:
    return [step["name"] for step in steps if not step["reused"]]


class TestTheQuickstart:
    """One run of the three jobs, looked at from several sides; later tests go on from it."""

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("quickstart")
        make_corpus(folder / "corpus", 60)
        write_manifests(folder / "jobs.yaml", *small_quickstart())
        ran = nativealign("run", "jobs.yaml", "--home", "home", cwd=folder)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return folder

    def test_all_three_jobs_are_complete_and_have_a_report(self, folder: Path):
        for kind in ("AlignJob", "PretrainJob", "EvalJob"):
            found = status(folder / "home", f"{kind}/quickstart")
            assert found["state"] == "Complete"
            assert {step["state"] for step in found["steps"]} == {"Committed"}
        assert len(list((folder / "home").rglob("report.html"))) == 4

    def test_a_second_run_computes_nothing_and_changes_no_file_of_the_store(self, folder: Path):
        before = listing(folder / "home" / "store")
        again = nativealign("run", "jobs.yaml", "--home", "home", cwd=folder)
        assert again.returncode == 0, again.stdout + again.stderr
        assert listing(folder / "home" / "store") == before
        for kind in ("AlignJob", "PretrainJob", "EvalJob"):
            found = status(folder / "home", f"{kind}/quickstart")
            assert computed(found["steps"]) == ["inspect"]
            assert found["state"] == "Complete"

    def test_another_code_of_conduct_runs_what_reads_it_and_nothing_before(self, folder: Path):
        align = small_quickstart()[0]
        conduct = BUILTIN["ar-1"].read_text().replace("name: ar-1", "name: ours-1", 1)
        align["spec"]["codeOfConduct"] = {"inline": conduct}
        write_manifests(folder / "conduct.yaml", align)
        ran = nativealign("run", "conduct.yaml", "--home", "home", cwd=folder)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        found = status(folder / "home", "AlignJob/quickstart")
        assert computed(found["steps"]) == ["inspect", "annotate", "train-worker", "rewrite", "assess"]


def test_eight_shards_two_at_a_time_account_for_every_document(here: Path):
    spec = RULES | {"sharding": {"shards": 8}, "parallelism": 2}
    write_manifests(here / "job.yaml", manifest_of("AlignJob", "web", spec))
    ran = nativealign("run", "job.yaml", "--home", "home", cwd=here)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    outputs = status(here / "home", "AlignJob/web")["outputs"]
    store = here / "home" / "store"
    clean, dedup, rewrite = (account(store, outputs[step]) for step in ("clean", "dedup", "rewrite"))
    assert_conserved(make_corpus(here / "again", 60), clean)
    assert_conserved(clean["out"], dedup)
    assert_conserved(dedup["out"], rewrite)
    assert dedup["duplicate"]


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
    assert "GateFailed: gate not passed: maxFallbackPercent" in ran.stdout
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


# The expert behind an endpoint


def polished(request: dict[str, Any]) -> Answer:
    """The chunk of the request with a full stop more, as an expert who always finds something to mend."""
    _, text = re.findall(r"<([\w-]+)>\n(.*)\n</\1>", request["messages"][-1]["content"], re.DOTALL)[-1]
    return Answer(body=completion(f"{text} ."))


BUDGET = 180
"""More requests than a segment takes, and fewer than two."""


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
    """With one shard its budget is the whole one; a segment is the answers for 16 documents."""

    def job(requests: int) -> dict[str, Any]:
        openai = {"model": "served", "endpoint": expert.url, "budget": {"requests": requests}}
        return manifest_of("AlignJob", "web", WORKER | {"expert": {"openai": openai}})

    write_manifests(here / "job.yaml", job(BUDGET))
    ran = nativealign("run", "job.yaml", "--home", "home", cwd=here)
    assert ran.returncode == ExitCode.CONFIG, ran.stdout + ran.stderr
    assert f"BudgetExhausted: spent {BUDGET} of {BUDGET} requests" in ran.stdout
    assert "raise the expert's budget" in ran.stdout
    assert len(expert.requests) == BUDGET
    (segment,) = (here / "home" / "store").glob("steps/annotate/*/annotate/segments/00000/*")
    with segment.open("rb") as stream:
        paid = list(read_rows(stream, segment.name))
    assert len({row["id"] for row in paid}) == 16

    write_manifests(here / "job.yaml", job(100_000))
    ran = nativealign("run", "job.yaml", "--home", "home", cwd=here)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found, store = status(here / "home", "AlignJob/web"), here / "home" / "store"
    pairs = rows(store, found["outputs"]["annotate"], "pairs")
    assert pairs[: len(paid)] == paid
    assert len({row["id"] for row in pairs}) == WORKER["seed"]["documents"]
    assert {row["expert"] for row in pairs} == {"openai:served"}
    spent = [manifest_facts(store, found["outputs"][step])["usage"] for step in ("annotate", "rewrite")]
    assert spent[0].items() >= {"requests": len(pairs), "tokens": 15 * len(pairs)}.items()
    assert len(expert.requests) == len(pairs) + spent[1]["requests"], "an answer was paid for twice"
    assert not list(store.glob("steps/*/*/*/answers/*/*"))
    assert found["cost"]["expertRequests"] == sum(usage["requests"] for usage in spent)
    assert found["cost"]["expertTokens"] == sum(usage["tokens"] for usage in spent)


# Models for measuring and choosing, made on the spot


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `language`, a causal language model, and `toxicity`, a classifier; random weights, one tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from nativealign_workloads.training.model import create_model, train_tokenizer

    folder = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer(["نص قصير للتجربة"], 300, folder / "tokenizer")
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "max_position_embeddings": 1024}
    create_model({"model_type": "llama", **shape, **ids}, 300, 0, folder / "language")
    labels = {"id2label": {0: "neutral", 1: "toxic"}, "label2id": {"neutral": 0, "toxic": 1}}
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=300, **shape, **ids, **labels)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder / "toxicity")
    for name in ("language", "toxicity"):
        shutil.copytree(tokenizer, folder / name, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with pool_of(2) as pool:
        yield pool


@pytest.mark.parametrize(("strategy", "side"), [("HighPerplexity", -1), ("LowPerplexity", 1)])
def test_the_seed_sample_is_the_far_end_by_perplexity(strategy: str, side: int, here: Path, models: Path, pool: Pool):
    seed = {"documents": 10, "strategy": strategy, "perplexityModel": {"uri": str(models / "language")}}
    world = World(here / "world").made()
    job = manifest_of("AlignJob", "web", WORKER | {"sharding": {"shards": 2}, "seed": seed})
    digests = run_phases(here, job, world, pool.run, until="annotate")["AlignJob/web"]
    annotated = f"steps/annotate/{digests['annotate']}"
    scored = rows(world.store, annotated, "perplexity", "score")
    assert sorted(row["id"] for row in scored) == sorted(account(world.store, f"steps/dedup/{digests['dedup']}")["out"])
    far = sorted(scored, key=lambda row: (side * row["perplexity"], row["id"]))[:10]
    assert {row["id"] for row in rows(world.store, annotated, "pairs")} == {row["id"] for row in far}


def test_a_model_that_is_no_classifier_is_refused(here: Path, models: Path):
    toxicity = {"uri": str(models / "language"), "toxicLabels": ["LABEL_1"]}
    write_manifests(here / "job.yaml", manifest_of("AlignJob", "web", RULES | {"assess": {"toxicityModel": toxicity}}))
    ran = nativealign("run", "job.yaml", "--home", "home", cwd=here)
    assert ran.returncode == ExitCode.CONFIG
    assert "NotAClassifier: the toxicity model has no weights for score.weight" in ran.stdout


def test_assess_measures_perplexity_and_toxicity_of_both_sides(here: Path, models: Path, pool: Pool):
    toxicity = {"uri": str(models / "toxicity"), "toxicLabels": ["toxic"]}
    assess = {"documents": 12, "perplexityModel": {"uri": str(models / "language")}, "toxicityModel": toxicity}
    world = World(here / "world").made()
    digests = run_phases(here, manifest_of("AlignJob", "web", RULES | {"assess": assess}), world, pool.run)["AlignJob/web"]
    measured = rows(world.store, f"steps/assess/{digests['assess']}", "measures")
    rewritten = {row["id"]: row for row in rows(world.store, f"steps/rewrite/{digests['rewrite']}", "documents")}
    assert len(measured) == 12
    for row in measured:
        same = rewritten[row["id"]]["origin"] == rewritten[row["id"]]["rewritten"]
        assert row["perplexityBefore"] > 1
        assert 0 < row["toxicityBefore"] < 1
        assert (row["perplexityBefore"] == pytest.approx(row["perplexityAfter"], rel=1e-4)) or not same
        assert (row["toxicityBefore"] == pytest.approx(row["toxicityAfter"], rel=1e-4)) or not same
    means = manifest_facts(world.store, f"steps/assess/{digests['assess']}")["measures"]
    assert means["perplexityAfter"]["mean"] == pytest.approx(sum(row["perplexityAfter"] for row in measured) / 12)


def drift(corpus: Path) -> None:
    """Adds a hundred texts of which each is nearly its neighbour and none its far ones, so that it matters which are compared."""
    lines = (corpus / "more.jsonl").read_bytes().splitlines()[:20]
    words = " ".join(json.loads(line)["text"] for line in lines if line.endswith(b"}")).split()
    texts = [" ".join(words[9 * n : 9 * n + 120]) for n in range(100)]
    (corpus / "drift.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_how_the_corpus_is_cut_does_not_change_what_survives(tmp_path: Path, pool: Pool):
    make_corpus(tmp_path / "corpus", 400)
    drift(tmp_path / "corpus")
    survivors, held_out = [], []
    for shards in (1, 7, 64):
        world = World(tmp_path / f"cut-in-{shards}").made()
        job = manifest_of("AlignJob", "web", RULES | {"sharding": {"shards": shards}})
        digests = run_phases(tmp_path, job, world, pool.run, until="rewrite")["AlignJob/web"]
        kept = rows(world.store, f"steps/rewrite/{digests['rewrite']}", "documents")
        survivors.append({row["id"]: row["rewritten"] for row in kept})
        held_out.append(sorted(account(world.store, f"steps/dedup/{digests['dedup']}")["heldOut"]))
    assert survivors[0] == survivors[1] == survivors[2]
    assert held_out[0] == held_out[1] == held_out[2]


def test_two_processes_train_to_the_same_losses_as_one(here: Path, pool: Pool):
    corpus = {"name": "web", "uri": "corpus/"}
    curves = []
    for processes in (1, 2):
        world = World(here / f"processes-{processes}").made()
        spec = PRETRAIN | {
            "mix": [{"corpus": corpus}],
            "trainResources": {"processesPerNode": processes},
            "maxQuarantinedPercent": 20,
        }
        digests = run_phases(here, manifest_of("PretrainJob", "web", spec), world, pool.run, until="train")["PretrainJob/web"]
        curve = manifest_facts(world.store, f"steps/train/{digests['train']}")["curve"]
        curves.append([loss for _, loss, _ in curve])
    assert len(curves[0]) == 4
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)


# Other places


def test_the_chain_runs_on_an_s3_server(here: Path):
    with s3_server(here / "s3") as server:
        store = {"store": {"bucket": server.bucket, "prefix": "team/runs", "endpoint": server.endpoint, "region": server.region}}
        evaluation = {"model": {"pretrainJob": "web"}, "heldOut": {"alignJob": "web"}}
        specs = {"AlignJob": RULES, "PretrainJob": PRETRAIN, "EvalJob": evaluation}
        write_manifests(here / "jobs.yaml", *(manifest_of(kind, "web", spec | store) for kind, spec in specs.items()))
        keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
        for reused in (False, True):
            ran = nativealign("run", "jobs.yaml", "--home", "home", cwd=here, environment=keys)
            assert ran.returncode == 0, ran.stdout + ran.stderr
            for kind in specs:
                steps = status(here / "home", f"{kind}/web")["steps"]
                assert {step["state"] for step in steps} == {"Committed"}
                assert {step["reused"] for step in steps if step["name"] != "inspect"} == {reused}
    assert not (here / "home" / "store").exists()
    assert len(list((here / "home").rglob("report.html"))) == 4


def test_every_document_of_a_real_corpus_is_accounted_for(tmp_path: Path):
    if not SAUDI_NEWS.is_file():
        pytest.skip("no shared data")
    spec = RULES | {"corpora": [{"name": "news", "uri": str(SAUDI_NEWS)}], "sharding": {"shards": 8}, "maxQuarantinedPercent": 0}
    write_manifests(tmp_path / "job.yaml", manifest_of("AlignJob", "news", spec))
    ran = nativealign("run", "job.yaml", "--home", "home", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    outputs, store = status(tmp_path / "home", "AlignJob/news")["outputs"], tmp_path / "home" / "store"
    clean, dedup, rewrite = (account(store, outputs[step]) for step in ("clean", "dedup", "rewrite"))
    with gzip.open(SAUDI_NEWS) as lines:
        records = sum(1 for _ in lines)
    assert_conserved([document_id("news", SAUDI_NEWS.name, ordinal) for ordinal in range(records)], clean)
    assert_conserved(clean["out"], dedup)
    assert_conserved(dedup["out"], rewrite)
    assert len(dedup["heldOut"]) == 6
