"""A hard limit on what an expert may cost. Called by the HTTP engine before and after every request that leaves the machine."""

from collections.abc import Callable

from nativealign_workloads.errors import ConfigError

Limits = tuple[int | None, int | None]
"""Requests and tokens (prompt and completion); None is no limit."""
Short = tuple[bool, bool]
"""Of which of the two there is too little."""


class BudgetExhausted(ConfigError):
    """The next request would pass the limit."""

    def __init__(self, message: str) -> None:
        super().__init__("BudgetExhausted", message, "raise the expert's budget and start again")


class Budget:
    """Requests and tokens that may be spent.

    A request first reserves its estimate, so that concurrent requests cannot pass the limit together, and then settles what it
    really took. `spent_requests` and `spent_tokens` carry over what an earlier attempt has spent. `more` gives higher limits, where
    there are any, once these are reached: of one's own, or also of others.
    """

    def __init__(
        self,
        requests: int | None = None,
        tokens: int | None = None,
        *,
        spent_requests: int = 0,
        spent_tokens: int = 0,
        more: Callable[[Short, bool], Limits | None] = lambda short, others: None,
    ) -> None:
        self._limits: Limits = (requests, tokens)
        self._more = more
        self._reserved = 0
        self.spent_requests, self.spent_tokens = spent_requests, spent_tokens

    @property
    def under_way(self) -> bool:
        """Whether a reservation is open."""
        return self._reserved > 0

    def fits(self, tokens: int) -> bool:
        """Whether one more request with this estimate stays within both limits.

        What is under way may turn out cheaper than its estimate, so nothing is taken from others before that is known.
        """
        return self._has_room(tokens, others=not self.under_way)

    def _has_room(self, tokens: int, *, others: bool) -> bool:
        while any(short := self._short(tokens)):
            limits = self._more(short, others)
            if limits is None:
                return False
            self._limits = limits
        return True

    def _short(self, tokens: int) -> Short:
        max_requests, max_tokens = self._limits
        short_of_requests = max_requests is not None and self.spent_requests >= max_requests
        return short_of_requests, max_tokens is not None and self.spent_tokens + self._reserved + tokens > max_tokens

    def reserve(self, tokens: int) -> None:
        """Takes one request and an estimate of its tokens. Raises BudgetExhausted, and takes nothing, when they do not fit."""
        if not self._has_room(tokens, others=True):
            max_requests, max_tokens = ("unlimited" if limit is None else limit for limit in self._limits)
            raise BudgetExhausted(
                f"spent {self.spent_requests} of {max_requests} requests and {self.spent_tokens} of {max_tokens} tokens "
                f"({self._reserved} more under way), all that this shard could get of the budget; "
                f"the next request may take {tokens} tokens"
            )
        self.spent_requests += 1
        self._reserved += tokens

    def settle(self, reserved: int, used: int) -> None:
        """Gives a reservation back and books what was used."""
        self._reserved -= reserved
        self.spent_tokens += used
