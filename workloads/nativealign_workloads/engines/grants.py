"""One budget for all shards of a phase, which need it unevenly. Called where an endpoint is opened; the budget asks for more.

The budget is cut into small grants. A shard takes its own as it needs them, and then those that no other shard has taken. Who has
one is decided by the store: only the first to create its object has it, so no pod waits for another.

    <prefix>/taken/<grant>          the number of the shard that has it
    <prefix>/held/<shard>/<grant>   the same, to be found again by that shard after a kill
"""

from collections.abc import Iterator

from nativealign_workloads.engines.budget import Limits, Short
from nativealign_workloads.store import AlreadyExists, ObjectStore

OF_A_SHARD = 8
"""Grants for each shard. What a shard does not use of its last one is lost to the others, so grants are small."""


class Grants:
    """What one shard may spend of the limits of all shards together. Without limits nothing is read or written."""

    def __init__(self, store: ObjectStore, prefix: str, shard: int, shards: int, limits: Limits) -> None:
        self._store, self._prefix, self._limits = store, prefix, limits
        self._shard, self._count = shard, OF_A_SHARD * shards
        limited = any(limit is not None for limit in limits)
        self._held = set(self._listed(self._mine)) if limited else set[int]()
        self._gone = set(self._held)
        self._looked = False
        self._none: set[tuple[Short, bool]] = set()

    @property
    def limits(self) -> Limits:
        """All that this shard has taken so far."""
        requests, tokens = (self._sum(limit) for limit in self._limits)
        return requests, tokens

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

    def _helps(self, grant: int, short: Short) -> bool:
        parts = (self._part(limit, grant) for limit in self._limits)
        return all(part for part, is_short in zip(parts, short, strict=True) if is_short)

    def _take(self, grant: int) -> bool:
        try:
            self._store.create(f"{self._prefix}/taken/{grant:06d}", str(self._shard).encode())
        except AlreadyExists:
            return False
        self._store.create(f"{self._mine}{grant:06d}", b"")
        self._held.add(grant)
        return True

    def _in_order(self, others: bool) -> Iterator[int]:
        """The shard's own grants; then the others, from half a round on: of shards that ended long ago or begin last."""
        end = OF_A_SHARD * (self._shard + 1)
        yield from range(end - OF_A_SHARD, end)
        if not others:
            return
        if not self._looked:
            self._looked = True
            self._gone |= set(self._listed(f"{self._prefix}/taken/"))
        yield from ((end + self._count // 2 + step) % self._count for step in range(self._count))

    @property
    def _mine(self) -> str:
        return f"{self._prefix}/held/{self._shard:05d}/"

    def _listed(self, prefix: str) -> Iterator[int]:
        return (int(info.key.rpartition("/")[2]) for info in self._store.list(prefix))

    def _part(self, limit: int | None, grant: int) -> int:
        """What a grant has of a limit; the grants add up to it exactly."""
        return 0 if limit is None else limit // self._count + (grant < limit % self._count)

    def _sum(self, limit: int | None) -> int | None:
        return None if limit is None else sum(self._part(limit, grant) for grant in self._held)
