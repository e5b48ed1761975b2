"""Pacing of requests: rates per minute and waits between attempts. Called by the HTTP engine; clock and sleep are the caller's."""

import asyncio
import email.utils
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]

MAX_RETRY_AFTER = 600.0
"""Seconds. A server that asks for more is answered after this."""
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")


class Pace:
    """Spreads amounts evenly so that no minute sees more than `per_minute`; None is no limit.

    A provider's bucket may be smaller than a minute, so there is no burst beyond one request.
    """

    def __init__(self, per_minute: float | None, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep) -> None:
        self._seconds_each = 60.0 / per_minute if per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._free_at = clock()

    async def take(self, amount: float) -> None:
        """Waits for its turn, then occupies the time that `amount` costs."""
        turn = max(self._free_at, self._clock())
        self._free_at = turn + amount * self._seconds_each
        if (wait := turn - self._clock()) > 0:
            await self._sleep(wait)

    def give_back(self, amount: float) -> None:
        """Frees what was taken and not used."""
        self._free_at -= amount * self._seconds_each

    def hold(self, seconds: float) -> None:
        """Lets nobody start for so long, e.g. because the server said so."""
        self._free_at = max(self._free_at, self._clock() + seconds)

    def adapt(self, seconds_each: float) -> None:
        """From now on each costs so much, and the next may start after that; 0.0 is no limit."""
        self._seconds_each = seconds_each
        self.hold(seconds_each)


class Backoff:
    """Seconds to wait before attempt 2, 3, ...: 1, 2, 4, ... to `cap`, each times a random half to whole, at least Retry-After."""

    def __init__(self, first: float = 1.0, cap: float = 60.0, seed: int = 0) -> None:
        self._first, self._cap, self._random = first, cap, random.Random(seed)

    def wait(self, failed_attempts: int, retry_after: float | None) -> float:
        longest = min(self._cap, self._first * 2.0 ** min(failed_attempts - 1, 30))
        jittered = longest * (0.5 + 0.5 * self._random.random())
        return max(jittered, min(retry_after or 0.0, MAX_RETRY_AFTER))


def refill_seconds(headers: Mapping[str, str], tokens: int) -> float:
    """How long until the endpoint has room for a request of so many tokens; 0.0 where it has, or does not say.

    By the headers that OpenAI and many others send with each answer: `x-ratelimit-limit-…`, `-remaining-…` and `-reset-…` of
    requests and of tokens. A bucket fills evenly, from what remains now to its limit when it is reset.
    """
    return max(_refill(headers, "requests", 1), _refill(headers, "tokens", tokens))


def _refill(headers: Mapping[str, str], what: str, needed: int) -> float:
    limit, remaining, reset = (headers.get(f"x-ratelimit-{name}-{what}", "").strip() for name in ("limit", "remaining", "reset"))
    if not (limit.isdecimal() and remaining.isdecimal()) or int(remaining) >= min(needed, int(limit)):
        return 0.0
    missing = min(needed, int(limit)) - int(remaining)
    return min(MAX_RETRY_AFTER, _duration(reset) * missing / (int(limit) - int(remaining)))


def _duration(text: str) -> float:
    """Seconds of a duration as Go writes it ("6m0s", "20ms"), or of a bare number; 0.0 for anything else."""
    parts = _DURATION.findall(text)
    if parts and "".join(f"{number}{unit}" for number, unit in parts) == text:
        return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds or as an HTTP date (RFC 9110, 10.2.3); None when absent or unreadable."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
