"""What becomes of the Lease and of the loops where one of them ends in a way that nobody has foreseen."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from kopf._cogs.structs.references import Insights, Resource

from nativealign_operator import main, shell
from nativealign_operator.cluster import ApiError
from nativealign_operator.health import Health
from nativealign_operator.main import Leading
from nativealign_operator.metrics import Metrics
from nativealign_operator.settings import OperatorSettings

SETTINGS = OperatorSettings(image="registry.example/workloads", namespace="operators", identity="one")


@dataclass
class Empty:
    """An apiserver that has nothing."""

    denied: set[str] = field(default_factory=set)
    """Namespaces in which nothing may be listed."""

    async def pages(self, path: str, *_: str) -> AsyncIterator[dict[str, Any]]:
        if path.split("/")[-2] in self.denied:
            raise ApiError(403, "Forbidden", path)
        yield {"metadata": {"resourceVersion": "1"}, "items": []}


async def cancelled(*_: Any) -> None:
    """As whatever waits for a task that kopf cancels, because it did not know it."""
    raise asyncio.CancelledError


async def stopped(_cache: Any, _notice: Any, _namespaces: Any, _identity: str, stop: asyncio.Event, _signals: Any) -> None:
    await stop.wait()


def lead(cluster: Empty, settings: OperatorSettings = SETTINGS) -> None:
    """Until something ends it."""

    async def run() -> None:
        leading = Leading(cluster, settings, Metrics(), Health(), lambda: None)  # type: ignore[arg-type]
        await asyncio.wait_for(leading.run(), 60)

    asyncio.run(run())


def test_a_loop_that_was_cancelled_starts_everything_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "watch", stopped)
    monkeypatch.setattr(Leading, "_progress", cancelled)
    with pytest.raises(RuntimeError, match="cancelled"):
        lead(Empty())


def test_a_namespace_that_is_gone_holds_up_no_other_and_is_watched_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, watched = Empty({"gone"}), []

    async def watch(cache: Any, notice: Any, namespaces: tuple[str, ...], *others: Any) -> None:
        watched.append(namespaces)
        cluster.denied.clear()
        await stopped(cache, notice, namespaces, *others)

    monkeypatch.setattr(shell, "watch", watch)
    settings = SETTINGS.model_copy(update={"watch_namespaces": ("a", "gone", "b"), "resync_seconds": 0})
    for _ in range(2):
        with pytest.raises(RuntimeError, match="namespaces"):
            lead(cluster, settings)
        cluster.denied.add("b")
    assert watched == [("a", "b"), ("a", "gone")]


def test_where_no_namespace_may_be_listed_nothing_is_watched() -> None:
    with pytest.raises(ApiError):
        lead(Empty({"a"}), SETTINGS.model_copy(update={"watch_namespaces": ("a",)}))


@pytest.mark.parametrize("missing", ["alignjobs", "pods"])
def test_watches_that_lack_a_kind_are_started_again(missing: str) -> None:
    async def check() -> None:
        insights = Insights()
        plurals = {"alignjobs", "pretrainjobs", "evaljobs", "jobs", "pods"} - {missing}
        insights.watched_resources.update(Resource(group="g", version="v1", plural=plural) for plural in plurals)
        insights.ready_resources.set()
        await shell._check_kinds(insights)

    with pytest.raises(RuntimeError, match=missing):
        asyncio.run(asyncio.wait_for(check(), 60))


def test_kopf_kills_no_process_that_goes_on() -> None:
    """It would, ten minutes after its watches have ended."""
    assert shell.settings().process.ultimate_exiting_timeout is None


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
