"""torch, transformers and DeepSpeed: which phases need them, imported once per process without detours, and memory kept for them.

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

from nativealign_api.resolved import ResolvedJob
from nativealign_api.vocabulary import ENV_ACCELERATORS
from nativealign_workloads.errors import ConfigError, UnavailableError

NEEDED = ("torch", "transformers", "deepspeed", "accelerate")
MODELS = ("transformers.modeling_utils", "transformers.generation.utils", "deepspeed.comm", "torch._dynamo")
"""What every phase with a model imports, in the end. Dynamo's first import inside DeepSpeed's zero.Init fails: that replaces the
constructors of tensors."""
HARNESS = ("lm_eval.models.huggingface", "datasets")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
MALLOC_OPTIONS = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 1 << 30, M_ARENA_MAX: 1}
"""mallopt(3). What is smaller than 32 MiB, the most that glibc takes, is not mapped by itself; 1 GiB may lie freed; one arena."""
ASSISTANT = "sklearn"
"""Transformers imports it, where it is installed, for assisted generation, which no phase asks for."""


def libraries(job: ResolvedJob) -> tuple[str, ...]:
    """Libraries that take seconds to import and that the process of this phase itself will use, on a processor."""
    resources = job.resources
    if resources.gpus_per_node:
        return ()  # CUDA that was looked at before a fork is of no use after it
    match job.step, job.phase:
        case "train" | "train-worker", "train":
            return () if (resources.processes_per_node or 1) > 1 else MODELS
        case "export", "export":
            return MODELS
        case "rewrite", "rewrite":
            if "train-worker" in job.inputs:
                return () if {"vllm", "openai"} & set(job.parameters.get("rewrite", {})) else MODELS
            return MODELS if "expert.transformers" in job.inputs else ()
        case "annotate", "draw":
            return MODELS if "seed.perplexityModel" in job.inputs else ()
        case "annotate", "annotate":
            return MODELS if "expert.transformers" in job.inputs else ()
        case "assess", "measure":
            return MODELS if {"assess.perplexityModel", "assess.toxicityModel"} & set(job.inputs) else ()
        case "evaluate", "evaluate":
            return MODELS + HARNESS
    return ()


def check_accelerators(usable: int) -> None:
    """Raises UnavailableError AcceleratorMissing where fewer are usable than the pod was given: on processors its work would go on,
    a hundred times slower.
    """
    given = int(os.environ.get(ENV_ACCELERATORS, "0"))
    if usable < given:
        raise UnavailableError(
            "AcceleratorMissing",
            f"{usable} of {given} accelerators can be used",
            "look at the node's driver, and whether the image is the one for accelerators",
        )


def import_libraries() -> None:
    """Imports them; sets before what they read at that. May be called again. Raises ConfigError PackageMissing, UnavailableError
    AcceleratorMissing.
    """
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
    with without_detours():
        import torch

        available = torch.cuda.is_available()  # the driver's count alone says nothing of CUDA
        check_accelerators(torch.cuda.device_count() if available else 0)
        if not available:
            os.environ["DS_ACCELERATOR"] = "cpu"
        for name in MODELS:
            importlib.import_module(name)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def keep_freed_memory() -> None:
    """For a process that computes with a model, before it has threads: what glibc has freed is used again.

    A cache of keys and values is copied into a larger one with each token. By itself glibc maps each anew, until its threshold has
    grown step by step, and gives what a thread has freed back to the system, which then clears it page by page.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in MALLOC_OPTIONS.items():
            libc.mallopt(option, value)


@contextmanager
def without_detours() -> Iterator[None]:
    """Nobody looks for garbage, which imports do not make, and scikit-learn is not found: a third of the time."""
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
