"""A local Hugging Face model folder -> model and tokenizer, and a fingerprint. Called by run.py and bits_per_byte.py."""

import hashlib
import os
from pathlib import Path
from typing import Any

from nativealign_workloads.errors import DataError, NoInputError
from nativealign_workloads.libraries import import_libraries
from nativealign_workloads.model_files import HINT, check_model_folder

_SAMPLES, _SAMPLE_BYTES = 64, 65536


def stay_offline() -> None:
    """Keeps the Hugging Face libraries from asking any hub and from drawing bars; call it before their first import."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TQDM_DISABLE="1")


def load_model(model_dir: Path, device: str, precision: str = "Float32") -> tuple[Any, Any]:
    """Returns (model, tokenizer) in evaluation mode; `cuda` uses all visible GPUs, `precision` is Float32 or BFloat16.

    Raises NoInputError if the folder holds no model, DataError if it cannot be read.
    """
    check_model(model_dir)
    stay_offline()
    import_libraries()
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    place = {"device_map": "auto"} if device == "cuda" else {}
    dtype = {"Float32": torch.float32, "BFloat16": torch.bfloat16}[precision]
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(model_dir, local_files_only=True, dtype=dtype, **place)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError("ModelUnreadable", f"{model_dir}: {problem}", "export the model again") from error
    if not place:
        model.to(device)
    # Greedy means greedy: a repetition penalty in the model's own settings would change answers.
    own = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )
    return model.eval(), tokenizer


def check_model(model_dir: Path) -> None:
    """As check_model_folder; raises NoInputError TokenizerNotFound too."""
    check_model_folder(model_dir)
    if not any((model_dir / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise NoInputError("TokenizerNotFound", f"{model_dir} has no tokenizer.json", HINT)


def fingerprint(model_dir: Path) -> str:
    """16 hex digits over small files whole and weights by 64 evenly spaced samples, so 140 GB take seconds."""
    digest = hashlib.sha256()
    for path in sorted(model_dir.iterdir()):
        if path.suffix in {".json", ".safetensors", ".model", ".txt", ".jinja"}:
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with path.open("rb") as file:
                for offset in _offsets(size):
                    file.seek(offset)
                    digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def _offsets(size: int) -> range | list[int]:
    if size <= _SAMPLES * _SAMPLE_BYTES:
        return range(0, size, _SAMPLE_BYTES)
    last = size - _SAMPLE_BYTES
    return [last * n // (_SAMPLES - 1) for n in range(_SAMPLES)]
