"""Models that measure and choose, made on the spot; and results that do not depend on how the work is cut."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from tests.workloads.openai_server import Answer, openai_server
from tests.workloads.pipeline import (
    PRETRAIN,
    RULES,
    WORKER,
    World,
    account,
    make_corpus,
    manifest_facts,
    manifest_of,
    pool_of,
    rows,
    run_job_here,
    run_phases,
)

from nativealign_workloads.align.perplexity import perplexities
from nativealign_workloads.conduct import BUILTIN, load_conduct
from nativealign_workloads.conduct.prompt import prompt_ids, render_messages
from nativealign_workloads.engines.billing import usage
from nativealign_workloads.errors import ConfigError


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
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights whose context holds the code of conduct."""
    from nativealign_workloads.training.model import create_model, train_tokenizer

    folder = tmp_path_factory.mktemp("chat")
    tokenizer = train_tokenizer([BUILTIN["ar-1"].read_text()] * 10, 2000, folder / "tokenizer")
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "max_position_embeddings": 16384}
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    create_model({"model_type": "llama", **shape, **ids}, 2000, 0, folder / "model")
    return shutil.copytree(tokenizer, folder / "model", dirs_exist_ok=True)


def test_an_expert_in_process_answers_for_nothing(tmp_path: Path, chat: Path):
    """The whole corpus where there is no worker, else the seed sample alone."""
    make_corpus(tmp_path / "corpus", 12)
    expert = {
        "expert": {"transformers": {"uri": str(chat), "batchSize": 4}},
        "chunking": {"maxTokens": 64},
        "heldOut": {"documents": 0},
    }
    store, outputs = run_job_here(tmp_path, RULES | expert | {"rewrite": {"maxRetries": 0, "maxOutputRatio": 1}}, until="rewrite")
    chunks = [chunk for row in rows(store, outputs["rewrite"], "documents") for chunk in row["chunks"]]
    assert {chunk["by"].partition(":")[0] for chunk in chunks} == {"transformers"}
    assert "NoAnswer" not in {guard["guard"] for chunk in chunks for guard in chunk["guards"]}
    assert manifest_facts(store, outputs["rewrite"])["usage"] == usage([])

    store, outputs = run_job_here(tmp_path, WORKER | expert | {"seed": {"documents": 4}}, until="annotate")
    pairs = rows(store, outputs["annotate"], "pairs")
    assert len({pair["id"] for pair in pairs}) == 4
    assert {pair["expert"].partition(":")[0] for pair in pairs} == {"transformers"}
    assert all(pair["rewritten"] and pair["tokens"] == 0 for pair in pairs)
    assert manifest_facts(store, outputs["annotate"])["usage"] == usage([])


def test_a_worker_on_a_server_gets_the_prompts_that_it_was_trained_on_and_bills_nothing(here: Path):
    from transformers import PreTrainedTokenizerFast

    from nativealign_workloads.training.model import SPECIAL_TOKENS

    with openai_server() as server:
        server.forever = Answer(body=json.dumps({"choices": [{"text": "لا شيء", "finish_reason": "stop"}]}).encode())
        served = {"openai": {"model": "worker", "endpoint": server.url}, "maxRetries": 0}
        store, outputs = run_job_here(here, WORKER | {"rewrite": served}, until="rewrite")
    chunks = [chunk for row in rows(store, outputs["rewrite"], "documents") for chunk in row["chunks"]]
    assert {chunk["by"] for chunk in chunks} == {"openai:worker"}
    assert len(server.requests) == len(chunks)
    assert manifest_facts(store, outputs["rewrite"])["usage"] == usage([])
    conduct = load_conduct(BUILTIN["ar-1"].read_bytes(), "ar-1")
    pair = rows(store, outputs["annotate"], "pairs")[0]
    (model,) = json.loads((store / outputs["train-worker"] / "manifest.json").read_text())["shards"]
    file = store / model["parts"]["model/tokenizer.json"]["key"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), **SPECIAL_TOKENS)
    trained_on = prompt_ids(render_messages(conduct, pair["origin"], pair["context"], "worker"), tokenizer)
    assert trained_on in [request["prompt"] for request in server.requests]


@pytest.mark.parametrize(("strategy", "side"), [("HighPerplexity", -1), ("LowPerplexity", 1)])
def test_the_seed_sample_is_the_far_end_by_perplexity(strategy: str, side: int, here: Path, models: Path):
    seed = {"documents": 10, "strategy": strategy, "perplexityModel": {"uri": str(models / "language")}}
    store, outputs = run_job_here(here, WORKER | {"sharding": {"shards": 2}, "seed": seed}, until="annotate")
    documents = [(row["id"], row["text"]) for row in rows(store, outputs["dedup"], "documents")]
    found = dict(perplexities(models / "language", documents, "cpu"))
    far = sorted(found, key=lambda identifier: side * found[identifier])[:10]
    assert {row["id"] for row in rows(store, outputs["annotate"], "pairs")} == set(far)


def test_a_model_that_is_no_classifier_is_refused(here: Path, models: Path):
    toxicity = {"uri": str(models / "language"), "toxicLabels": ["LABEL_1"]}
    with pytest.raises(ConfigError, match=r"NotAClassifier: the toxicity model has no weights for score\.weight"):
        run_job_here(here, RULES | {"assess": {"toxicityModel": toxicity}})


def test_assess_measures_perplexity_and_toxicity_of_both_sides(here: Path, models: Path):
    toxicity = {"uri": str(models / "toxicity"), "toxicLabels": ["toxic"]}
    assess = {"documents": 12, "perplexityModel": {"uri": str(models / "language")}, "toxicityModel": toxicity}
    store, outputs = run_job_here(here, RULES | {"assess": assess})
    measured = rows(store, outputs["assess"], "measures")
    rewritten = {row["id"]: row for row in rows(store, outputs["rewrite"], "documents")}
    assert len(measured) == 12
    for row in measured:
        same = rewritten[row["id"]]["origin"] == rewritten[row["id"]]["rewritten"]
        assert row["perplexityBefore"] > 1
        assert 0 < row["toxicityBefore"] < 1
        assert (row["perplexityBefore"] == pytest.approx(row["perplexityAfter"], rel=1e-4)) or not same
        assert (row["toxicityBefore"] == pytest.approx(row["toxicityAfter"], rel=1e-4)) or not same
    means = manifest_facts(store, outputs["assess"])["measures"]
    assert means["perplexityAfter"]["mean"] == pytest.approx(sum(row["perplexityAfter"] for row in measured) / 12)


def test_labels_that_do_not_exclude_each_other_are_probabilities_of_their_own(models: Path, tmp_path: Path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from nativealign_workloads.align.toxicity import Classifier

    folder = shutil.copytree(models / "toxicity", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"problem_type": "multi_label_classification"}
    (folder / "config.json").write_text(json.dumps(config))
    found = Classifier(folder, ["neutral", "toxic"], "cpu").score(["نص قصير"])
    with torch.inference_mode():
        inputs = AutoTokenizer.from_pretrained(folder)(["نص قصير"], return_tensors="pt")
        logits = AutoModelForSequenceClassification.from_pretrained(folder)(**inputs).logits
    assert found == [pytest.approx(logits.sigmoid().max().item(), rel=1e-5)]


def test_a_worker_of_adapters_is_measured_on_pairs_that_it_has_not_seen(here: Path):
    train = WORKER["worker"]["train"] | {
        "epochs": 8,
        "lora": {"rank": 4},
        "heldOutPercent": 25,
        "evaluateEverySteps": 2,
        "patience": 50,
    }
    spec = WORKER | {"worker": WORKER["worker"] | {"train": train}}
    store, outputs = run_job_here(here, spec, until="rewrite")
    facts = manifest_facts(store, outputs["train-worker"])
    accepted = [row for row in rows(store, outputs["annotate"], "pairs") if row["accepted"]]
    longest = max(Counter(row["id"] for row in accepted).values())
    quarter, held_out = (len(accepted) - facts["dropped"]["identity"]) // 4, facts["heldOut"]["pairs"]
    assert held_out == facts["heldOut"]["generated"]
    assert quarter - facts["dropped"]["tooLong"] <= held_out < quarter + longest  # of whole documents
    assert 0 <= facts["heldOut"]["guardPassRate"] <= 1
    steps = [step for step, _ in facts["heldOutCurve"]]
    assert steps == sorted({*range(2, facts["steps"] + 1, 2), facts["steps"]})
    assert facts["heldOutCurve"][-1][1] < facts["heldOutCurve"][0][1]
    assert manifest_facts(store, outputs["rewrite"])["chunks"]


def drift(corpus: Path) -> None:
    """Adds a hundred texts of which each is nearly its neighbour and none its far ones, so that it matters which are compared."""
    lines = (corpus / "more.jsonl").read_bytes().splitlines()[:20]
    words = " ".join(json.loads(line)["text"] for line in lines if line.endswith(b"}")).split()
    texts = [" ".join(words[9 * n : 9 * n + 120]) for n in range(100)]
    (corpus / "drift.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_how_the_corpus_is_cut_does_not_change_what_survives(tmp_path: Path):
    make_corpus(tmp_path / "corpus", 400)
    drift(tmp_path / "corpus")
    survivors, held_out, rewritten_in = [], [], []
    for cut in ({"shards": 1}, {"shards": 7}, {"shards": 64}, {}):
        spec = RULES | {"sharding": cut, "rewrite": {"chunksPerShard": 100}}
        store, outputs = run_job_here(tmp_path, spec, until="rewrite")
        kept = rows(store, outputs["rewrite"], "documents")
        survivors.append({row["id"]: row["rewritten"] for row in kept})
        held_out.append(sorted(account(store, outputs["dedup"])["heldOut"]))
        rewritten_in.append(len(list((store / outputs["rewrite"] / "rewrite" / "shards").iterdir())))
    assert all(found == survivors[0] for found in survivors)
    assert all(found == held_out[0] for found in held_out)
    assert rewritten_in[:3] == [1, 7, 64]
    assert 3 <= rewritten_in[3] <= 8


def test_two_processes_train_to_the_same_losses_as_one(here: Path):
    corpus = {"name": "web", "uri": "corpus/"}
    curves = []
    with pool_of(1) as pool:
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
