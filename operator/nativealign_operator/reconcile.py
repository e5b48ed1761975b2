"""reconcile: observe -> decide -> one write of the status -> children -> events. The only place where the operator acts.

The status goes first, with the version that the decision was made from: what was decided from old news is refused with 409, and
decided again from fresh news. Children go second, under names that can exist once.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from pydantic import ValidationError

from nativealign_api.kinds import KINDS, JobObject, references
from nativealign_api.status import JobStatus
from nativealign_api.vocabulary import API_VERSION
from nativealign_operator.cache import Cache, Json, Key
from nativealign_operator.cluster import ApiError, Cluster
from nativealign_operator.conditions import finished, say, stamp
from nativealign_operator.decide import CHILD_REFUSED, NAME_CONFLICT, Decision, Event, decide, ready_reason
from nativealign_operator.metrics import Metrics
from nativealign_operator.paths import path_of
from nativealign_operator.pod import LABEL_JOB_NAME
from nativealign_operator.progress import ProgressBoard
from nativealign_operator.render import RenderSettings
from nativealign_operator.seen import Child, Seen, Stranger, read_child, read_queue, read_stranger, silent, trouble

COMPONENT = "nativealign-operator"
REFUSED_SECONDS = 30.0
"""Until a child that the apiserver refuses is tried again."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Refusal:
    """Why the apiserver would not have a child."""

    told: tuple[str, str]
    """State and message."""
    uid: str | None
    generation: int | None
    """Of the job and the spec that the child was made from."""
    until: datetime
    """When it is tried again."""

    def holds(self, job: JobObject, now: datetime) -> bool:
        return (self.uid, self.generation) == (job.metadata.uid, job.metadata.generation) and now < self.until


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
        self._refused: dict[Key, _Refusal] = {}

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
        if decision.create:
            told = ready_reason(job.status) == NAME_CONFLICT
            stranger = await self._stranger(key.namespace, job, decision.create) if told else None
            seen = replace(seen, stranger=stranger or self._left_of_a_gang(key.namespace, job, decision.create))
            decision = decide(seen, self._settings) if seen.stranger else decision
        if not seen.deleting:
            decision = await self._act(key, value, seen, decision)
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
            trouble=await self._trouble(key.namespace, children),
            refused=refusal.told if (refusal := self._refused.get(key)) and refusal.uid == job.metadata.uid else None,
        )

    def _children(self, uid: str) -> list[Child]:
        return [read_child(job, self._cache.pods_of(job["metadata"]["uid"])) for job in self._cache.jobs_of(uid)]

    async def _list_pods(self, namespace: str, child: Child) -> None:
        selector = f"{LABEL_JOB_NAME}={child.name}"
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
                return next((read_queue(workload) for workload in page["items"]), None)
        except ApiError as error:  # a reason to wait is a courtesy
            if error.code not in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN):
                log.warning("what Kueue says of %s/%s is not known: %s", namespace, held.name, error)
        return None

    async def _trouble(self, namespace: str, children: list[Child]) -> tuple[str, str] | None:
        """What a kubelet or the Job controller tells in events alone."""
        uid = silent(children, self._clock())
        if uid is None:
            return None
        try:
            pages = self._cluster.pages(path_of("Event", namespace), field_selector=f"involvedObject.uid={uid}")
            return trouble([event async for page in pages for event in page["items"]])
        except ApiError as error:
            if error.code != HTTPStatus.FORBIDDEN:
                log.warning("events about %s in %s are not known: %s", uid, namespace, error)
        return None

    async def _stranger(self, namespace: str, job: JobObject, items: list[Json]) -> Stranger | None:
        """Who has a name among these objects' that are to be created."""
        for item in items:
            try:
                found = await self._cluster.get(path_of(item["kind"], namespace, item["metadata"]["name"]))
            except ApiError as error:
                if error.code != HTTPStatus.NOT_FOUND:
                    raise
                continue
            if stranger := read_stranger(found, item["kind"], job):
                return stranger
        return None

    def _left_of_a_gang(self, namespace: str, job: JobObject, items: list[Json]) -> Stranger | None:
        """A pod of a Job that is gone and had the name of the gang that is next: they would meet under the address of rank 0."""
        if not any(item["kind"] == "Service" for item in items):
            return None
        limit, now = timedelta(seconds=job.spec.node_lost_after_seconds), self._clock()
        pods = self._cache.pods_named(namespace, items[-1]["metadata"]["name"])
        left = (pod for pod in pods if not (pod.ended or ((end := pod.given_up(limit, now)) and end <= now)))
        return next((Stranger(f"Pod/{pod.name}", leaving=True) for pod in left), None)

    # act

    async def _act(self, key: Key, value: Json, seen: Seen, decision: Decision) -> Decision:
        """Does what was decided; returns what was decided last, which is another thing where a child's name is taken."""
        if decision.status.dump() != seen.job.status.dump():
            value = await self._write_status(key, value, decision.status)
        self._metrics.count(key, decision.status)
        for child in decision.delete:
            await self._delete(key.namespace, child, "Background")
        for child in decision.stop:
            await self._delete(key.namespace, child, "Foreground")
        stranger = await self._create(key, seen.job, decision)
        for event in decision.events:
            await self._tell(key, value, event)
        if stranger is None:
            return decision
        written = seen.job.model_copy(update={"status": decision.status})
        seen = replace(seen, job=written, stranger=stranger)
        return await self._act(key, value, seen, decide(seen, self._settings))

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

    async def _create(self, key: Key, job: JobObject, decision: Decision) -> Stranger | None:
        """Creates the child's objects, or finds who has a name of theirs. What is refused by quota or policy becomes an event, and
        waits a while, or for another spec: a job's own status is news to it, and would have it tried again at once.
        """
        refusal = self._refused.get(key)
        if decision.create and refusal and refusal.holds(job, self._clock()):
            decision.again(refusal.until)
            return None
        for item in decision.create:
            try:
                created = await self._cluster.create(path_of(item["kind"], key.namespace), item)
            except ApiError as error:
                if error.code == HTTPStatus.CONFLICT and error.reason == "AlreadyExists":
                    created = await self._cluster.get(path_of(item["kind"], key.namespace, item["metadata"]["name"]))
                    if stranger := read_stranger(created, item["kind"], job):
                        return stranger
                elif _is_refusal(error):
                    self._refuse(key, job, decision, f"{item['kind']} {item['metadata']['name']}: {error.message}", error.code)
                    return None
                else:
                    raise
            if item["kind"] == "Job":
                self._cache.put("Job", created)
                self._refused.pop(key, None)
        return None

    def _refuse(self, key: Key, job: JobObject, decision: Decision, why: str, code: int) -> None:
        """Remembers a refusal, for the status to tell; an event where it is news."""
        # quota or policy may give way; a value that no Job may have must be changed
        told = "Stalled" if code == HTTPStatus.UNPROCESSABLE_ENTITY else "Waiting", why
        before, now = self._refused.get(key), self._clock()
        self._refused[key] = refusal = _Refusal(
            told, job.metadata.uid, job.metadata.generation, now + timedelta(seconds=REFUSED_SECONDS)
        )
        if before and before.told == told:
            decision.again(refusal.until)
        else:
            decision.events.append(Event("Warning", CHILD_REFUSED, why))
            decision.again(now)

    async def _delete(self, namespace: str, child: Child, propagation: str) -> None:
        """What was made for it, then the Job with its pods: as long as that is there it can be told what else is."""
        if child.config_map:
            await self._cluster.delete(path_of("ConfigMap", namespace, child.config_map))
        if child.service:
            await self._cluster.delete(path_of("Service", namespace, child.service))
        await self._cluster.delete(path_of("Job", namespace, child.name), child.uid, propagation)

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
        """A spec that the schema let through, or that an older version of it did. What has ended stays as it ended."""
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
        status = JobStatus.model_validate(value.get("status") or {})
        before = status.dump()
        if not finished(status):
            status.observed_generation = value["metadata"].get("generation")
            say(status, "Invalid", "InvalidSpec", problems, self._clock())
        if status.dump() != before:
            value = await self._write_status(key, value, status)
            await self._tell(key, value, Event("Warning", "InvalidSpec", problems))
        self._metrics.count(key, status)
        return None

    def _due(self, key: Key, decision: Decision, seen: Seen) -> float | None:
        running = [child for child in seen.children if child.ready and not (child.outcome or child.deleting)]
        self._board.watch(key, seen.job, running)
        return None if decision.requeue is None else max(0.0, (decision.requeue - self._clock()).total_seconds())


def _referenced(job: JobObject) -> list[tuple[str, str, str]]:
    """(kind/name, kind, name) of each job that this one refers to."""
    return [(reference, *reference.split("/", 1)) for reference in references(job)]  # type: ignore[misc]


def _is_refusal(error: ApiError) -> bool:
    """Whether quota, a policy or a webhook says no (one that gives no code is a 400), or the webhook that is to say it cannot be
    asked.
    """
    unasked = error.code == HTTPStatus.INTERNAL_SERVER_ERROR and "failed calling webhook" in error.message
    return unasked or error.code in (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY)
