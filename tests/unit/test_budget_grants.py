"""One budget for several shards: together they never have more than it, and what one does not need another can use."""

from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nativealign_workloads.engines.budget import Budget, BudgetExhausted, Limits, Prices, Spent, Tokens, money, price
from nativealign_workloads.engines.grants import OF_A_SHARD, Grants
from nativealign_workloads.store import LocalStore


def opened(folder: str | Path, shard: int, shards: int, limits: Limits) -> Grants:
    return Grants(LocalStore(Path(folder)), "budget", shard, shards, limits)


def spend(grants: Grants, requests: int, tokens: int = 1) -> int:
    """How many of so many requests the budget has room for."""
    budget = Budget(grants.limits, more=grants.more)
    for number in range(requests):
        if not budget.fits(Tokens(tokens, 0)):
            return number
        budget.reserve(Tokens(tokens, 0))
        budget.settle(Tokens(tokens, 0), Tokens(tokens, 0))
    return requests


@settings(max_examples=40)
@given(st.integers(1, 60), st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_shards_together_have_the_budget_and_no_more(limit: int, needs: list[int]) -> None:
    with TemporaryDirectory() as folder:
        spent = [spend(opened(folder, shard, len(needs), Limits(limit)), need) for shard, need in enumerate(needs)]
        assert sum(spent) <= limit
        held = [opened(folder, shard, len(needs), Limits(limit)).limits[0] or 0 for shard in range(len(needs))]
        assert sum(held) <= limit
        if sum(spent) < sum(needs):
            assert sum(held) == limit, "nothing was free when a shard was refused"
        lost = -(-limit // (OF_A_SHARD * len(needs))) * len(needs)
        assert sum(spent) >= min(limit - lost, sum(needs))


def test_a_shard_alone_may_use_what_the_others_have_not_taken(tmp_path: Path) -> None:
    assert spend(opened(tmp_path, 0, 4, Limits(100)), 10) == 10
    taken = opened(tmp_path, 0, 4, Limits(100)).limits[0]
    assert taken == 12  # three grants of 4
    assert spend(opened(tmp_path, 3, 4, Limits(100)), 1000) == 100 - taken
    assert spend(opened(tmp_path, 1, 4, Limits(100)), 1) == 0


def test_a_shard_that_was_killed_has_what_it_had(tmp_path: Path) -> None:
    spend(opened(tmp_path, 0, 2, Limits(16, 1600)), 5, tokens=90)
    assert opened(tmp_path, 0, 2, Limits(16, 1600)).limits == Limits(5, 500)
    assert opened(tmp_path, 1, 2, Limits(32, 1600)).limits == Limits(0, 0)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_a_raised_budget_is_found_whatever_was_taken_before(limits: list[int], needs: list[int]) -> None:
    """Each limit is higher or lower than the one before; every shard goes on where it stopped, until all have what they need."""
    with TemporaryDirectory() as folder:
        spent = [0] * len(needs)
        for limit in [*limits, 10_000]:
            for shard, need in enumerate(needs):
                grants = opened(folder, shard, len(needs), Limits(limit))
                budget = Budget(grants.limits, spent=Spent(spent[shard]), more=grants.more)
                while spent[shard] < need and budget.fits(Tokens(1, 0)):
                    budget.reserve(Tokens(1, 0))
                    budget.settle(Tokens(1, 0), Tokens(1, 0))
                    spent[shard] += 1
            assert sum(spent) <= max([*limits, 0] if limit != 10_000 else [10_000])
        assert spent == needs


def test_a_lower_budget_is_less_for_all(tmp_path: Path) -> None:
    assert spend(opened(tmp_path, 0, 2, Limits(32)), 8) == 8
    assert spend(opened(tmp_path, 1, 2, Limits(16)), 1000) == 12
    assert opened(tmp_path, 0, 2, Limits(16)).limits == Limits(4)


@pytest.mark.parametrize("limits", [Limits(3, 8000), Limits(3), Limits(tokens=8000)])
def test_few_requests_and_many_tokens_are_found_among_the_grants_of_all(limits: Limits, tmp_path: Path) -> None:
    assert spend(opened(tmp_path, 7, 10, limits), 3, tokens=2000) == 3


def test_a_request_that_has_no_room_in_the_whole_budget_is_refused(tmp_path: Path) -> None:
    grants = opened(tmp_path, 0, 3, Limits(tokens=500))
    with pytest.raises(BudgetExhausted, match="0 of 500 tokens"):
        Budget(grants.limits, more=grants.more).reserve(Tokens(500, 1))


def test_nothing_is_taken_from_others_before_it_is_known_what_requests_under_way_take(tmp_path: Path) -> None:
    grants = opened(tmp_path, 0, 2, Limits(tokens=160))
    budget = Budget(grants.limits, more=grants.more)
    budget.reserve(Tokens(80, 0))
    assert not budget.fits(Tokens(10, 0))
    budget.settle(Tokens(80, 0), Tokens(75, 0))
    assert budget.fits(Tokens(10, 0))
    assert opened(tmp_path, 0, 2, Limits(tokens=160)).limits == Limits(tokens=90)


def test_without_limits_nothing_is_written(tmp_path: Path) -> None:
    assert spend(opened(tmp_path, 0, 3, Limits()), 50) == 50
    assert not list(tmp_path.iterdir())


PRICES = Prices(10, 30)
TOKENS = st.builds(Tokens, st.integers(0, 50), st.integers(0, 50))


@given(st.integers(1, 20_000), st.lists(st.tuples(TOKENS, st.floats(0, 1)), max_size=30))
def test_money_is_never_passed_and_refused_only_where_the_highest_cost_has_no_room(
    limit: int, asked: list[tuple[Tokens, float]]
) -> None:
    budget = Budget(Limits(money=limit), PRICES)
    for highest, part in asked:
        before = budget.spent.money
        if not budget.fits(highest):
            assert before + PRICES.cost(highest) > limit
            continue
        budget.reserve(highest)
        budget.settle(highest, Tokens(int(highest.prompt * part), int(highest.answer * part)))
        assert before <= budget.spent.money <= limit


def test_prompts_cost_what_prompts_cost() -> None:
    budget = Budget(Limits(money=money(Decimal("0.001"))), Prices(price(Decimal("0.5")), price(Decimal(30))))
    budget.reserve(Tokens(1900, 1))
    budget.settle(Tokens(1900, 1), Tokens(1900, 1))
    assert not budget.fits(Tokens(40, 1))
    assert budget.fits(Tokens(39, 0))
    with pytest.raises(BudgetExhausted, match=r"0\.00 of 0\.00 US dollars"):
        budget.reserve(Tokens(0, 10))
