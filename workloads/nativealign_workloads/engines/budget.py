"""A hard limit on what an expert may cost. Called by the HTTP engine before and after every request that leaves the machine."""

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from nativealign_workloads.errors import ConfigError

MICRO = 10**6
"""Money is counted in whole numbers, 10^12 to the dollar: a millionth of a dollar for a million tokens is 1 for each."""


class Tokens(NamedTuple):
    """Of a request, and of the answer to it."""

    prompt: int
    answer: int

    @property
    def total(self) -> int:
        return self.prompt + self.answer


class Prices(NamedTuple):
    """Of one token, in 10^-12 dollars."""

    prompt: int = 0
    answer: int = 0

    def cost(self, tokens: Tokens) -> int:
        return tokens.prompt * self.prompt + tokens.answer * self.answer

    @property
    def higher(self) -> int:
        return max(self)


class Limits(NamedTuple):
    """The most that may be spent; None is no limit."""

    requests: int | None = None
    tokens: int | None = None
    money: int | None = None
    """In 10^-12 dollars."""


class Spent(NamedTuple):
    """What was spent, or is about to be."""

    requests: int = 0
    tokens: int = 0
    money: int = 0


Short = tuple[bool, bool, bool]
"""Of which of the three there is too little."""
NO_LIMITS, NO_PRICES, NOTHING = Limits(), Prices(), Spent()


class BudgetExhausted(ConfigError):
    """The next request would pass the limit."""

    def __init__(self, message: str) -> None:
        super().__init__("BudgetExhausted", message, "raise the expert's budget and start again")


class Budget:
    """Requests, tokens and money that may be spent.

    A request first reserves its estimate, so that concurrent requests cannot pass the limit together, and then settles what it
    really took. `spent` carries over what an earlier attempt has spent. `more` gives higher limits, where there are any, once these
    are reached: of one's own, or also of others.
    """

    def __init__(
        self,
        limits: Limits = NO_LIMITS,
        prices: Prices = NO_PRICES,
        *,
        spent: Spent = NOTHING,
        more: Callable[[Short, bool], Limits | None] = lambda short, others: None,
    ) -> None:
        self._limits, self._prices, self._more = limits, prices, more
        self._reserved = Spent()
        self.spent = spent

    @property
    def under_way(self) -> bool:
        """Whether a reservation is open."""
        return self._reserved.requests > 0

    def fits(self, highest: Tokens) -> bool:
        """Whether one more request with this estimate stays within all limits.

        What is under way may turn out cheaper than its estimate, so nothing is taken from others before that is known.
        """
        return self._has_room(highest, others=not self.under_way)

    def _has_room(self, highest: Tokens, *, others: bool) -> bool:
        while any(short := self._short(highest)):
            limits = self._more(short, others)
            if limits is None:
                return False
            self._limits = limits
        return True

    def _short(self, highest: Tokens) -> Short:
        after = Spent(
            self.spent.requests + 1,
            self.spent.tokens + self._reserved.tokens + highest.total,
            self.spent.money + self._reserved.money + self._prices.cost(highest),
        )
        requests, tokens, money = (limit is not None and value > limit for value, limit in zip(after, self._limits, strict=True))
        return requests, tokens, money

    def reserve(self, highest: Tokens) -> None:
        """Takes one request and its estimate. Raises BudgetExhausted, and takes nothing, when they do not fit."""
        if not self._has_room(highest, others=True):
            raise BudgetExhausted(self._told(highest))
        self.spent = self.spent._replace(requests=self.spent.requests + 1)
        self._reserve(1, highest)

    def settle(self, reserved: Tokens, used: Tokens) -> None:
        """Gives a reservation back and books what was used."""
        self._reserve(-1, reserved)
        money = self.spent.money + self._prices.cost(used)
        self.spent = Spent(self.spent.requests, self.spent.tokens + used.total, money)

    def _reserve(self, sign: int, tokens: Tokens) -> None:
        amounts = (1, tokens.total, self._prices.cost(tokens))
        self._reserved = Spent(*(held + sign * amount for held, amount in zip(self._reserved, amounts, strict=True)))

    def _told(self, highest: Tokens) -> str:
        requests, tokens = ("unlimited" if limit is None else limit for limit in self._limits[:2])
        money = (
            "" if self._limits.money is None else f" and {_dollars(self.spent.money)} of {_dollars(self._limits.money)} US dollars"
        )
        return (
            f"spent {self.spent.requests} of {requests} requests and {self.spent.tokens} of {tokens} tokens{money} "
            f"({self._reserved.tokens} tokens more under way), all that this shard could get of the budget; "
            f"the next request may take {highest.total} tokens"
        )


def money(dollars: Decimal) -> int:
    """In 10^-12 dollars."""
    return int(dollars * MICRO * MICRO)


def price(dollars_per_million: Decimal | None) -> int:
    """Of one token, in 10^-12 dollars; 0 where none is given."""
    return int((dollars_per_million or 0) * MICRO)


def _dollars(amount: int) -> str:
    return f"{amount / MICRO / MICRO:.2f}"
