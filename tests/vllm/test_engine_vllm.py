"""The vLLM engine with a real, tiny model, through vLLM's build for processors (`make vllm`)."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tests.workloads.pipeline import (
    TINY,
    WORKER,
    World,
    account,
    assert_conserved,
    make_corpus,
    manifest_facts,
    manifest_of,
    rows,
    run_here,
    run_phases,
)
from tests.workloads.test_engine_transformers import CONTEXT, request, requests

from nativealign_workloads.engines.journal import Journal
from nativealign_workloads.engines.protocol import Reply, Request
from nativealign_workloads.engines.recorded import Recorded
from nativealign_workloads.engines.transformers_engine import TransformersEngine
from nativealign_workloads.engines.vllm_engine import VllmEngine
from nativealign_workloads.errors import ConfigError, StoppedError
from nativealign_workloads.store import LocalStore
from nativealign_workloads.training.model import create_model, train_tokenizer

os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights; its own file of settings asks for sampling, as many chat models' do."""
    folder = tmp_path_factory.mktemp("tiny") / "qwen"
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 32}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "max_position_embeddings": CONTEXT}
    create_model({"model_type": "qwen3", "num_key_value_heads": 2, **shape, **ids}, 400, 0, folder)
    train_tokenizer(["أعلنت الجامعة فتح باب القبول للطلاب"], 400, folder)
    (folder / "generation_config.json").write_text('{"do_sample": true, "temperature": 5.0}')
    return folder


@pytest.fixture(scope="module")
def engine(model_dir: Path) -> Iterator[VllmEngine]:
    one = VllmEngine(model_dir, sequences=4, precision="Float32")
    yield one
    one.close()


def generate(engine: VllmEngine, asked: list[Request]) -> list[Reply]:
    """In the order of the requests."""
    replies = {request.id: reply for found in engine.answers([asked]) for request, reply in found}
    return [replies[request.id] for request in asked]


def test_the_answers_are_those_of_transformers(engine: VllmEngine, model_dir: Path) -> None:
    assert generate(engine, requests()) == TransformersEngine(model_dir, batch_size=1).generate(requests())


def test_a_prompt_beyond_the_context_fails_alone(engine: VllmEngine) -> None:
    long, short = generate(engine, [request("long", "كلمة " * 300), request("short", "كلمة")])
    assert (long.finish_reason, long.text) == ("Error", "")
    assert f"the model's context {CONTEXT}" in (long.error or "")
    assert short.finish_reason != "Error"


def test_answers_in_the_journal_are_not_generated_again(engine: VllmEngine, tmp_path: Path) -> None:
    def never() -> VllmEngine:
        raise AssertionError("everything is known")

    first = Recorded("vllm:tiny", None, lambda: engine, Journal(LocalStore(tmp_path), "journal", "a")).generate(requests())
    assert Recorded("vllm:tiny", None, never, Journal(LocalStore(tmp_path), "journal", "b")).generate(requests()) == first


def test_calls_that_overlap_get_their_own_answers(engine: VllmEngine, tmp_path: Path) -> None:
    record = Journal(LocalStore(tmp_path), "journal", "a")
    shared = Recorded("vllm:tiny", None, lambda: engine, record)
    alone = generate(engine, requests())
    calls = [[replace(request, id=f"{call}-{request.id}") for request in requests()] for call in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for call, replies in enumerate(pool.map(shared.generate, calls)):
            assert [replace(reply, id=reply.id.removeprefix(f"{call}-")) for reply in replies] == alone
    assert record.answers == 4 * len(alone)


def test_a_damaged_model_is_named(model_dir: Path, tmp_path: Path) -> None:
    for file in model_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ConfigError, match="ModelUnreadable"):
        VllmEngine(tmp_path, sequences=1)


def test_a_corpus_is_rewritten_by_a_worker_through_vllm(tmp_path: Path) -> None:
    make_corpus(tmp_path / "corpus", 60)
    world = World(tmp_path / "world").made()
    # a head of 32 dimensions, since this build of vLLM knows no smaller ones
    heads = {"base": {"fromConfig": TINY | {"attentionHeads": 1}}}
    spec = WORKER | {
        "worker": WORKER["worker"] | heads,
        "rewrite": {"vllm": {"sequences": 16, "precision": "Float32"}, "maxRetries": 1, "maxOutputRatio": 1},
    }
    digests = run_phases(tmp_path, manifest_of("AlignJob", "web", spec), world, run_here, until="rewrite")["AlignJob/web"]
    rewrite = f"steps/rewrite/{digests['rewrite']}"
    assert_conserved(account(world.store, f"steps/dedup/{digests['dedup']}")["out"], account(world.store, rewrite))
    engines = {chunk["by"] for row in rows(world.store, rewrite, "documents") for chunk in row["chunks"]}
    assert engines == {f"vllm:{digests['train-worker']}"}
    assert sum(manifest_facts(world.store, rewrite)["chunks"].values()) > 60


def test_an_interrupted_engine_raises(engine: VllmEngine) -> None:
    engine.interrupt(StoppedError("Stopped", "asked to stop"))
    with pytest.raises(StoppedError):
        generate(engine, requests())
