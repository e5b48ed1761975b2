"""`make bench-training`: the training loop beside transformers' Trainer under DeepSpeed, on this machine's GPU or its processor.

Both train the same model from the same weights on the same packed rows in the same order, with torch's AdamW at a constant rate,
under the same DeepSpeed configuration, each in a process of its own. Prints JSON: for each the median seconds of a step after
the first two, tokens per second, the peak of the GPU's memory in GiB, and the loss of the first and the last step, which show
that the work is the same; and the ratio of the tokens per second.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tests.packed import pack

from nativealign_workloads.store import LocalStore
from nativealign_workloads.training import deepspeed_env, loop, model, samples
from nativealign_workloads.training.checkpoint import ObjectCheckpoints
from nativealign_workloads.training.settings import TrainingSettings, batch_plan

VOCABULARY = 32_000
STEPS = 10
WARM_STEPS = 2
GPU = {"hidden": 2048, "layers": 16, "length": 2048, "batch": 64, "precision": "BFloat16"}
PROCESSOR = {"hidden": 256, "layers": 4, "length": 256, "batch": 16, "precision": "Float32"}


def size() -> dict[str, Any]:
    import torch

    return GPU if torch.cuda.is_available() else PROCESSOR


def settings() -> TrainingSettings:
    chosen = size()
    return TrainingSettings(
        total_steps=STEPS,
        global_batch_samples=chosen["batch"],
        learning_rate=1e-4,
        schedule="Constant",
        warmup_percent=0,
        precision=chosen["precision"],
        checkpoint_every_steps=STEPS,
    )


def rows() -> samples.MixedSamples:
    """Documents of 20 to 1,200 tokens, so that most rows hold several."""
    chosen, rng = size(), np.random.default_rng(0)
    needed = STEPS * chosen["batch"] * chosen["length"]
    lengths = rng.integers(20, 1200, 2 * needed // 600)
    documents = [[*rng.integers(3, VOCABULARY, length).tolist(), 1] for length in lengths]
    return samples.single_source([pack(documents, chosen["length"])], seed=3)


def base_model(folder: Path) -> Path:
    """Random weights and no tokenizer."""
    hidden, layers, length = (size()[name] for name in ("hidden", "layers", "length"))
    config = {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 64,
        "max_position_embeddings": length,
    }
    return model.create_model(config, VOCABULARY, 7, folder)


def nativealign(base: Path, folder: Path) -> tuple[list[float], list[float]]:
    """(time of each step's end, loss of each step); without the export."""
    ends: list[float] = []
    losses: list[float] = []

    def on_step(metrics: loop.StepMetrics) -> None:
        ends.append(time.perf_counter())
        losses.append(metrics.loss)

    loop.train(base, rows(), settings(), ObjectCheckpoints(LocalStore(folder / "store"), "checkpoints"), folder, on_step)
    return ends, losses


def trainer(base: Path, folder: Path) -> tuple[list[float], list[float]]:
    deepspeed_env.start_deepspeed()
    import torch
    import transformers

    chosen, data, ends = settings(), rows(), []
    plan = batch_plan(chosen, 1, data.sequence_length)

    class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return STEPS * chosen.global_batch_samples

        def __getitem__(self, n: int) -> dict[str, Any]:
            sample = data.sample(n)
            return {name: getattr(sample, name) for name in ("input_ids", "position_ids", "labels")}

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=plan.micro,
        gradient_accumulation_steps=plan.accumulation,
        max_steps=STEPS,
        learning_rate=chosen.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=chosen.weight_decay,
        adam_beta2=chosen.adam_beta2,
        max_grad_norm=chosen.gradient_clipping,
        optim="adamw_torch",
        train_sampling_strategy="sequential",
        bf16=chosen.precision == "BFloat16",
        use_cpu=not torch.cuda.is_available(),
        deepspeed=deepspeed_env.deepspeed_config(chosen, plan),
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    network = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    network.config.use_cache = False
    run = transformers.Trainer(network, arguments, train_dataset=Rows(), callbacks=[Clock()])
    run.train()
    return ends, [entry["loss"] for entry in run.state.log_history if "loss" in entry]


def measure(name: str, base: Path, folder: Path) -> dict[str, Any]:
    """What one of the two came to, in this process."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    ends, losses = {"nativealign": nativealign, "trainer": trainer}[name](base, folder)
    import torch

    step = statistics.median(after - before for before, after in pairwise(ends[WARM_STEPS - 1 :]))
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    return {
        "step_seconds": round(step, 3),
        "tokens_per_second": round(size()["batch"] * size()["length"] / step),
        "gpu_gib": memory and round(memory, 1),
        "loss": [round(losses[0], 4), round(losses[-1], 4)],
    }


def main() -> None:
    import torch

    found: dict[str, Any] = {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu", **size()}
    with tempfile.TemporaryDirectory() as scratch:
        base = base_model(Path(scratch, "base"))
        for name in ("trainer", "nativealign"):
            command = [sys.executable, "-m", "tests.bench.training", name, str(base), str(Path(scratch, name))]
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found[name] = json.loads(answer.splitlines()[-1])
    found["ratio"] = round(found["nativealign"]["tokens_per_second"] / found["trainer"]["tokens_per_second"], 2)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main()
