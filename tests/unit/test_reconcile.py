"""What a reconcile does about an apiserver that refuses, fails, or shows a spec that cannot be read."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.world import ALIGN, PRETRAIN, SETTINGS, START, pretraining

from nativealign_api.vocabulary import API_VERSION
from nativealign_operator.cache import Cache, Key
from nativealign_operator.cluster import ApiError
from nativealign_operator.conditions import stamp
from nativealign_operator.metrics import Metrics
from nativealign_operator.progress import ProgressBoard
from nativealign_operator.reconcile import REFUSED_SECONDS, Reconciler

Json = dict[str, Any]
OVERLOADED = ApiError(503, "ServiceUnavailable", "etcd leader changed")


@dataclass
class Apiserver:
    """Keeps no more than what a reconcile asks for, and fails on purpose: it takes the place of `Cluster`."""

    spec: Json = field(default_factory=lambda: ALIGN)
    kind: str = "AlignJob"
    """Of the one job."""
    code: int = 403
    """That Jobs are refused with."""
    refusals: Iterator[str] = field(default_factory=lambda: iter(()))
    """Why Jobs are refused, one after the other."""
    failing: str = ""
    """Lists of this resource fail."""
    job: Json | None = None
    """The job as somebody else left it, which the operator has not heard of yet."""
    statuses: list[Json] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    versions: Iterator[int] = field(default_factory=lambda: itertools.count(2))

    async def pages(self, path: str, label_selector: str = "", field_selector: str = "") -> AsyncIterator[Json]:
        self.asked.append(path.rpartition("/")[2])
        if self.asked[-1] == self.failing:
            raise OVERLOADED
        yield {"metadata": {}, "items": []}

    async def get(self, path: str) -> Json:
        if self.job and path.endswith("/alignjobs/web"):
            return self.job
        raise ApiError(404, "NotFound", path)

    async def create(self, path: str, value: Json) -> Json:
        if value["kind"] == "Event":
            self.events.append(value["reason"])
        if value["kind"] == "Job" and (why := next(self.refusals, "")):
            raise ApiError(self.code, "", why)
        made = {"uid": f"uid-{value['kind']}", "creationTimestamp": stamp(START), "resourceVersion": str(next(self.versions))}
        return value | {"metadata": value["metadata"] | made, "status": {}}

    async def apply_status(self, path: str, value: Json) -> Json:
        given = value["metadata"].get("resourceVersion")
        if self.job and given and given != self.job["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", path)
        self.statuses.append(value["status"])
        version = {"resourceVersion": str(next(self.versions)), "generation": 1}
        spec = self.job["spec"] if self.job else self.spec
        return value | {"metadata": value["metadata"] | version, "spec": spec}


@dataclass
class Theatre:
    """One job, the apiserver, and the clock."""

    server: Apiserver
    cache: Cache = field(default_factory=Cache)
    metrics: Metrics = field(default_factory=Metrics)
    now: datetime = START

    def __post_init__(self) -> None:
        board = ProgressBoard(lambda: self.now)
        self.reconciler = Reconciler(
            self.server,  # type: ignore[arg-type]
            self.cache,
            board,
            self.metrics,
            SETTINGS,
            lambda *_: None,
            lambda: self.now,
        )

    def job(self, status: Json | None = None, generation: int = 1, uid: str = "uid-web") -> Json:
        """Of a newer version than any before."""
        version = {"generation": generation, "resourceVersion": str(next(self.server.versions))}
        metadata = {"name": "web", "namespace": "team", "uid": uid, **version}
        return {
            "apiVersion": API_VERSION,
            "kind": self.server.kind,
            "metadata": metadata,
            "spec": self.server.spec,
            "status": status or {},
        }

    def put(self, status: Json | None = None, generation: int = 1, uid: str = "uid-web") -> None:
        self.cache.put(self.server.kind, self.job(status, generation, uid))

    def look(self, times: int = 1) -> float | None:
        """Reconciles; when the next look is due."""
        return [asyncio.run(self.reconciler.reconcile(Key(self.server.kind, "team", "web"))) for _ in range(times)][-1]

    def counted(self, state: str) -> float | None:
        return self.metrics.registry.get_sample_value("nativealign_jobs", {"kind": "AlignJob", "state": state})


def test_a_spec_that_cannot_be_read_is_told_and_counted() -> None:
    theatre = Theatre(Apiserver(ALIGN | {"expert": "none"}))
    theatre.put()
    assert theatre.look(2) is None
    assert [status["state"] for status in theatre.server.statuses] == ["Invalid"]
    assert (theatre.server.events, theatre.counted("Invalid")) == (["InvalidSpec"], 1)


def test_what_was_decided_from_old_news_is_not_written_and_decided_again_from_fresh() -> None:
    theatre = Theatre(Apiserver())
    theatre.put()
    theatre.server.job = theatre.job(generation=2) | {"spec": ALIGN | {"suspend": True}}
    with pytest.raises(ApiError, match="Conflict"):
        theatre.look()
    assert (theatre.server.statuses, theatre.cache.jobs_of("uid-web")) == ([], [])
    theatre.look()
    assert [status["state"] for status in theatre.server.statuses] == ["Suspended"]


def test_what_has_ended_stays_so_whatever_becomes_of_its_spec() -> None:
    ended = {"type": "Finished", "status": "True", "reason": "StepsCommitted", "message": "", "lastTransitionTime": stamp(START)}
    theatre = Theatre(Apiserver(ALIGN | {"expert": "none"}))
    theatre.put({"state": "Complete", "conditions": [ended]})
    assert theatre.look() is None
    assert (theatre.server.statuses, theatre.server.events, theatre.counted("Complete")) == ([], [], 1)


def test_a_refusal_is_told_at_once_and_tried_again_at_intervals_also_if_its_words_change() -> None:
    server = Apiserver(refusals=(f"exceeded quota, used: {count}" for count in itertools.count()))
    theatre = Theatre(server)
    theatre.put()
    for tries in range(3):
        assert theatre.look() == 0
        assert [theatre.look() for _ in range(3)] == [REFUSED_SECONDS] * 3  # the write of its status is news to a job
        (ready,) = (c for c in server.statuses[-1]["conditions"] if c["type"] == "Ready")
        assert ready["message"].endswith(f"exceeded quota, used: {tries}")
        assert server.events.count("ChildRefused") == tries + 1
        theatre.now += timedelta(seconds=REFUSED_SECONDS)


@pytest.mark.parametrize(
    ("code", "why", "state"),
    [
        (400, 'admission webhook "validate.kyverno.svc" denied the request: no team label', "Waiting"),
        (403, "exceeded quota", "Waiting"),
        (422, "spec.template: Invalid value", "Stalled"),
        (500, 'failed calling webhook "mjob.kb.io"', "Waiting"),
    ],
)
def test_whoever_refuses_a_child_is_told_of(code: int, why: str, state: str) -> None:
    theatre = Theatre(Apiserver(code=code, refusals=itertools.repeat(why)))
    theatre.put()
    theatre.look(2)
    assert (theatre.server.statuses[-1]["state"], theatre.server.events.count("ChildRefused")) == (state, 1)


def test_a_gang_is_not_made_while_pods_of_its_name_are_left() -> None:
    """Somebody has deleted its Job; the pods have a grace in which they have its address."""
    seen = pretraining()
    (name, pod) = seen.current, seen.pods[seen.current][0]
    theatre = Theatre(Apiserver(PRETRAIN, "PretrainJob"), now=seen.now)
    theatre.put(seen.status.dump())
    leaving = {"deletionTimestamp": stamp(seen.now + timedelta(seconds=600)), "resourceVersion": "100", "namespace": "team"}
    theatre.cache.put("Pod", pod | {"metadata": pod["metadata"] | leaving})
    theatre.look(2)
    assert theatre.server.statuses[-1]["state"] == "Waiting"
    assert not theatre.cache.jobs_of("uid-web")
    theatre.now += timedelta(seconds=600 + seen.job.spec.node_lost_after_seconds)
    theatre.look(2)
    assert [job["metadata"]["name"] for job in theatre.cache.jobs_of("uid-web")] == [name]


def test_a_refused_child_is_tried_at_once_when_the_spec_has_changed() -> None:
    theatre = Theatre(Apiserver(refusals=iter(["exceeded quota"])))
    theatre.put()
    theatre.look(2)
    assert not theatre.cache.jobs_of("uid-web")
    theatre.put(generation=2)
    theatre.look()
    assert theatre.cache.jobs_of("uid-web")


def test_a_refusal_is_not_held_against_another_job_of_the_name() -> None:
    theatre = Theatre(Apiserver(refusals=iter(["exceeded quota"])))
    theatre.put()
    theatre.look(2)
    theatre.put(uid="uid-other")
    theatre.look()
    assert theatre.cache.jobs_of("uid-other")
    assert theatre.server.statuses[-1]["state"] == "Running"


@pytest.mark.parametrize("failing", ["workloads", "events"])
def test_words_that_cannot_be_read_hold_nothing_up(failing: str, caplog: pytest.LogCaptureFixture) -> None:
    theatre = Theatre(Apiserver(failing=failing))
    theatre.put()
    theatre.look()
    (child,) = theatre.cache.jobs_of("uid-web")
    held = {"spec": child["spec"] | {"suspend": failing == "workloads"}}
    theatre.cache.put("Job", child | held | {"metadata": child["metadata"] | {"resourceVersion": "100"}})
    theatre.now += timedelta(minutes=5)
    assert theatre.look() is not None
    assert failing in theatre.server.asked
    assert "etcd leader changed" in caplog.text
