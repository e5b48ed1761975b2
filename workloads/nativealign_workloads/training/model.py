"""Base models: made from scratch, checked before use, and loaded for training.

`create_model` and `train_tokenizer` serve recipes that start from nothing; `loop` loads with `load_model`. Only safetensors are
read and code beside weights is never run.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nativealign_workloads.errors import ConfigError, DataError, UsageError
from nativealign_workloads.libraries import import_libraries
from nativealign_workloads.model_files import check_model_folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ARCHITECTURES = ("llama", "qwen2", "qwen3")
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def load_model(folder: Path, precision: str, ds_config: Mapping[str, Any]) -> "PreTrainedModel":
    """Load a causal language model for training under `ds_config`; at ZeRO stage 3 it arrives already partitioned.

    `use_cache` is off and stays off: with a cache, transformers ignores restarting position_ids and packed documents
    see each other. For the same reason callers must never pass an attention mask.
    """
    check_model_folder(folder)
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    partitioned = ds_config["zero_optimization"]["stage"] == 3
    # from_pretrained asks a weak reference to this object whether to partition, so it must live until then
    keep = HfDeepSpeedConfig(dict(ds_config)) if partitioned else None
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.bfloat16 if precision == "BFloat16" else torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (ValueError, KeyError) as error:
        raise ConfigError("ModelNotSupported", f"{folder}: {error}", "use an architecture that transformers has") from error
    finally:
        unset_hf_deepspeed_config()
        del keep
    if partitioned and not all(hasattr(parameter, "ds_shape") for parameter in model.parameters()):
        raise ConfigError("NotPartitioned", "ZeRO stage 3 left whole parameters on every rank")
    model.config.use_cache = False
    return model


def with_adapters(model: "PreTrainedModel", rank: int, alpha: int, seed: int) -> Any:
    """The model with LoRA adapters on all linear layers, of which only these can be trained; the same on every rank."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM"))


def merged(state: "Mapping[str, torch.Tensor]", scale: float) -> "dict[str, torch.Tensor]":
    """The weights of a model with adapters as those of the model itself: W + scale * B A, computed in 32 bits."""
    plain = {}
    for name, tensor in state.items():
        if ".lora_" not in name:
            own = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
            adapter = name.replace(".base_layer.weight", ".lora_{}.default.weight")
            if adapter != name:
                up, down = (state[adapter.format(side)].float() for side in "BA")
                tensor = (tensor.float() + scale * up @ down).to(tensor.dtype)
            plain[own] = tensor
    return plain


def create_model(config: Mapping[str, Any], vocabulary: int, seed: int, folder: Path) -> Path:
    """Write a model with random weights, a pure function of (config, vocabulary, seed), and return its folder.

    `config` has `model_type` (llama, qwen2 or qwen3) and any field of its transformers configuration.
    """
    fields = dict(config)
    model_type = fields.pop("model_type", None)
    if model_type not in ARCHITECTURES:
        raise UsageError("ModelType", f"model_type {model_type!r} is none of {', '.join(ARCHITECTURES)}")
    import_libraries()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, vocab_size=vocabulary, **fields))
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def train_tokenizer(texts: Iterable[str], vocabulary: int, folder: Path) -> Path:
    """Train a byte-level BPE (no text is unknown to it), save it as a fast tokenizer, and return its folder.

    The same texts give the same files. `vocabulary` counts the 256 bytes and the three special tokens <s>, </s>, <pad>.
    """
    smallest = 256 + len(SPECIAL_TOKENS)
    if vocabulary < smallest:
        raise UsageError("VocabularyTooSmall", f"a vocabulary of {vocabulary} cannot hold {smallest} bytes and tokens")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    # What transformers' save_pretrained would write; transformers itself takes ten seconds to import
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL_TOKENS}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True))
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; DataError names the file."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError("BadJson", f"{path.name}: {error}") from error
    if not isinstance(value, dict):
        raise DataError("BadJson", f"{path.name} is no JSON object")
    return value
