"""How far running children are: asked from their pods, kept in memory. An answer is never needed; without one none is shown.

A pod serves `/progress` on PROGRESS_PORT while it runs; what it says is checked and bounded, since pods run users' models. A pod
that takes the connection and does not answer stands still as far as can be told; of one that cannot be reached nothing is known.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
from pydantic import BaseModel, Field, ValidationError

from nativealign_api.kinds import JobObject
from nativealign_api.plan import plan
from nativealign_api.steps import Form
from nativealign_api.vocabulary import PROGRESS_PORT
from nativealign_operator.cache import Key
from nativealign_operator.seen import Child, Pod, Progress

SAMPLED_PODS = 16
"""Indexes of a sharded phase that are asked; of a gang, rank 0 alone."""
TIMEOUT = aiohttp.ClientTimeout(sock_connect=2.0, total=4.0)
LARGEST_ANSWER = 64 * 1024
AT_ONCE = 32
"""Pods that are asked at the same time."""


class Said(BaseModel):
    """What a pod says; further fields are ignored."""

    done: int = Field(ge=0)
    total: int = Field(ge=0)
    alive: int = Field(default=0, ge=0)
    percent: float | None = Field(default=None, ge=0, le=100)
    etaSeconds: float | None = Field(default=None, ge=0, le=10**10)

    def is_further(self, before: "Said") -> bool:
        """Whether the pod has done more, or has given a sign of life where nothing can be counted."""
        return (self.done, self.alive) != (before.done, before.alive)


@dataclass
class _Watched:
    """A running child, and what its pods said last."""

    child: Child
    indexes: int
    gang: bool
    said: dict[str, Said]
    changed: datetime
    asked: datetime
    """When any of the pods last took a connection, at first when the child was newly seen."""

    def sampled(self) -> list[Pod]:
        pods = [pod for pod in self.child.pods if pod.phase == "Running" and pod.address]
        return pods[:1] if self.gang else pods[:SAMPLED_PODS]

    def progress(self) -> Progress:
        """Of the whole phase: finished indexes count fully, running ones as the sampled say on average."""
        if not self.said:
            return Progress(None, None, self.changed, self.asked)
        running = [pod for pod in self.child.pods if pod.phase == "Running"]
        mean = sum(said.percent or 0.0 for said in self.said.values()) / len(self.said)
        etas = [said.etaSeconds for said in self.said.values() if said.etaSeconds is not None]
        if self.gang:
            return Progress(mean, max(etas, default=None), self.changed, self.asked)
        percent = (100.0 * self.child.succeeded + mean * len(running)) / self.indexes
        rounds = (self.indexes - self.child.succeeded) / max(1, len(running))
        eta = max(etas) * max(1.0, rounds) if etas else None
        return Progress(min(100.0, percent), eta, self.changed, self.asked)


class ProgressBoard:
    """What is known of all running children."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._watched: dict[Key, _Watched] = {}

    def watch(self, key: Key, job: JobObject, running: Iterable[Child]) -> None:
        """A job's running child, newly seen; none takes the job off the board."""
        child = next(iter(running), None)
        if child is None:
            self._watched.pop(key, None)
            return
        known = self._watched.get(key)
        if known and known.child.uid == child.uid:
            if child.succeeded > known.child.succeeded:
                known.changed = self._clock()
            known.child = child
            return
        phases = plan(job.kind, job.spec, job.status.pinned).step(child.step).phases
        phase = next(phase for phase in phases if phase.name == child.phase)
        now = self._clock()
        self._watched[key] = _Watched(child, phase.indexes, phase.form is Form.GANG, {}, now, now)

    def forget(self, key: Key) -> None:
        self._watched.pop(key, None)

    def of(self, key: Key) -> dict[str, Progress]:
        """Progress of the job's child, by its name."""
        watched = self._watched.get(key)
        return {watched.child.name: watched.progress()} if watched else {}

    async def poll(self, session: aiohttp.ClientSession, beat: Callable[[], None]) -> list[Key]:
        """Asks every running child once; returns the jobs of which there is news, and those that came no further.

        Calls `beat` after each: many pods that take no connection make a round long.
        """
        limit = asyncio.Semaphore(AT_ONCE)
        keys = list(self._watched)
        news = await asyncio.gather(*(self._poll_one(session, limit, key, beat) for key in keys))
        return [key for key, new in zip(keys, news, strict=True) if new]

    async def _poll_one(self, session: aiohttp.ClientSession, limit: asyncio.Semaphore, key: Key, beat: Callable[[], None]) -> bool:
        watched = self._watched.get(key)
        if watched is None:
            return False
        pods = watched.sampled()
        answers = await asyncio.gather(*(_ask(session, limit, pod) for pod in pods))
        beat()
        if not any(heard for heard, _ in answers):
            return False
        said = {pod.uid: answer for pod, (_, answer) in zip(pods, answers, strict=True) if answer}
        moved = any(uid not in watched.said or answer.is_further(watched.said[uid]) for uid, answer in said.items())
        watched.asked = self._clock()
        if moved:
            watched.changed = watched.asked
        news = said != watched.said
        watched.said = said or watched.said
        return news or not moved


async def _ask(session: aiohttp.ClientSession, limit: asyncio.Semaphore, pod: Pod) -> tuple[bool, Said | None]:
    """Whether the pod took the connection, and what it said."""
    url = f"http://{f'[{pod.address}]' if ':' in str(pod.address) else pod.address}:{PROGRESS_PORT}/progress"
    try:
        async with limit, session.get(url, timeout=TIMEOUT, allow_redirects=False) as answer:
            content = await answer.content.read(LARGEST_ANSWER + 1)
        return True, None if len(content) > LARGEST_ANSWER else Said.model_validate(json.loads(content))
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        return False, None
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, ValidationError):
        return True, None
