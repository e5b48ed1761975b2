"""The trained weights as a Hugging Face folder that `AutoModelForCausalLM` loads. Called by `loop` on all ranks."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nativealign_workloads.errors import StepError
from nativealign_workloads.model_files import TOKENIZER_FILES
from nativealign_workloads.training import deepspeed_env, ranks
from nativealign_workloads.training.model import merged, read_json
from nativealign_workloads.training.settings import TrainingSettings

if TYPE_CHECKING:
    import torch
    from deepspeed import DeepSpeedEngine

COMPARED_TOKENS = 128
TOLERANCE = {"Float32": 1e-4, "BFloat16": 5e-2}
"""Largest difference of logits after reloading, relative to the largest logit; kernels differ between devices."""


def export(engine: "DeepSpeedEngine", base: Path, probe: "torch.Tensor", settings: TrainingSettings, folder: Path) -> Path:
    """Write the model of `engine` to `folder` with the tokenizer of `base`, and return it.

    `probe` (1, n) int64 token ids: the folder appears only after the reloaded model gave the same logits on them.
    """
    probe = probe[:, :COMPARED_TOKENS]
    logits = _logits(engine, probe)
    state = consolidated(engine)
    if deepspeed_env.rank() == 0:
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _write(engine.module, state, base, settings, partial)
        _compare(partial, probe, logits, settings.precision)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    ranks.barrier()
    return folder


def consolidated(engine: "DeepSpeedEngine") -> "dict[str, torch.Tensor]":
    """All weights on rank 0's CPU (nothing on the others), gathered one parameter at a time.

    Tied weights appear once, under their first name, which is what safetensors can hold.
    """
    import deepspeed

    first, partitioned = deepspeed_env.rank() == 0, engine.zero_optimization_stage() == 3
    saved = set(engine.module.state_dict(keep_vars=True))
    state = {}
    for name, parameter in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=partitioned):
            if first and name in saved:
                state[name] = parameter.detach().cpu().clone()
    if first:
        state.update({name: buffer.cpu() for name, buffer in engine.module.named_buffers() if name in saved})
    return state


def _logits(engine: "DeepSpeedEngine", probe: "torch.Tensor") -> "torch.Tensor":
    import torch

    engine.eval()
    with torch.no_grad():
        return engine(input_ids=probe.to(engine.device), use_cache=False).logits.float().cpu()


def _write(model: Any, state: "dict[str, torch.Tensor]", base: Path, settings: TrainingSettings, folder: Path) -> None:
    if settings.lora_rank:
        model, state = model.get_base_model(), merged(state, settings.lora_alpha / settings.lora_rank)
    model.config.use_cache = read_json(base / "config.json").get("use_cache", True)
    model.save_pretrained(folder, state_dict=state)
    model.config.use_cache = False
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


def _compare(folder: Path, probe: "torch.Tensor", expected: "torch.Tensor", precision: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True, local_files_only=True).eval()
    with torch.no_grad():
        found = model(input_ids=probe, use_cache=False).logits.float()
    difference = ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6)).item()
    if not difference <= TOLERANCE[precision]:
        raise StepError("ExportMismatch", f"the reloaded model's logits differ by {difference:.2g} of the largest logit")
