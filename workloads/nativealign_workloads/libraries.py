"""torch, transformers and DeepSpeed, imported once per process; without detours, which are a third of the time.

Whatever loads or trains a model calls `import_libraries` before it imports one of them.
"""

import ctypes
import gc
import importlib
import logging
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from nativealign_workloads.errors import ConfigError

NEEDED = ("torch", "transformers", "deepspeed", "accelerate")
MODELS = ("transformers.modeling_utils", "transformers.generation.utils", "deepspeed.comm", "torch._dynamo")
"""What every phase with a model imports, in the end. Dynamo's first import inside DeepSpeed's zero.Init fails: that replaces the
constructors of tensors."""
M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD = -3, 32 << 20
M_TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD = -1, 64 << 20
"""mallopt(3): the values at which glibc's own adjusting ends, in bytes."""
ASSISTANT = "sklearn"
"""Transformers imports it, where it is installed, for assisted generation, which no phase asks for."""


def import_libraries() -> None:
    """Imports them; sets before what they read at that. May be called again. Raises ConfigError PackageMissing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            "PackageMissing",
            f"a model needs {', '.join(missing)}",
            "install nativealign[workloads-cpu] or nativealign[workloads-gpu]",
        )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # threads that spin while they wait make a step up to three times slower on processors shared with others
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # DeepSpeed tells its whole configuration at INFO
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed|deepspeed")
    _keep_freed_memory()
    with without_detours():
        import torch

        if not torch.cuda.is_available():
            os.environ["DS_ACCELERATOR"] = "cpu"
        for name in MODELS:
            importlib.import_module(name)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _keep_freed_memory() -> None:
    """The first batch then takes no longer than the others.

    A cache of keys and values grows with each token. Until glibc has raised its thresholds step by step, each larger tensor is
    mapped anew, page by page.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD)


@contextmanager
def without_detours() -> Iterator[None]:
    """Nobody looks for garbage, which imports do not make, and scikit-learn is not found."""
    collecting, hidden = gc.isenabled(), ASSISTANT not in sys.modules
    gc.disable()
    sys.modules.setdefault(ASSISTANT, None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        if hidden:
            del sys.modules[ASSISTANT]
        if collecting:
            gc.enable()
