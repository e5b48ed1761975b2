"""One budget for all shards of a phase, which need it unevenly. Called where an endpoint is opened; the budget asks for more.

The budget is cut into small grants. A shard takes its own as it needs them, and then those that no other shard has taken. Who has
one is decided by the store: only the first to create its object has it, so no pod waits for another. What a budget is raised by is
a layer of as many grants more, so that shards find something whatever the others have taken before.

    <prefix>/layers/<layer>.json    {"requests": …, "tokens": …, "money": …}: the limits up to and with this layer
    <prefix>/taken/<grant>          the number of the shard that has it
    <prefix>/held/<shard>/<grant>   the same, to be found again by that shard after a kill
"""

import json
from collections.abc import Iterator

from nativealign_workloads.engines.budget import Limits, Short, Spent
from nativealign_workloads.store import NotFound, ObjectStore

OF_A_SHARD = 8
"""Grants for each shard in a layer. What a shard does not use of its last one is lost to the others, so grants are small."""


class Grants:
    """What one shard may spend of the limits of all shards together. Without limits nothing is read or written."""

    def __init__(self, store: ObjectStore, prefix: str, shard: int, shards: int, limits: Limits) -> None:
        self._store, self._prefix, self._limits = store, prefix, limits
        self._shard, self._size = shard, OF_A_SHARD * shards
        limited = any(limit is not None for limit in limits)
        self._layers = self._found_layers() if limited else []
        self._held = set(self._listed(self._mine)) if limited else set[int]()
        self._gone = set(self._held)
        self._looked = False
        self._none: set[tuple[Short, bool]] = set()

    @property
    def limits(self) -> Limits:
        """All that this shard has taken so far."""
        return Limits(*(self._sum(which) for which in range(len(self._limits))))

    def more(self, short: Short, others: bool) -> Limits | None:
        """The limits with one grant more that has of all that is `short`; None where none is left, or only what is others' own."""
        if (short, others) in self._none:
            return None
        for grant in self._in_order(others):
            if grant not in self._gone and self._helps(grant, short):
                self._gone.add(grant)
                if self._take(grant):
                    return self.limits
        self._none.add((short, others))
        return None

    def _found_layers(self) -> list[Spent]:
        """The limits up to each layer, and one more where this shard was given higher ones."""
        found = [Spent()]
        while True:
            key = f"{self._prefix}/layers/{len(found) - 1:03d}.json"
            try:
                layer = json.loads(self._store.read(key))
                found.append(Spent(**layer))
            except NotFound:
                raised = Spent(*(max(limit or 0, known) for limit, known in zip(self._limits, found[-1], strict=True)))
                if raised == found[-1]:
                    return found[1:]
                self._store.try_create(key, json.dumps(raised._asdict()).encode())

    def _helps(self, grant: int, short: Short) -> bool:
        return all(self._part(which, grant) for which, is_short in enumerate(short) if is_short)

    def _take(self, grant: int) -> bool:
        if not self._store.try_create(f"{self._prefix}/taken/{grant:06d}", str(self._shard).encode()):
            return False
        self._store.create(f"{self._mine}{grant:06d}", b"")
        self._held.add(grant)
        return True

    def _in_order(self, others: bool) -> Iterator[int]:
        """The shard's own grants; then the others, from half a round on: of shards that ended long ago or begin last."""
        first, starts = OF_A_SHARD * self._shard, range(0, self._size * len(self._layers), self._size)
        yield from (start + first + step for start in starts for step in range(OF_A_SHARD))
        if not others:
            return
        if not self._looked:
            self._looked = True
            self._gone |= set(self._listed(f"{self._prefix}/taken/"))
        middle = first + OF_A_SHARD + self._size // 2
        yield from (start + (middle + step) % self._size for start in starts for step in range(self._size))

    @property
    def _mine(self) -> str:
        return f"{self._prefix}/held/{self._shard:05d}/"

    def _listed(self, prefix: str) -> Iterator[int]:
        return (int(info.key.rpartition("/")[2]) for info in self._store.list(prefix))

    def _part(self, which: int, grant: int) -> int:
        """What a grant has of the requests (0), the tokens (1) or the money (2). The grants of a layer add up exactly to what it
        raises the limit by, as far as this shard's own limit goes: it may be lower than one before.
        """
        limit, (layer, number) = self._limits[which], divmod(grant, self._size)
        if limit is None or layer >= len(self._layers):
            return 0
        before = self._layers[layer - 1][which] if layer else 0
        whole = max(0, min(limit, self._layers[layer][which]) - before)
        return whole // self._size + (number < whole % self._size)

    def _sum(self, which: int) -> int | None:
        return None if self._limits[which] is None else sum(self._part(which, grant) for grant in self._held)
