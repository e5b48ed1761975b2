"""DeepSpeed set up so that it runs the same on GPU and on CPU, and there without a compiler.

`loop` calls `start_deepspeed` once per process before it builds a model, and `deepspeed_config` for each run.
"""

import logging
import os
import sys
from types import ModuleType
from typing import Any

from nativealign_workloads.libraries import import_libraries, without_detours
from nativealign_workloads.training.settings import BatchPlan, TrainingSettings


def start_deepspeed() -> ModuleType:
    """Import DeepSpeed, join the process group of RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, and return the module.

    Without RANK the process is a group of its own. May be called again.
    """
    import_libraries()
    _import_muon()
    import deepspeed
    import deepspeed.ops
    import torch

    deepspeed.utils.logger.setLevel(logging.ERROR)
    accelerator = deepspeed.accelerator.get_accelerator()
    if accelerator.device_name() == "cpu":
        # the shared-memory operator would be compiled on the spot; an empty table says that none is available
        deepspeed.ops.__compatible_ops__ = {}
    else:
        accelerator.set_device(local_rank())
    if "RANK" not in os.environ:
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists on it
        if not torch.distributed.is_initialized():
            store = torch.distributed.HashStore()
            backend = accelerator.communication_backend_name()
            torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    module: ModuleType = deepspeed
    return module


def _import_muon() -> None:
    """Every training imports DeepSpeed's Muon, though it uses another optimizer; at that its kernels are given to torch's default
    compiler, which takes seconds to import."""
    import torch

    torch.compiler.set_default_backend("eager")
    try:
        with without_detours():
            import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    finally:
        torch.compiler.set_default_backend(None)


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Number of this process on its node."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Processes on this node."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def deepspeed_config(settings: TrainingSettings, plan: BatchPlan) -> dict[str, Any]:
    """The DeepSpeed configuration of a run. The optimiser is not in it: `loop` passes torch's AdamW."""
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": plan.micro,
        "gradient_accumulation_steps": plan.accumulation,
        "gradient_clipping": settings.gradient_clipping,
        "zero_optimization": {"stage": settings.zero_stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": sys.maxsize,
    }
    if settings.precision == "BFloat16":
        config["bf16"] = {"enabled": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config
