import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nativealign_workloads.errors import DataError, NoInputError, UsageError
from nativealign_workloads.training.mix import Mix, Source, permuted

WEIGHTS = st.lists(st.integers(1, 60), min_size=1, max_size=6)


def repeating(weights: list[float]) -> list[Source]:
    return [Source(f"s{i}", 7 + i, weight) for i, weight in enumerate(weights)]


@given(weights=WEIGHTS, seed=st.integers(0, 9))
def test_every_source_stays_within_one_sample_of_its_weight(weights: list[int], seed: int) -> None:
    mix, taken, total = Mix(repeating(weights), seed), Counter(), sum(weights)
    for n in range(3 * total):
        taken[mix.locate(n).source] += 1
        for i, weight in enumerate(weights):
            assert abs(taken[f"s{i}"] - (n + 1) * weight / total) <= 1


@given(weights=WEIGHTS, samples=st.integers(0, 400))
def test_counts_say_what_locate_gives(weights: list[int], samples: int) -> None:
    mix = Mix(repeating(weights), seed=1)
    drawn = Counter(mix.locate(n).source for n in range(samples))
    assert mix.counts(samples) == {source.name: drawn[source.name] for source in mix.sources}


@given(size=st.integers(1, 3000), key=st.text(max_size=5))
def test_an_epoch_visits_every_row_once(size: int, key: str) -> None:
    assert sorted(permuted(position, size, key) for position in range(size)) == list(range(size))


def test_epochs_and_seeds_have_different_orders() -> None:
    mix = Mix([Source("a", 50, 1.0)], seed=1)
    epochs = [[mix.locate(n).row for n in range(e * 50, e * 50 + 50)] for e in range(3)]
    other = [Mix([Source("a", 50, 1.0)], seed=2).locate(n).row for n in range(50)]
    orders = {tuple(order) for order in [*epochs, other]}
    assert len(orders) == 4
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert [mix.locate(n).epoch for n in (0, 49, 50, 149)] == [0, 0, 1, 2]


@given(world=st.integers(1, 5), batch=st.integers(1, 4))
def test_any_number_of_processes_sees_the_same_samples(world: int, batch: int) -> None:
    mix = Mix(repeating([3, 1]), seed=5)
    per_rank = [
        [Mix(repeating([3, 1]), 5).locate(step * world * batch + rank * batch + i) for step in range(4) for i in range(batch)]
        for rank in range(world)
    ]
    assert Counter(place for part in per_rank for place in part) == Counter(mix.locate(n) for n in range(4 * world * batch))


def test_weights_are_read_as_they_are_written() -> None:
    mix = Mix([Source("a", 10, 0.1), Source("b", 10, 0.2), Source("c", 10, 0.7)], seed=0)
    assert mix.counts(10) == {"a": 1, "b": 2, "c": 7}
    assert mix.counts(10**9) == {"a": 10**8, "b": 2 * 10**8, "c": 7 * 10**8}


def test_odd_weights_are_honoured_over_long_runs() -> None:
    weights = [1 / 3, math.pi, 1e-4]
    counts = Mix([Source(str(i), 10, weight) for i, weight in enumerate(weights)], seed=0).counts(100_000)
    for i, weight in enumerate(weights):
        assert abs(counts[str(i)] - 100_000 * weight / sum(weights)) <= 1


@given(
    limits=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 3), st.integers(1, 9)), min_size=1, max_size=4),
    seed=st.integers(0, 3),
)
def test_renormalise_uses_every_source_up_to_its_last_sample(limits: list[tuple[int, int, int]], seed: int) -> None:
    sources = [Source(f"s{i}", size, weight, "Renormalise", max_epochs=epochs) for i, (size, epochs, weight) in enumerate(limits)]
    mix = Mix(sources, seed)
    assert mix.length == sum(source.limit for source in sources)
    places = Counter((place.source, place.row) for place in map(mix.locate, range(int(mix.length))))
    assert places == {(source.name, row): source.max_epochs for source in sources for row in range(source.samples)}
    assert mix.counts(int(mix.length)) == {source.name: source.limit for source in sources}


def test_after_an_exhaustion_the_others_share_by_their_weights() -> None:
    mix = Mix([Source("a", 10, 2, "Renormalise"), Source("b", 5, 1), Source("c", 5, 1)], seed=0)
    assert mix.counts(20) == {"a": 10, "b": 5, "c": 5}
    assert mix.counts(120) == {"a": 10, "b": 55, "c": 55}


def test_max_samples_and_parts_of_an_epoch_limit_a_source() -> None:
    assert Source("a", 10, 1, "Fail", max_samples=25).limit == 25
    assert Source("a", 10, 1, "Fail", max_epochs=1.5).limit == 15
    assert Source("a", 10, 1, "Fail", max_epochs=2, max_samples=5).limit == 5


def test_fail_ends_the_run_before_it_starts_and_names_the_source() -> None:
    mix = Mix([Source("web", 10, 1, "Fail"), Source("books", 100, 1)], seed=0)
    mix.require(int(mix.length))
    with pytest.raises(DataError, match="needs 30 samples, but web can give no more after sample"):
        mix.require(30)
    with pytest.raises(DataError, match="MixExhausted"):
        mix.locate(30)


def test_contradictions_are_refused() -> None:
    with pytest.raises(UsageError, match="MixContradiction"):
        Mix([Source("a", 10, 1, "Repeat", max_epochs=2)], seed=0)
    with pytest.raises(UsageError, match="weight 0"):
        Mix([Source("a", 10, 0)], seed=0)
    with pytest.raises(NoInputError, match="source a has no samples"):
        Mix([Source("a", 0, 1)], seed=0)
    with pytest.raises(UsageError, match="MixNames"):
        Mix([Source("a", 1, 1), Source("a", 1, 1)], seed=0)
