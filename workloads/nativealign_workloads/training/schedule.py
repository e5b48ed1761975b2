"""The learning rate as a pure function of the step; `loop` sets it before each optimiser step, so no state is kept."""

import math

from nativealign_workloads.training.settings import TrainingSettings


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Rate of the step with number `step`, 0 <= step < total_steps.

    All schedules rise linearly over the warm-up; its first step already trains. Cosine (arXiv 1608.03983) then falls
    to the lowest rate at the last step; WarmupStableDecay stays and falls by 1 - sqrt at the end
    (arXiv 2405.18392, section 3); Constant stays.
    """
    warmup = round(settings.total_steps * settings.warmup_percent / 100)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "Cosine":
        share = (1 + math.cos(math.pi * _passed(step, warmup, settings.total_steps))) / 2
    elif settings.schedule == "WarmupStableDecay":
        decay = max(warmup, settings.total_steps - round(settings.total_steps * settings.decay_percent / 100))
        share = 1 - math.sqrt(_passed(step, decay, settings.total_steps)) if step >= decay else 1.0
    else:
        return settings.learning_rate
    lowest = settings.min_learning_rate_ratio
    return settings.learning_rate * (lowest + (1 - lowest) * share)


def _passed(step: int, start: int, end: int) -> float:
    """Share of [start, end) that has passed with this step: 0 at start, 1 at the last step."""
    return (step - start) / max(1, end - 1 - start)
