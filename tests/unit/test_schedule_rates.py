from itertools import pairwise

import pytest

from nativealign_workloads.errors import UsageError
from nativealign_workloads.training.schedule import learning_rate
from nativealign_workloads.training.settings import TrainingSettings, batch_plan


def settings(**changes: object) -> TrainingSettings:
    base = {"total_steps": 100, "global_batch_samples": 8, "learning_rate": 1.0, "warmup_percent": 10}
    return TrainingSettings(**{**base, **changes})


@pytest.mark.parametrize("schedule", ["Cosine", "Constant", "WarmupStableDecay"])
def test_every_schedule_rises_linearly_to_the_peak(schedule: str) -> None:
    rates = [learning_rate(step, settings(schedule=schedule)) for step in range(10)]
    assert rates == pytest.approx([0.1 * (step + 1) for step in range(10)])


def test_cosine_falls_to_the_lowest_rate_at_the_last_step() -> None:
    rates = [learning_rate(step, settings(min_learning_rate_ratio=0.1)) for step in range(100)]
    assert rates[10] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in pairwise(rates[9:]))


def test_warmup_stable_decay_stays_and_then_falls() -> None:
    chosen = settings(schedule="WarmupStableDecay", decay_percent=20, min_learning_rate_ratio=0.0)
    rates = [learning_rate(step, chosen) for step in range(100)]
    assert rates[10:80] == [1.0] * 70
    assert rates[99] == pytest.approx(0.0)
    assert rates[81] < 1.0


def test_a_constant_schedule_stays_at_the_peak() -> None:
    assert {learning_rate(step, settings(schedule="Constant")) for step in range(10, 100)} == {1.0}


def test_a_run_of_one_step_has_a_rate() -> None:
    for schedule in ("Cosine", "Constant", "WarmupStableDecay"):
        assert learning_rate(0, settings(schedule=schedule, total_steps=1, warmup_percent=0)) == pytest.approx(1.0)


@pytest.mark.parametrize(("world", "micro"), [(1, None), (2, None), (8, None), (2, 2)])
def test_micro_batches_make_up_the_global_batch(world: int, micro: int | None) -> None:
    plan = batch_plan(settings(micro_batch_samples=micro), world, 4096)
    assert plan.micro * plan.accumulation * world == 8
    assert plan.micro * 4096 <= 16_384


def test_a_global_batch_that_the_processes_cannot_share_is_refused_with_a_size_that_works() -> None:
    with pytest.raises(UsageError, match=r"8 samples cannot be shared equally by 3 processes.*e\.g\. 9"):
        batch_plan(settings(), 3, 128)


def test_a_micro_batch_that_does_not_divide_is_refused_with_those_that_do() -> None:
    with pytest.raises(UsageError, match=r"no multiple of the micro batch 3.*1, 2, 4"):
        batch_plan(settings(micro_batch_samples=3), 2, 128)
