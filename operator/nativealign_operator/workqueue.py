"""A de-duplicating work queue with delays, as client-go has it: a key waits once, and is never worked on twice at the same time."""

import asyncio
import contextlib
import heapq
import itertools
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
FIRST_SECONDS, LONGEST_SECONDS = 0.5, 60.0
"""Back-off of a key whose work failed; doubles, with jitter."""
SUPERSEDED = 100
"""Times that count no more and may be kept beside as many as count."""


class WorkQueue(Generic[Key]):
    """Keys to work on. All methods belong to one event loop."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or asyncio.get_running_loop().time
        self._ready: OrderedDict[Key, None] = OrderedDict()
        self._working: set[Key] = set()
        self._dirty: set[Key] = set()
        self._later: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._numbers = itertools.count()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Keys that are due and wait."""
        return len(self._ready)

    def add(self, key: Key) -> None:
        """The key is due. While it is being worked on it is noted, and due again afterwards."""
        self._due.pop(key, None)
        if key in self._working:
            self._dirty.add(key)
            return
        self._ready[key] = None
        self._changed.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """The key is due in some time, unless it is due earlier anyway."""
        at = self._clock() + max(0.0, seconds)
        if at >= self._due.get(key, float("inf")):
            return
        self._due[key] = at
        heapq.heappush(self._later, (at, next(self._numbers), key))
        if len(self._later) > 2 * len(self._due) + SUPERSEDED:
            self._forget_superseded()
        self._changed.set()

    def add_spread(self, keys: Iterable[Key], per_second: float) -> None:
        """The keys are due one after another, so that what comes meanwhile does not wait behind all of them."""
        for number, key in enumerate(keys):
            self.add_after(key, number / per_second)

    async def get(self) -> Key:
        """The next due key; it must be given back with `done`."""
        while True:
            wait = self._mature()
            if self._ready:
                key, _ = self._ready.popitem(last=False)
                self._working.add(key)
                return key
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):  # wait_for may swallow a cancellation (Python 3.11)
                    await self._changed.wait()

    def done(self, key: Key, *, failed: bool = False) -> None:
        """Ends the work on a key; one that failed comes again, later with each failure in a row."""
        self._working.discard(key)
        if failed:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            longest = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(failures - 1, 10))
            self.add_after(key, longest * random.uniform(0.5, 1.0))
        else:
            self._failures.pop(key, None)
        if key in self._dirty:
            self._dirty.discard(key)
            if not failed:
                self.add(key)

    def _forget_superseded(self) -> None:
        """Each look at a job may set another time; the old ones would be kept until then, for days."""
        self._later = [item for item in self._later if self._due.get(item[2]) == item[0]]
        heapq.heapify(self._later)

    def _mature(self) -> float | None:
        """Moves what is due; seconds until the next is, None where nothing waits."""
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            at, _, key = heapq.heappop(self._later)
            if self._due.get(key) == at:
                self.add(key)
        return self._later[0][0] - now if self._later else None
