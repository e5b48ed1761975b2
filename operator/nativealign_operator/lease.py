"""Leader election by a Lease (coordination.k8s.io/v1), as client-go does it: times of other replicas are never compared with ours.

The election of the `kubernetes` package is not used: a lost connection ends it, and one request may take five minutes, in which a
leader that cannot renew would go on writing.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from nativealign_operator.cluster import ApiError, Cluster, Json

RENEWALS = 5
"""Tries to renew within the time after which a silent leader is replaced."""
log = logging.getLogger(__name__)


@dataclass
class _Observed:
    """The other's Lease as it was first seen so, and when, by our clock."""

    holder: str
    renewed: str
    at: float


class Lease:
    """One replica's view of the Lease."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, identity: str, seconds: float) -> None:
        self._cluster, self._identity, self._seconds = cluster, identity, seconds
        self._folder = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name, self._namespace = name, namespace
        self._observed: _Observed | None = None

    @property
    def is_held_by_another(self) -> bool:
        """Whether it was when it was last looked at."""
        return self._observed is not None

    async def acquire(self, beat: Callable[[], None]) -> None:
        """Returns once the Lease is ours. `beat` is called with each try."""
        while True:
            beat()
            if await self._try():
                return
            await asyncio.sleep(self._seconds / RENEWALS)

    async def hold(self, beat: Callable[[], None]) -> None:
        """Renews; returns once it could not for two thirds of the time after which another may take over."""
        clock = asyncio.get_running_loop().time
        renewed = clock()
        while clock() - renewed < self._seconds * 2 / 3:
            beat()
            await asyncio.sleep(self._seconds / RENEWALS / 2)
            before = clock()
            if await self._try():
                renewed = before
            elif self._observed:  # somebody else holds it
                return

    async def release(self) -> None:
        """Gives the Lease back, so that the next replica need not wait."""
        try:
            lease = await self._cluster.get(f"{self._folder}/{self._name}")
            if lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._put(lease)
        except ApiError as error:
            log.warning("the Lease was not given back: %s", error)

    async def _try(self) -> bool:
        try:
            async with asyncio.timeout(self._seconds / 3):
                return await self._take()
        except TimeoutError:
            log.warning("the Lease could not be read or written in %.0f s", self._seconds / 3)
        except ApiError as error:
            level = logging.DEBUG if error.code == HTTPStatus.CONFLICT else logging.WARNING  # another was faster
            log.log(level, "the Lease could not be read or written: %s", error)
        return False

    async def _take(self) -> bool:
        try:
            lease = await self._cluster.get(f"{self._folder}/{self._name}")
        except ApiError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            metadata = {"name": self._name, "namespace": self._namespace}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}
            await self._cluster.create(self._folder, self._renewed(lease))
            return True
        if self._is_held(lease):
            return False
        self._observed = None
        await self._put(self._renewed(lease))
        return True

    def _is_held(self, lease: Json) -> bool:
        """Whether another holds it: one that has changed it within the time that it claims."""
        holder, renewed = lease["spec"].get("holderIdentity") or "", str(lease["spec"].get("renewTime"))
        if holder in ("", self._identity):
            return False
        now = asyncio.get_running_loop().time()
        if self._observed is None or (self._observed.holder, self._observed.renewed) != (holder, renewed):
            self._observed = _Observed(holder, renewed, now)
        return now - self._observed.at < float(lease["spec"].get("leaseDurationSeconds") or self._seconds)

    def _renewed(self, lease: Json) -> Json:
        spec, now = lease["spec"], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        changes: Json = {"holderIdentity": self._identity, "leaseDurationSeconds": max(1, round(self._seconds)), "renewTime": now}
        if spec.get("holderIdentity") != self._identity:
            changes |= {"acquireTime": now, "leaseTransitions": spec.get("leaseTransitions", -1) + 1}
        return lease | {"spec": spec | changes}

    async def _put(self, lease: Json) -> None:
        """Refused with 409 where another was faster."""
        await self._cluster.replace(f"{self._folder}/{self._name}", lease)
