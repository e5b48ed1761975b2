"""A cluster in memory for tests of `decide`: it keeps what was decided, and plays Job controller, kubelet and clock."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from nativealign_api.common import Store
from nativealign_api.kinds import KINDS, JobObject
from nativealign_api.messages import pack
from nativealign_api.status import JobStatus, StepStatus
from nativealign_api.vocabulary import API_VERSION
from nativealign_operator.conditions import stamp
from nativealign_operator.decide import Decision, Event, decide
from nativealign_operator.pod import CONTAINER, LABEL_JOB_NAME
from nativealign_operator.render import GANG_GRACE_SECONDS, RenderSettings
from nativealign_operator.seen import (
    COMPLETION_INDEX,
    Child,
    Progress,
    Seen,
    Stranger,
    read_child,
    read_pod,
    silent,
    trouble,
)

Json = dict[str, Any]
STORE = Store.model_validate({"bucket": "default", "endpoint": "https://minio.example"})
SETTINGS = RenderSettings("registry.example/workloads@sha256:" + "0" * 64, STORE)
START = datetime(2026, 1, 1, tzinfo=UTC)


def digest(number: int) -> str:
    return f"{number:032x}"


@dataclass
class World:
    """One job and its children."""

    job: JobObject
    now: datetime = START
    jobs: dict[str, Json] = field(default_factory=dict)
    pods: dict[str, list[Json]] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    upstream: dict[str, JobStatus] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    queue: tuple[str, str] | None = None
    told: dict[str, list[Json]] = field(default_factory=dict)
    """Events by uid of what they are about."""
    stranger: Stranger | None = None
    image_id: str = ""
    """What a node reports as the image of every pod."""
    deleting: bool = False
    refused: tuple[str, str] | None = None
    fresh: bool = True

    @property
    def status(self) -> JobStatus:
        return self.job.status

    @property
    def current(self) -> str:
        """Name of the child that was created last."""
        return self.created[-1]

    def seen(self) -> Seen:
        children = tuple(self.child(name) for name in self.jobs)
        return Seen(
            self.job,
            self.now,
            self.deleting,
            children,
            self.upstream,
            {name: f"uid-{name}" for name in self.upstream},
            self.progress,
            self.queue,
            trouble(self.told.get(silent(children, self.now) or "", [])),
            self.stranger,
            self.refused,
            self.fresh,
        )

    def child(self, name: str) -> Child:
        return read_child(self.jobs[name], map(read_pod, self.pods[name]))

    def look(self) -> Decision:
        """Decides once, and does what was decided."""
        decision = decide(self.seen(), SETTINGS)
        self.job.status = JobStatus.model_validate(json.loads(json.dumps(decision.status.dump())))
        for child in decision.delete:
            self.jobs.pop(child.name, None)
        for child in decision.stop:
            self._stop(child.name)
        for item in decision.create:
            if item["kind"] == "Job":
                self._create(item)
        self.events += decision.events
        return decision

    def settle(self) -> Decision:
        """Looks until nothing changes any more."""
        for _ in range(50):
            before = (self.status.dump(), list(self.jobs))
            decision = self.look()
            if before == (self.status.dump(), list(self.jobs)):
                assert decision.requeue is None or decision.requeue > self.now, "an operator would do nothing but look again"
                return decision
        raise AssertionError("it never settles")

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def _create(self, item: Json) -> None:
        name = item["metadata"]["name"]
        assert name not in self.jobs, f"{name} is created twice"
        item["metadata"] |= {"uid": f"uid-{name}", "creationTimestamp": stamp(self.now)}
        self.jobs[name] = item | {"status": {"startTime": stamp(self.now)}}
        self.pods[name] = []
        self.created.append(name)

    def _stop(self, name: str) -> None:
        """The Job is there until its pods have ended, which those that run do by `end_stopped`."""
        running = [pod for pod in self.pods[name] if pod["status"]["phase"] == "Running"]
        self.jobs[name]["metadata"]["deletionTimestamp"] = stamp(self.now)
        for pod in running:
            pod["metadata"]["deletionTimestamp"] = stamp(self.now + timedelta(seconds=GANG_GRACE_SECONDS))
        if not running:
            self.jobs.pop(name)

    # what others do

    def end_stopped(self) -> None:
        """The pods of all Jobs that were stopped end."""
        self.jobs = {name: job for name, job in self.jobs.items() if "deletionTimestamp" not in job["metadata"]}

    def run(self, name: str = "", pods: int = 1) -> None:
        """The pods of a child run."""
        name = name or self.current
        self.jobs[name]["status"]["ready"] = pods
        container = {"name": CONTAINER, "imageID": self.image_id, "state": {"running": {}}}
        status = {"phase": "Running", "containerStatuses": [container]}
        self.pods[name] = [_pod(name, index, status | {"podIP": f"10.0.0.{index}"}) for index in range(pods)]

    def end_pod(self, code: int, message: Json | None = None, *, running: int = 0) -> None:
        """A pod of the current child ends, and the Job has not drawn its conclusion; so many others run."""
        self.run(pods=running)
        self.pods[self.current].append(self._ended_pod(self.current, code, message))

    def pend(self, reason: str, message: str = "") -> None:
        """The pod of the current child cannot start."""
        waiting = {"waiting": {"reason": reason, "message": message}}
        self.pods[self.current] = [
            _pod(self.current, 0, {"phase": "Pending", "containerStatuses": [{"name": CONTAINER, "state": waiting}]})
        ]

    def tell(self, uid: str, reason: str, message: str = "") -> None:
        """Somebody tells an event about an object."""
        events = self.told.setdefault(uid, [])
        events.append(
            {"metadata": {"name": f"{len(events)}"}, "lastTimestamp": stamp(self.now), "reason": reason, "message": message}
        )

    def complete(self, message: Json | None = None, name: str = "") -> None:
        """A child is done, and its pod has said something."""
        self._end(name or self.current, "Complete", "CompletionsReached", "", 0, message or {})

    def fail(self, code: int = 70, message: Json | None = None, reason: str = "BackoffLimitExceeded", text: str = "") -> None:
        self._end(self.current, "Failed", reason, text, code, message)

    def _end(self, name: str, kind: str, reason: str, text: str, code: int, message: Json | None) -> None:
        condition = {"type": kind, "status": "True", "reason": reason, "message": text, "lastTransitionTime": stamp(self.now)}
        self.jobs[name]["status"] |= {"conditions": [condition], "ready": 0, "succeeded": int(kind == "Complete")}
        self.pods[name] = [self._ended_pod(name, code, message)]

    def _ended_pod(self, name: str, code: int, message: Json | None) -> Json:
        ended = {"exitCode": code, "finishedAt": stamp(self.now), "message": "" if message is None else pack(message)}
        container = {"name": CONTAINER, "imageID": self.image_id, "state": {"terminated": ended}}
        return _pod(name, 0, {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container]})

    def finish(self, committed: Json | None = None, gates: list[str] | None = None) -> list[str]:
        """Completes every child until the job has ended; returns the children in order."""
        for _ in range(60):
            self.settle()
            if self.status.completion_time:
                return self.created
            self.wait(1)
            self.complete(self.words(self.current, committed or {}, gates or []))
        raise AssertionError("it never ends")

    def words(self, name: str, committed: Json, gates: list[str]) -> Json:
        """What the pod of a child says in the end."""
        child = self.child(name)
        if child.step == "inspect":
            return {"digest": digest(1), "pinned": self.pins(), "committed": committed, "counts": {"files": 3}}
        failed = {"gate": "Fail", "failedGates": gates} if gates and child.step in ("assess", "report") else {}
        return {"counts": {"out": 7}, "metrics": {"loss": 0.5}, **failed}

    def pins(self) -> Json:
        return {
            "inspect": digest(1),
            "inputs": {
                name: digest(n + 2) for n, name in enumerate(("corpora", "conduct", "worker.base", "base", "data", "model"))
            },
            "shards": {"corpora": 3},
        }


def world(kind: str = "AlignJob", spec: Json | None = None, generation: int = 1) -> World:
    """A world with one job that nobody has looked at yet."""
    metadata = {"name": "web", "namespace": "team", "uid": "uid-web", "generation": generation}
    value = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec or ALIGN}
    return World(KINDS[kind].model.model_validate(value))


def upstream_ready() -> dict[str, JobStatus]:
    steps = [StepStatus(name=name, state="Committed", digest=digest(n)) for n, name in enumerate(("clean", "dedup", "rewrite"))]
    finished = world()
    finished.finish()
    return {"AlignJob/corpus": finished.status.model_copy(update={"steps": steps})}


def pretraining(until: str = "train-train") -> World:
    """A PretrainJob whose gang runs."""
    found = world("PretrainJob", PRETRAIN)
    found.upstream = upstream_ready()
    while until not in (found.created or [""])[-1]:
        if found.created:
            found.complete(found.words(found.current, {}, []))
        found.settle()
    found.run(pods=2)
    found.settle()
    return found


ALIGN: Json = {
    "corpora": [{"name": "web", "uri": "s3://corpora/web/*.jsonl"}],
    "expert": {"rules": {}},
    "store": {"bucket": "alignment", "endpoint": "http://minio:9000", "credentialsSecret": {"name": "minio"}},
}
PRETRAIN: Json = {
    "base": {"uri": "s3://models/base"},
    "mix": [{"alignJob": "corpus"}],
    "tokens": "1M",
    "store": ALIGN["store"],
    "trainResources": {"nodes": 2, "gpusPerNode": 8},
    "retries": 2,
}


def _pod(job: str, index: int, status: Json) -> Json:
    metadata = {"name": f"{job}-{index}-abcde", "uid": f"uid-{job}-{index}"}
    about = {"labels": {LABEL_JOB_NAME: job}, "annotations": {COMPLETION_INDEX: str(index)}}
    return {"metadata": metadata | about, "status": status}
