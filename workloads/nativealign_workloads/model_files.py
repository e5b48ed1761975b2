"""Which model folders may be loaded: safetensors only, no code beside the weights.

Called by inspect on a listing, before anything is computed, and by everything that loads a model on the folder itself.
Reads names and config.json, nothing else.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from nativealign_workloads.errors import ConfigError, DataError, NoInputError

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
HINT = "give a folder in Hugging Face format"


def is_tokenizer(name: str) -> bool:
    """Whether a file of a model's folder belongs to its tokenizer."""
    return name in TOKENIZER_FILES


def is_safe(name: str) -> bool:
    """Whether a file of a model's folder is worth bringing: everything but pickles."""
    return not name.endswith(PICKLED)


def check_names(names: Iterable[str], where: str) -> None:
    """Raises NoInputError ModelNotFound, or ConfigError PickledWeights, by the file names of a model's folder."""
    names = sorted(names)
    if "config.json" not in names:
        raise NoInputError("ModelNotFound", f"{where} has no config.json", HINT)
    if any(name.endswith(".safetensors") for name in names):
        return
    pickled = [name for name in names if name.endswith(PICKLED)]
    if not pickled:
        raise NoInputError("ModelNotFound", f"{where} has no *.safetensors", HINT)
    raise ConfigError(
        "PickledWeights",
        f"{where}: the model has pickled weights only ({', '.join(pickled[:3])}), and loading a pickle can run any code",
        "convert them once where you trust them: "
        "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER) writes safetensors",
    )


def check_config(content: bytes, where: str) -> None:
    """Raises DataError ModelUnreadable, or ConfigError RemoteCode, by the content of config.json."""
    try:
        config = json.loads(content)
        named = isinstance(config["model_type"], str)
    except (ValueError, KeyError, TypeError):
        named = False
    if not named:
        raise DataError("ModelUnreadable", f"{where}: config.json is broken or names no model_type", "export the model again")
    if "auto_map" in config:
        problem = f"{where}: config.json wants to run code from the model's folder"
        raise ConfigError("RemoteCode", problem, "use a model that transformers knows itself")


def check_model_folder(folder: Path) -> None:
    """Both checks on a local folder."""
    check_names((path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else (), str(folder))
    check_config((folder / "config.json").read_bytes(), str(folder))
