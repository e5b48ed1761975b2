"""One process trains tiny models with real DeepSpeed; a plain transformers loop is the oracle.

`train_cases` is also the entry of the ranks that test_training_processes.py starts.
"""

import json
import os
import re
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.packed import pack, pack_pairs

from nativealign_workloads.errors import ConfigError, DataError, NoInputError, StoppedError, UsageError
from nativealign_workloads.model_files import check_model_folder
from nativealign_workloads.store import LocalStore
from nativealign_workloads.training import loop, model, samples, sft
from nativealign_workloads.training.checkpoint import ObjectCheckpoints
from nativealign_workloads.training.schedule import learning_rate
from nativealign_workloads.training.settings import TrainingSettings

VOCABULARY, LENGTH = 320, 32
TEXTS = ["من كتاب الأيام", "اللغة العربية لغة سامية", "a small corpus of small sentences"] * 20
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
SETTINGS = {
    "total_steps": 6,
    "global_batch_samples": 4,
    "learning_rate": 1e-2,
    "warmup_percent": 20,
    "precision": "Float32",
    "checkpoint_every_steps": 3,
}


def make_base(folder: Path, kind: str = "llama", **fields: Any) -> Path:
    model.train_tokenizer(TEXTS, VOCABULARY, folder)
    return model.create_model({"model_type": kind, **SIZES, **fields}, VOCABULARY, 7, folder)


def corpus() -> samples.MixedSamples:
    rng = np.random.default_rng(0)
    documents = [[*rng.integers(3, VOCABULARY, rng.integers(2, 50)).tolist(), 1] for _ in range(40)]
    return samples.single_source([pack(documents[:25], LENGTH), pack(documents[25:], LENGTH)], seed=3)


def run(
    base: Path, folder: Path, store: LocalStore | None = None, data: Any = None, **changes: Any
) -> tuple[loop.TrainResult, list[dict[str, float]]]:
    """Train; returns the result and the rows of metrics.jsonl without the speed."""
    arguments = {name: changes.pop(name) for name in ("stop", "on_step", "held_out") if name in changes}
    checkpoints = ObjectCheckpoints(store or LocalStore(folder / "store"), "checkpoints")
    settings = TrainingSettings(**{**SETTINGS, **changes})
    result = loop.train(base, data or corpus(), settings, checkpoints, folder, **arguments)
    return result, rows(result.metrics)


def rows(metrics: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in found]


class DyingStore(LocalStore):
    """Kills its process when the file `fatal` is uploaded, i.e. in the middle of saving a checkpoint."""

    def __init__(self, root: Path, fatal: str) -> None:
        super().__init__(root)
        self.fatal = fatal

    def upload(self, key: str, path: Path) -> None:
        if self.fatal and re.search(self.fatal, key):
            os.kill(os.getpid(), signal.SIGKILL)
        super().upload(key, path)


def train_cases(base: str, folder: str, cases: str) -> None:
    """Entry of a rank. `cases` is a JSON list of settings; a case with `stop_after` is stopped by the last rank alone
    after so many steps, one with `fatal` dies as DyingStore does."""
    from nativealign_workloads.training import deepspeed_env

    for number, case in enumerate(json.loads(cases)):
        stop_after, fatal = case.pop("stop_after", None), case.pop("fatal", "")
        target, store = Path(folder) / str(number), Path(folder) / case.pop("store", f"store-{number}")
        last, polls = deepspeed_env.rank() == deepspeed_env.world_size() - 1, []

        def stop(after: int | None = stop_after, last: bool = last, polls: list[int] = polls) -> bool:
            polls.append(1)
            return last and after is not None and len(polls) > after

        try:
            settings = TrainingSettings(**{**SETTINGS, **case})
            checkpoints = ObjectCheckpoints(DyingStore(store, fatal), "checkpoints")
            result = loop.train(Path(base), corpus(), settings, checkpoints, target, stop=stop)
        except StoppedError as error:
            (target / f"stopped-{deepspeed_env.rank()}").write_text(error.message)
        else:
            (target / f"result-{deepspeed_env.rank()}.json").write_text(json.dumps(asdict(result), default=str))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def plain_curve(base: Path) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of a loop written with transformers and torch alone."""
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings, data = TrainingSettings(**SETTINGS), corpus()
    groups = [
        {"params": [p for p in network.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in network.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    losses, norms = [], []
    for step in range(settings.total_steps):
        batch = [data.sample(step * 4 + i) for i in range(4)]
        stacked = {
            name: torch.from_numpy(np.stack([getattr(sample, name) for sample in batch]))
            for name in ("input_ids", "position_ids", "labels")
        }
        loss = network(**stacked, use_cache=False).loss
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, norms


@pytest.mark.parametrize(
    "changes",
    [
        {"zero_stage": 0},
        {"zero_stage": 1},
        {"zero_stage": 2, "micro_batch_samples": 2},
        {"zero_stage": 3, "micro_batch_samples": 1},
        {"zero_stage": 1, "micro_batch_samples": 2, "activation_checkpointing": True},
        {"zero_stage": 3, "activation_checkpointing": True},
    ],
    ids=str,
)
def test_losses_equal_a_plain_loop(
    base: Path, plain_curve: tuple[list[float], list[float]], tmp_path: Path, changes: dict[str, Any]
) -> None:
    _, found = run(base, tmp_path, **changes)
    assert [row["loss"] for row in found] == pytest.approx(plain_curve[0], abs=1e-5)
    assert [row["grad_norm"] for row in found] == pytest.approx(plain_curve[1], rel=1e-4)
    assert found[-1]["loss"] < found[0]["loss"]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bf16_follows_the_fp32_curve(base: Path, plain_curve: tuple[list[float], list[float]], tmp_path: Path, stage: int) -> None:
    import torch
    from safetensors.torch import load_file

    result, found = run(base, tmp_path, precision="BFloat16", zero_stage=stage)
    assert [row["loss"] for row in found] == pytest.approx(plain_curve[0], abs=0.05)
    assert {tensor.dtype for tensor in load_file(result.model / "model.safetensors").values()} == {torch.bfloat16}


def test_packed_documents_do_not_see_each_other(base: Path) -> None:
    import torch

    network = model.load_model(base, "Float32", {"zero_optimization": {"stage": 0}}).train()
    documents = [[5, 6, 7, 8, 1], [40, 41, 42, 43, 44, 45, 1], [9, 8, 7, 1]]
    row = pack(documents, 16).sample(0)
    ids, positions = torch.from_numpy(row.input_ids)[None], torch.from_numpy(row.position_ids)[None]
    with torch.no_grad():
        packed = network(input_ids=ids, position_ids=positions).logits[0]
        both = network(input_ids=ids.repeat(2, 1), position_ids=positions.repeat(2, 1)).logits[1]
        alone = torch.cat([network(input_ids=torch.tensor([document])).logits[0] for document in documents])
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-6)


def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(base: Path, tmp_path: Path) -> None:
    for stage, precision in ((1, "Float32"), (3, "Float32"), (2, "BFloat16")):
        options = {"zero_stage": stage, "precision": precision, "micro_batch_samples": 2}
        whole, expected = run(base, tmp_path / f"whole-{stage}", **options)
        asked: list[int] = []
        stopped = {"folder": tmp_path / f"first-{stage}", "store": LocalStore(tmp_path / f"store-{stage}")}
        with pytest.raises(StoppedError, match="4 of 6 steps are saved"):
            run(base, **stopped, **options, stop=lambda asked=asked: asked.append(0) or len(asked) > 4)
        seen: list[int] = []
        result, found = run(
            base,
            tmp_path / f"second-{stage}",
            store=stopped["store"],
            on_step=lambda metrics, seen=seen: seen.append(metrics.step),
            **options,
        )
        assert found == expected
        assert seen == [5, 6]
        assert result.resumed_from == 4
        assert (result.tokens, result.first_loss) == (whole.tokens, whole.first_loss)
        for file in ("model.safetensors", "config.json"):
            assert (result.model / file).read_bytes() == (whole.model / file).read_bytes()


def test_a_damaged_or_unfinished_checkpoint_gives_way_to_the_one_before(base: Path, tmp_path: Path) -> None:
    _, expected = run(base, tmp_path / "whole")
    store = tmp_path / "store"
    options = {"store": LocalStore(store), "checkpoint_every_steps": 1, "keep_checkpoints": 3}
    count: list[int] = []
    with pytest.raises(StoppedError):
        run(base, tmp_path / "first", **options, stop=lambda: count.append(0) or len(count) > 5)
    names = sorted(path.name for path in (store / "checkpoints").iterdir() if any(path.iterdir()))
    assert [name[:13] for name in names] == ["step-00000003", "step-00000004", "step-00000005"]
    (store / "checkpoints" / names[2] / "manifest.json").unlink()
    victim = max((store / "checkpoints" / names[1]).glob("*.pt"), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    result, found = run(base, tmp_path / "second", **options)
    assert result.resumed_from == 3
    assert found == expected


def test_a_checkpoint_of_another_layout_is_refused_with_both_layouts(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path / "a", store=LocalStore(tmp_path / "store"))
    with pytest.raises(UsageError, match="by 1 processes at ZeRO stage 1 in Float32; this run has 1 at stage 2"):
        run(base, tmp_path / "b", store=LocalStore(tmp_path / "store"), zero_stage=2)


@pytest.mark.parametrize(
    ("kind", "fields"), [("llama", {}), ("qwen2", {}), ("qwen3", {"tie_word_embeddings": True, "head_dim": 16})]
)
def test_the_exported_folder_loads_as_any_hugging_face_model(tmp_path: Path, kind: str, fields: dict[str, Any]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = make_base(tmp_path / "base", kind, **fields)
    for stage in (1, 3):
        result, found = run(base, tmp_path / str(stage), zero_stage=stage, total_steps=3)
        network = AutoModelForCausalLM.from_pretrained(result.model, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(result.model)
        assert network.config.use_cache is True
        assert network.config.model_type == kind
        assert tokenizer.decode(tokenizer(TEXTS[0]).input_ids) == TEXTS[0]
        assert tokenizer.eos_token == "</s>"
        sample = corpus().sample(0)
        with torch.no_grad():
            loss = network(
                input_ids=torch.from_numpy(sample.input_ids)[None],
                position_ids=torch.from_numpy(sample.position_ids)[None],
                labels=torch.from_numpy(sample.labels)[None],
                use_cache=False,
            ).loss.item()
        assert loss < found[0]["loss"]
        assert not list(result.model.parent.glob("*.partial"))
    files = [(tmp_path / stage / "model" / "model.safetensors").read_bytes() for stage in "13"]
    assert len(files[0]) == len(files[1])


def held_out() -> samples.Rows:
    rng = np.random.default_rng(1)
    return samples.Rows([pack([[*rng.integers(3, VOCABULARY, 40).tolist(), 1] for _ in range(5)], LENGTH)])


def plain_loss(folder: Path, rows: samples.Rows) -> float:
    """Mean loss per label, by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    total, labels = 0.0, 0
    for row in range(len(rows)):
        sample = rows.sample(row)
        found = {name: torch.from_numpy(getattr(sample, name))[None] for name in ("input_ids", "position_ids", "labels")}
        count = int((sample.labels != -100).sum())
        total, labels = total + network(**found, use_cache=False).loss.item() * count, labels + count
    return total / labels


def test_the_held_out_loss_is_that_of_the_model_at_that_step(base: Path, tmp_path: Path) -> None:
    result, _ = run(base, tmp_path, held_out=held_out(), evaluate_every_steps=4)
    assert [step for step, _ in result.held_out] == [4, 6]
    assert result.held_out[-1][1] == pytest.approx(plain_loss(result.model, held_out()), rel=1e-4)


def test_a_run_ends_when_the_held_out_loss_does_not_fall_any_more(base: Path, tmp_path: Path) -> None:
    """Random documents: what is learnt by heart makes others less likely."""
    settings = {"held_out": held_out(), "total_steps": 60, "evaluate_every_steps": 2, "learning_rate": 3e-2}
    whole, _ = run(base, tmp_path / "whole", **settings)
    losses = [loss for _, loss in whole.held_out]
    best = losses.index(min(losses))
    assert best < len(losses) - 3
    stopped, _ = run(base, tmp_path / "stopped", patience=3, checkpoint_every_steps=1, keep_checkpoints=1, **settings)
    assert stopped.steps < whole.steps
    assert stopped.held_out == whole.held_out[: len(stopped.held_out)]
    assert loop.stalled([loss for _, loss in stopped.held_out], 3)
    assert (whole.exported_step, stopped.exported_step) == (60, whole.held_out[best][0])
    assert plain_loss(stopped.model, held_out()) == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([3, 2, 1], 1, False),
        ([3, 2, 2], 1, True),
        ([1, 2, 0.5], 2, False),
        ([1, 2, 3], 2, True),
        ([1, 2], 2, False),
        ([1, 2, 3], None, False),
    ],
)
def test_patience_counts_measurements_that_are_no_better(losses: list[float], patience: int | None, expected: bool) -> None:
    assert loop.stalled(losses, patience) is expected


@pytest.mark.parametrize(("stage", "precision"), [(0, "Float32"), (1, "BFloat16"), (3, "Float32")])
def test_adapters_learn_and_are_merged_into_an_ordinary_model(base: Path, tmp_path: Path, stage: int, precision: str) -> None:
    import torch
    from safetensors.torch import load_file

    result, curve = run(base, tmp_path, lora_rank=4, lora_alpha=8, zero_stage=stage, precision=precision, learning_rate=3e-2)
    assert curve[-1]["loss"] < curve[0]["loss"]
    before, after = load_file(base / "model.safetensors"), load_file(result.model / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name].to(after[name].dtype), after[name])}
    assert changed == {name for name in before if name.endswith("_proj.weight")}
    for name in changed:
        difference = after[name].float() - before[name].to(after[name].dtype).float()
        if precision == "Float32":
            assert torch.linalg.matrix_rank(difference, rtol=1e-3) <= 4


def test_a_run_with_adapters_resumes_from_checkpoints_without_the_frozen_weights(base: Path, tmp_path: Path) -> None:
    whole, curve = run(base, tmp_path / "whole", lora_rank=4)
    polls: list[int] = []
    store = LocalStore(tmp_path / "cut" / "store")
    with pytest.raises(StoppedError):
        run(base, tmp_path / "cut", store, lora_rank=4, stop=lambda: polls.append(1) or len(polls) > 4)
    resumed, again = run(base, tmp_path / "cut", store, lora_rank=4)
    assert resumed.resumed_from == 4
    assert [row["loss"] for row in again] == pytest.approx([row["loss"] for row in curve], rel=1e-5)
    assert (resumed.model / "model.safetensors").read_bytes() == (whole.model / "model.safetensors").read_bytes()


def test_only_answers_are_learned(base: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    pairs = [sft.Pair([10 + i, 50, 60], [100 + i, 200, 1]) for i in range(16)]
    data = samples.single_source([pack_pairs(pairs, LENGTH, pad_id=2)], seed=0)
    result, found = run(base, tmp_path, data=data, total_steps=1)
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    expected = []
    for n in range(4):
        sample = data.sample(n)
        for start in np.flatnonzero(sample.position_ids[: sample.length] == 0):
            ids = torch.from_numpy(sample.input_ids[start : start + 6])[None]
            with torch.no_grad():
                scores = torch.log_softmax(network(input_ids=ids, use_cache=False).logits[0], -1)
            expected += [-scores[at - 1, ids[0, at]].item() for at in (3, 4, 5)]
    assert found[0]["loss"] == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    assert result.label_tokens == len(expected)
    assert result.tokens == 2 * len(expected)


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"NonFinite(Loss|Gradient): .* of step [2-6] \(samples \d+ to \d+\) is (nan|inf)"):
        run(base, tmp_path, learning_rate=1e30, weight_decay=0.0, warmup_percent=0)


def test_samples_without_any_label_are_refused(base: Path, tmp_path: Path) -> None:
    data = samples.single_source([pack([[5, 6, 7]] * 40, LENGTH, silent=3)], seed=0)
    with pytest.raises(DataError, match="step 1 has no token that carries a loss"):
        run(base, tmp_path, data=data)


def test_models_that_cannot_be_read_safely_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"no config\.json"):
        check_model_folder(tmp_path)
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    with pytest.raises(NoInputError, match=r"no \*\.safetensors"):
        check_model_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(ConfigError, match=r"PickledWeights: .*pytorch_model\.bin.*save_pretrained"):
        run(tmp_path, tmp_path / "run")
    (tmp_path / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    check_model_folder(tmp_path)
    config = json.loads((base / "config.json").read_bytes())
    foreign = {**config, "model_type": "foreign", "auto_map": {"AutoModelForCausalLM": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(foreign))
    (tmp_path / "evil.py").write_text("raise SystemExit('code beside the weights was run')")
    with pytest.raises(ConfigError, match="RemoteCode"):
        run(tmp_path, tmp_path / "run")


def test_models_and_tokenizers_are_the_same_bytes_each_time(base: Path, tmp_path: Path) -> None:
    make_base(tmp_path)
    names = sorted(path.name for path in base.iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(names)
    for name in names:
        assert (tmp_path / name).read_bytes() == (base / name).read_bytes(), name


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="NoMasterWeights"):
        TrainingSettings(**{**SETTINGS, "precision": "BFloat16", "zero_stage": 0})
    with pytest.raises(UsageError, match="cannot hold 259"):
        model.train_tokenizer(TEXTS, 200, tmp_path)
    with pytest.raises(UsageError, match="model_type 'gpt2'"):
        model.create_model({"model_type": "gpt2"}, VOCABULARY, 0, tmp_path)


def test_importing_the_library_imports_no_torch() -> None:
    import subprocess

    names = "checkpoint deepspeed_env export launch loop mix model packing ranks resume samples schedule settings sft"
    imports = "; ".join(f"import nativealign_workloads.training.{name}" for name in names.split())
    check = f"{imports}; import sys; assert not {{'torch', 'transformers', 'deepspeed'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
