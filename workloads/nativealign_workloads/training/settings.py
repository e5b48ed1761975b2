"""How a training run is to go: settings that the caller fills from its job, and the batch they come to.

`TrainingSettings` enters `loop.train`; `batch_plan` turns its global batch into micro batches for a world size.
"""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nativealign_workloads.errors import UsageError

MICRO_BATCH_TOKENS = 16_384
"""What a micro batch may hold when none is asked for: keeps an 8B model's logits within some GiB."""


class TrainingSettings(BaseModel):
    """Settings of one run. Everything but `micro_batch_samples`, `activation_checkpointing`, `zero_stage`,
    `checkpoint_every_steps` and `keep_checkpoints` decides what is computed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    total_steps: int = Field(gt=0)
    global_batch_samples: int = Field(gt=0)
    """Samples (rows of one sequence length) per step over all ranks."""
    learning_rate: float = Field(gt=0)
    """The highest learning rate of the schedule."""
    schedule: Literal["Cosine", "Constant", "WarmupStableDecay"] = "Cosine"
    warmup_percent: float = Field(default=1.0, ge=0, le=100)
    """Share of `total_steps` with a linearly rising rate."""
    decay_percent: float = Field(default=20.0, ge=0, le=100)
    """Share of `total_steps` with a falling rate at the end; only WarmupStableDecay reads it."""
    min_learning_rate_ratio: float = Field(default=0.1, ge=0, le=1)
    """What the rate falls to, as a share of `learning_rate`; Constant does not read it."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Applies to matrices only, not to norms and biases."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    gradient_clipping: float = Field(default=1.0, ge=0)
    """Largest global gradient norm; 0 clips nothing."""
    seed: int = 0
    precision: Literal["Float32", "BFloat16"] = "BFloat16"
    zero_stage: Literal[0, 1, 2, 3] = 1
    activation_checkpointing: bool = False
    micro_batch_samples: int | None = Field(default=None, gt=0)
    """Samples per forward pass and rank; None takes the largest that divides and stays within 16,384 tokens."""
    checkpoint_every_steps: int = Field(default=500, gt=0)
    keep_checkpoints: int = Field(default=2, gt=0)
    lora_rank: int = Field(default=0, ge=0)
    """Rank of the adapters that are trained; 0 trains all weights."""
    lora_alpha: int = Field(default=32, gt=0)
    evaluate_every_steps: int = Field(default=50, gt=0)
    """Steps between two measurements of the held-out loss."""
    patience: int | None = Field(default=None, gt=0)
    """Measurements without a lower held-out loss after which the run ends; the weights of the lowest are exported."""

    @model_validator(mode="after")
    def _needs_master_weights(self) -> Self:
        if self.precision == "BFloat16" and self.zero_stage == 0:
            raise UsageError(
                "NoMasterWeights",
                "ZeRO stage 0 would add up gradients and keep weights in 16 bits when precision is BFloat16",
                "set zeroStage to 1 or more, or precision to Float32",
            )
        return self


@dataclass(frozen=True)
class BatchPlan:
    """The global batch as one rank sees it: `accumulation` micro batches of `micro` samples."""

    world_size: int
    micro: int
    accumulation: int

    @property
    def per_rank(self) -> int:
        return self.micro * self.accumulation


def batch_plan(settings: TrainingSettings, world_size: int, sequence_length: int) -> BatchPlan:
    """Split the global batch over ranks and micro batches; sizes that do not divide are a UsageError."""
    batch = settings.global_batch_samples
    if batch % world_size:
        raise UsageError(
            "GlobalBatchNotDivisible",
            f"the global batch of {batch} samples cannot be shared equally by {world_size} processes",
            f"choose a multiple of {world_size}, e.g. {-(-batch // world_size) * world_size}",
        )
    share = batch // world_size
    micro = settings.micro_batch_samples or _largest_micro_batch(share, sequence_length)
    if share % micro:
        raise UsageError(
            "MicroBatchNotDivisible",
            f"each of {world_size} processes has {share} of {batch} samples, no multiple of the micro batch {micro}",
            f"choose a micro batch out of {', '.join(map(str, _divisors(share)))}, or leave it out",
        )
    return BatchPlan(world_size, micro, share // micro)


def _largest_micro_batch(share: int, sequence_length: int) -> int:
    most = max(1, MICRO_BATCH_TOKENS // sequence_length)
    return max(size for size in _divisors(share) if size <= most)


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
