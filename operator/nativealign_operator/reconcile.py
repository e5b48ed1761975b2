"""reconcile: observe -> decide -> one write of the status -> children -> events. The only place where the operator acts.

The status goes first, with the version that the decision was made from: what was decided from old news is refused with 409, and
decided again from fresh news. Children go second, under names that can exist once.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from pydantic import ValidationError

from nativealign_api.kinds import KINDS, JobObject, references
from nativealign_api.status import JobStatus
from nativealign_api.vocabulary import API_VERSION
from nativealign_operator.cache import Cache, Json, Key, owner_of
from nativealign_operator.cluster import ApiError, Cluster
from nativealign_operator.conditions import say, stamp
from nativealign_operator.decide import CHILD_REFUSED, Decision, Event, decide
from nativealign_operator.metrics import Metrics
from nativealign_operator.paths import path_of
from nativealign_operator.progress import ProgressBoard
from nativealign_operator.render import RenderSettings
from nativealign_operator.seen import Child, Seen, read_child

COMPONENT = "nativealign-operator"
REFUSED_SECONDS = 30.0
"""Until a child that the apiserver refuses is tried again."""
REFUSALS = {HTTPStatus.FORBIDDEN: "Waiting", HTTPStatus.UNPROCESSABLE_ENTITY: "Stalled"}
"""State of a job whose child is refused: a quota or policy may give way; a value that no Job may have must be changed."""
log = logging.getLogger(__name__)


class Reconciler:
    """Brings one job at a time to where it should be.

    `wait_for` is told, before upstream jobs are looked at, which a job is waiting for.
    """

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        board: ProgressBoard,
        metrics: Metrics,
        settings: RenderSettings,
        wait_for: Callable[[Key, list[Key]], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster, self._cache, self._board, self._metrics = cluster, cache, board, metrics
        self._settings, self._wait_for, self._clock = settings, wait_for, clock
        self._refused: dict[Key, tuple[str, str]] = {}

    async def reconcile(self, key: Key) -> float | None:
        """One look at a job; seconds until the next is due at the latest. Raises ApiError where the apiserver does not do."""
        value = self._cache.get(key)
        if value is None:
            self._metrics.forget(key)
            self._board.forget(key)
            self._refused.pop(key, None)
            return None
        try:
            job = KINDS[key.kind].model.model_validate(value)
        except ValidationError as error:
            return await self._invalid(key, value, error)
        if job.status.start_time is None:
            self._wait_for(key, [Key(kind, key.namespace, name) for _, kind, name in _referenced(job)])
        seen = await self._observe(key, value, job)
        decision = decide(seen, self._settings)
        if decision.closer:
            await self._list_pods(key.namespace, decision.closer)
            seen = replace(await self._observe(key, value, job), fresh=True)
            decision = decide(seen, self._settings)
        if not seen.deleting:
            await self._act(key, value, job, decision)
        return self._due(key, decision, seen)

    # observe

    async def _observe(self, key: Key, value: Json, job: JobObject) -> Seen:
        children = self._children(value["metadata"]["uid"])
        upstream = {reference: self._cache.get(Key(kind, key.namespace, name)) for reference, kind, name in _referenced(job)}
        there = {name: found for name, found in upstream.items() if found}
        return Seen(
            job=job,
            now=self._clock(),
            deleting="deletionTimestamp" in value["metadata"],
            children=tuple(children),
            upstream={name: JobStatus.model_validate(found.get("status") or {}) for name, found in there.items()},
            upstream_uids={name: found["metadata"]["uid"] for name, found in there.items()},
            progress=self._board.of(key),
            queue=await self._queue(key.namespace, children),
            refused=self._refused.get(key),
        )

    def _children(self, uid: str) -> list[Child]:
        return [read_child(job, self._cache.owned_by(job["metadata"]["uid"], "Pod")) for job in self._cache.owned_by(uid, "Job")]

    async def _list_pods(self, namespace: str, child: Child) -> None:
        selector = f"batch.kubernetes.io/job-name={child.name}"
        async for page in self._cluster.pages(path_of("Pod", namespace), selector):
            for pod in page["items"]:
                self._cache.put("Pod", pod)

    async def _queue(self, namespace: str, children: list[Child]) -> tuple[str, str] | None:
        """What Kueue says of the child that it holds."""
        held = next((child for child in children if child.suspended and not child.deleting and not child.outcome), None)
        if held is None:
            return None
        try:
            selector = f"kueue.x-k8s.io/job-uid={held.uid}"
            async for page in self._cluster.pages(path_of("Workload", namespace), selector):
                return next((_queue_reason(workload) for workload in page["items"]), None)
        except ApiError as error:
            if error.code not in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN):
                raise
        return None

    # act

    async def _act(self, key: Key, value: Json, job: JobObject, decision: Decision) -> None:
        if decision.status.dump() != job.status.dump():
            value = await self._write_status(key, value, decision.status)
        self._metrics.count(key, decision.status)
        for child in decision.delete:
            await self._delete(key.namespace, child)
        refused = await self._create(key, value, decision)
        for event in decision.events + ([refused] if refused else []):
            await self._tell(key, value, event)

    async def _write_status(self, key: Key, value: Json, status: JobStatus) -> Json:
        metadata = {name: value["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion")}
        body = {"apiVersion": API_VERSION, "kind": key.kind, "metadata": metadata, "status": status.dump()}
        path = path_of(key.kind, key.namespace, key.name)
        try:
            written = await self._cluster.apply_status(path, body)
        except ApiError as error:
            if error.code == HTTPStatus.CONFLICT:  # decided from old news: the next decision has the newest
                self._cache.put(key.kind, await self._cluster.get(path))
            raise
        self._cache.put(key.kind, written)
        return written

    async def _create(self, key: Key, value: Json, decision: Decision) -> Event | None:
        """Creates the child's objects; what the apiserver refuses for reasons of its own becomes an event."""
        for item in decision.create:
            try:
                created = await self._cluster.create(path_of(item["kind"], key.namespace), item)
            except ApiError as error:
                if error.code == HTTPStatus.CONFLICT and error.reason == "AlreadyExists":
                    created = await self._existing(key, value, item)
                elif error.code in REFUSALS:
                    return self._refuse(key, decision, item, error)
                else:
                    raise
            if item["kind"] == "Job":
                self._cache.put("Job", created)
                self._refused.pop(key, None)
        return None

    async def _existing(self, key: Key, value: Json, item: Json) -> Json:
        """The object of that name, if it is this job's own. Raises ApiError where it is another's, e.g. of a job just deleted."""
        found = await self._cluster.get(path_of(item["kind"], key.namespace, item["metadata"]["name"]))
        if owner_of(found["metadata"]) != value["metadata"]["uid"]:
            name = f"{item['kind']} {item['metadata']['name']}"
            raise ApiError(HTTPStatus.CONFLICT, "ForeignChild", f"{name} belongs to another object; waiting until it is gone")
        return found

    def _refuse(self, key: Key, decision: Decision, item: Json, error: ApiError) -> Event | None:
        """Remembers a refusal, for the status to tell; an event where it is news."""
        refused = REFUSALS[HTTPStatus(error.code)], f"{item['kind']} {item['metadata']['name']}: {error.message}"
        news = self._refused.get(key) != refused
        self._refused[key] = refused
        decision.again(self._clock() + timedelta(seconds=0 if news else REFUSED_SECONDS))
        return Event("Warning", CHILD_REFUSED, refused[1]) if news else None

    async def _delete(self, namespace: str, child: Child) -> None:
        """The Job with its pods, and what was made for it."""
        await self._cluster.delete(path_of("Job", namespace, child.name), child.uid)
        if child.config_map:
            await self._cluster.delete(path_of("ConfigMap", namespace, child.config_map))
        if child.service:
            await self._cluster.delete(path_of("Service", namespace, child.service))

    async def _tell(self, key: Key, value: Json, event: Event) -> None:
        now = stamp(self._clock())
        about = {"apiVersion": API_VERSION, "kind": key.kind, "namespace": key.namespace, "name": key.name}
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{key.name}.", "namespace": key.namespace},
            "involvedObject": about | {"uid": value["metadata"]["uid"], "resourceVersion": value["metadata"]["resourceVersion"]},
            "type": event.kind,
            "reason": event.reason,
            "message": event.message[:1024],
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        log.info("%s %s/%s: %s: %s", key.kind, key.namespace, key.name, event.reason, event.message)
        try:
            await self._cluster.create(path_of("Event", key.namespace), body)
        except ApiError as error:  # an event is a courtesy
            log.warning("event of %s/%s not written: %s", key.namespace, key.name, error)

    async def _invalid(self, key: Key, value: Json, error: ValidationError) -> float | None:
        """A spec that the schema let through, or that an older version of it did."""
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
        status = JobStatus.model_validate(value.get("status") or {})
        before = status.dump()
        status.observed_generation = value["metadata"].get("generation")
        say(status, "Invalid", "InvalidSpec", problems, self._clock())
        if status.dump() != before:
            value = await self._write_status(key, value, status)
            await self._tell(key, value, Event("Warning", "InvalidSpec", problems))
        return None

    def _due(self, key: Key, decision: Decision, seen: Seen) -> float | None:
        running = [child for child in seen.children if child.ready and child.outcome is None]
        self._board.watch(key, seen.job, running)
        return None if decision.requeue is None else max(0.0, (decision.requeue - self._clock()).total_seconds())


def _referenced(job: JobObject) -> list[tuple[str, str, str]]:
    """(kind/name, kind, name) of each job that this one refers to."""
    return [(reference, *reference.split("/", 1)) for reference in references(job)]  # type: ignore[misc]


def _queue_reason(workload: Json) -> tuple[str, str]:
    """Reason and message of the condition that tells why a Workload waits."""
    conditions = {c["type"]: c for c in workload.get("status", {}).get("conditions", [])}
    for kind, waits in (("Evicted", "True"), ("QuotaReserved", "False"), ("Admitted", "False")):
        if conditions.get(kind, {}).get("status") == waits:
            return conditions[kind].get("reason", "Queued"), conditions[kind].get("message", "")
    return "Queued", "Kueue has not looked at it yet"
