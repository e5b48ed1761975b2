"""From the spec's fields to the training room's settings and models. Called by train-worker and by train."""

import shutil
from pathlib import Path
from typing import Any

from nativealign_api.common import BaseModelSource, DeepSpeed, Optimizer, TinyModel
from nativealign_workloads.context import Context
from nativealign_workloads.sources import model_folder
from nativealign_workloads.training.settings import TrainingSettings

MODEL_TYPES = {"Llama": "llama", "Qwen3": "qwen3"}


def settings_from(
    optimizer: Optimizer,
    deepspeed: DeepSpeed,
    *,
    total_steps: int,
    global_batch: int,
    seed: int,
    every_steps: int,
    keep: int,
    **more: Any,
) -> TrainingSettings:
    """The settings of a run; `more` are those that only one step has."""
    return TrainingSettings(
        total_steps=total_steps,
        global_batch_samples=global_batch,
        learning_rate=optimizer.learning_rate,
        schedule=optimizer.schedule,
        warmup_percent=optimizer.warmup_percent,
        min_learning_rate_ratio=optimizer.min_learning_rate_percent / 100,
        weight_decay=optimizer.weight_decay,
        adam_beta1=optimizer.beta1,
        adam_beta2=optimizer.beta2,
        gradient_clipping=optimizer.gradient_clipping,
        seed=seed,
        precision=deepspeed.precision,
        zero_stage=deepspeed.zero_stage,
        activation_checkpointing=deepspeed.activation_checkpointing,
        micro_batch_samples=deepspeed.micro_batch,
        checkpoint_every_steps=every_steps,
        keep_checkpoints=keep,
        **more,
    )


def base_model(context: Context, base: BaseModelSource, name: str, tokenizer: Path) -> Path:
    """The folder of the model to start from: the pinned one, or one made on the spot with the tokenizer in `tokenizer`."""
    if base.from_config is None:
        return model_folder(context, name)
    from nativealign_workloads.training.model import create_model

    folder = create_model(
        model_config(base.from_config, tokenizer), vocabulary(tokenizer), base.from_config.seed, context.scratch / "base"
    )
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


def vocabulary(tokenizer: Path) -> int:
    """Entries of a tokenizer.json; a small corpus may give fewer than asked for."""
    from tokenizers import Tokenizer

    size: int = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab_size()
    return size


def model_config(tiny: TinyModel, tokenizer: Path) -> dict[str, object]:
    """transformers' configuration fields of a model made on the spot."""
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    return {
        "model_type": MODEL_TYPES[tiny.architecture],
        "hidden_size": tiny.hidden_size,
        "intermediate_size": tiny.hidden_size * 3,
        "num_hidden_layers": tiny.layers,
        "num_attention_heads": tiny.attention_heads,
        "num_key_value_heads": tiny.attention_heads,
        "head_dim": tiny.hidden_size // tiny.attention_heads,
        "max_position_embeddings": tiny.max_position,
        "bos_token_id": ids.token_to_id("<s>"),
        "eos_token_id": ids.token_to_id("</s>"),
        "pad_token_id": ids.token_to_id("<pad>"),
        "tie_word_embeddings": True,
    }
