"""What becomes of the Lease and of the loops where one of them ends in a way that nobody has foreseen."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from nativealign_operator import main, shell
from nativealign_operator.health import Health
from nativealign_operator.main import Leading
from nativealign_operator.metrics import Metrics
from nativealign_operator.settings import OperatorSettings

SETTINGS = OperatorSettings(image="registry.example/workloads", namespace="operators", identity="one")


class Empty:
    """An apiserver that has nothing."""

    async def pages(self, *_: str) -> AsyncIterator[dict[str, Any]]:
        yield {"metadata": {"resourceVersion": "1"}, "items": []}


async def cancelled(*_: Any) -> None:
    """As whatever waits for a task that kopf cancels, because it did not know it."""
    raise asyncio.CancelledError


async def stopped(_cache: Any, _notice: Any, _settings: Any, stop: asyncio.Event, _signals: Any) -> None:
    await stop.wait()


def test_a_loop_that_was_cancelled_starts_everything_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "watch", stopped)
    monkeypatch.setattr(Leading, "_progress", cancelled)
    metrics = Metrics()

    async def lead_once() -> None:
        leading = Leading(Empty(), SETTINGS, metrics, Health(), lambda: None)  # type: ignore[arg-type]
        await asyncio.wait_for(leading.run(), 60)

    with pytest.raises(RuntimeError, match="cancelled"):
        asyncio.run(lead_once())


class Won:
    """A Lease that is always ours, twice."""

    is_held_by_another = False
    terms = 0

    async def acquire(self, _beat: Callable[[], None]) -> None:
        self.terms += 1
        if self.terms == 3:
            raise StopAsyncIteration

    async def hold(self, _beat: Callable[[], None]) -> None:
        await asyncio.Event().wait()


def test_whoever_leads_no_more_does_not_keep_the_lease() -> None:
    lease = Won()
    campaign = main._campaign(lease, Health(), Metrics(), SETTINGS, cancelled)  # type: ignore[arg-type]
    with pytest.raises(StopAsyncIteration):
        asyncio.run(asyncio.wait_for(campaign, 60))
