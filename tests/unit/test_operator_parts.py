"""The operator's small parts: queue, cache, health, metrics, settings. No cluster, no waiting."""

import asyncio
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nativealign_api.status import JobStatus, StepStatus
from nativealign_operator.cache import Cache, Key
from nativealign_operator.health import Health
from nativealign_operator.metrics import Metrics
from nativealign_operator.pod import CONTAINER
from nativealign_operator.seen import read_child, read_pod, read_queue
from nativealign_operator.settings import BadSettings, from_environment
from nativealign_operator.workqueue import WorkQueue

GOOD = {f"NATIVEALIGN_OPERATOR_{name}": "x" for name in ("IMAGE", "NAMESPACE", "IDENTITY")}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def drain(queue: WorkQueue[str]) -> list[str]:
    """All keys that are due, each given back at once."""
    found: list[str] = []
    while True:
        try:
            key = await asyncio.wait_for(queue.get(), 0.001)
        except TimeoutError:
            return found
        found.append(key)
        queue.done(key)


@given(keys=st.lists(st.sampled_from("abc"), max_size=12))
def test_a_key_waits_once_and_in_order(keys: list[str]) -> None:
    queue: WorkQueue[str] = WorkQueue(Clock())
    for key in keys:
        queue.add(key)
    assert asyncio.run(drain(queue)) == list(dict.fromkeys(keys))


def test_a_key_that_is_worked_on_is_due_again_afterwards_and_never_twice_at_once() -> None:
    async def work() -> None:
        queue: WorkQueue[str] = WorkQueue(Clock())
        queue.add("a")
        key = await queue.get()
        queue.add("a")
        assert len(queue) == 0
        queue.done(key)
        assert len(queue) == 1

    asyncio.run(work())


def test_a_delay_counts_unless_the_key_is_due_earlier() -> None:
    async def check() -> None:
        clock = Clock()
        queue: WorkQueue[str] = WorkQueue(clock)
        queue.add_after("a", 10)
        queue.add_after("a", 5)
        queue.add_after("a", 20)
        assert await drain(queue) == []
        clock.now = 5
        assert await drain(queue) == ["a"]
        clock.now = 30
        assert await drain(queue) == []

    asyncio.run(check())


def test_a_key_that_is_put_off_again_and_again_takes_no_more_memory() -> None:
    async def put_off(times: int) -> int:
        queue: WorkQueue[str] = WorkQueue(Clock())
        tracemalloc.start()
        for number in range(times):
            queue.add("a")
            queue.done(await queue.get())
            queue.add_after("a", 1000 + number)
        return tracemalloc.get_traced_memory()[0]

    once = asyncio.run(put_off(1000))
    pointer = 8  # the least that each further time could leave behind, in bytes
    assert asyncio.run(put_off(20_000)) < once + 19_000 * pointer
    tracemalloc.stop()


def test_many_keys_are_due_one_after_another_and_a_new_one_waits_for_none_of_them() -> None:
    async def check() -> None:
        clock = Clock()
        queue: WorkQueue[str] = WorkQueue(clock)
        queue.add_spread(["a", "b", "c", "d"], per_second=2)
        assert await drain(queue) == ["a"]
        clock.now = 1
        queue.add("new")
        assert await drain(queue) == ["new", "b", "c"]
        clock.now = 1.5
        assert await drain(queue) == ["d"]

    asyncio.run(check())


def test_failures_in_a_row_wait_longer_each_time_and_never_longer_than_a_minute() -> None:
    async def waits() -> list[float]:
        clock = Clock()
        queue: WorkQueue[str] = WorkQueue(clock)
        queue.add("a")
        found = []
        for _ in range(12):
            key = await queue.get()
            queue.done(key, failed=True)
            found.append(queue._later[0][0] - clock.now)
            clock.now += 60
        return found

    found = asyncio.run(waits())
    assert found[0] <= 0.5
    assert 30 <= found[-1] <= 60


def stored(name: str, version: int, uid: str = "u", owner: str | None = None) -> dict[str, Any]:
    owners = [{"uid": owner, "controller": True}] if owner else []
    metadata = {"name": name, "namespace": "n", "uid": uid, "resourceVersion": str(version), "ownerReferences": owners}
    return {"metadata": metadata, "spec": {"version": version}}


@given(versions=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_an_older_version_never_replaces_a_newer_one(versions: list[int]) -> None:
    cache = Cache()
    for version in versions:
        cache.put("Job", stored("a", version))
    found = cache.get(Key("Job", "n", "a"))
    assert found
    assert found["spec"]["version"] == max(versions)


def test_what_is_gone_does_not_come_back_and_its_successor_does() -> None:
    cache = Cache()
    cache.put("Job", stored("a", 5, "old", owner="x"))
    cache.remove("Job", stored("a", 6, "old"))
    assert not cache.put("Job", stored("a", 4, "old"))
    assert cache.jobs_of("x") == []
    assert cache.put("Job", stored("a", 7, "new", owner="x"))
    assert [item["metadata"]["uid"] for item in cache.jobs_of("x")] == ["new"]


@pytest.mark.parametrize("index", ["first", "9" * 5000, "\u00b2"])
def test_a_pod_that_no_job_made_is_kept_whatever_it_says(index: str) -> None:
    cache = Cache()
    pod = stored("a", 1, owner="x")
    pod["metadata"]["annotations"] = {"batch.kubernetes.io/job-completion-index": index}
    ended = {"terminated": {"exitCode": 1, "message": '{"index": []}'}}
    pod["status"] = {"containerStatuses": [{"name": CONTAINER, "state": ended}]}
    cache.put("Pod", pod)
    assert [(found.index, found.message, found.exit_code) for found in cache.pods_of("x")] == [(0, None, 1)]


def test_a_sidecar_that_somebody_adds_is_not_taken_for_the_workload() -> None:
    def ended(name: str, code: int) -> dict[str, Any]:
        return {"name": name, "state": {"terminated": {"exitCode": code, "reason": "Error"}}}

    pod = stored("a", 1) | {"status": {"phase": "Failed", "containerStatuses": [ended("istio-proxy", 0), ended(CONTAINER, 78)]}}
    assert read_pod(pod).exit_code == 78


def test_a_volume_that_a_policy_adds_is_not_taken_for_a_childs_own() -> None:
    def volume(config_map: str) -> dict[str, Any]:
        return {"name": config_map, "projected": {"sources": [{"configMap": {"name": config_map}}]}}

    job = stored("aj-web-clean-filter-0", 1)
    job["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    for volumes, expected in ((["corporate-ca", "aj-web-clean-filter-0-1f"], "aj-web-clean-filter-0-1f"), (["corporate-ca"], None)):
        job["spec"] = {"template": {"spec": {"volumes": [volume(name) for name in volumes]}}}
        assert read_child(job, []).config_map == expected


def test_a_complete_list_removes_what_it_lacks_but_not_what_is_newer() -> None:
    cache = Cache()
    for name, version in (("kept", 3), ("gone", 4), ("newer", 9)):
        cache.put("Job", stored(name, version, uid=name))
    cache.prune("Job", "", {"kept"}, version=8)
    assert {key.name for key in cache.keys(["Job"])} == {"kept", "newer"}


def test_healthy_means_that_every_loop_comes_round() -> None:
    async def check() -> None:
        health = Health()
        health.beat("election", 60)
        health.beat("worker-0", -1)
        assert health.late() == ["worker-0"]
        health.keep_only("election")
        assert health.late() == []

    asyncio.run(check())


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_jobs_are_counted_by_kind_and_state_and_steps_once() -> None:
    metrics, key = Metrics(), Key("AlignJob", "n", "web")
    committed = StepStatus(name="clean", state="Committed", counts={"out": 5})
    metrics.count(key, JobStatus(state="Running", steps=[StepStatus(name="clean")]))
    for _ in range(2):
        metrics.count(key, JobStatus(state="Complete", steps=[committed]))
    assert sample(metrics, "nativealign_jobs", kind="AlignJob", state="Running") == 0
    assert sample(metrics, "nativealign_jobs", kind="AlignJob", state="Complete") == 1
    assert sample(metrics, "nativealign_steps_committed_total", kind="AlignJob", step="clean") == 1
    assert sample(metrics, "nativealign_documents_total", step="clean", outcome="out") == 5
    metrics.forget(key)
    assert sample(metrics, "nativealign_jobs", kind="AlignJob", state="Complete") == 0


def test_a_job_that_was_deleted_while_nobody_watched_is_not_counted() -> None:
    metrics, kept, gone = Metrics(), Key("AlignJob", "n", "kept"), Key("AlignJob", "n", "gone")
    for key in (kept, gone):
        metrics.count(key, JobStatus(state="Stalled"))
    metrics.keep_only([kept])
    assert sample(metrics, "nativealign_jobs", kind="AlignJob", state="Stalled") == 1
    metrics.forget(kept)
    assert sample(metrics, "nativealign_jobs", kind="AlignJob", state="Stalled") == 0


def test_a_new_leader_counts_jobs_but_not_the_steps_of_others() -> None:
    metrics = Metrics()
    metrics.count(Key("AlignJob", "n", "web"), JobStatus(state="Complete", steps=[StepStatus(name="clean", state="Committed")]))
    assert sample(metrics, "nativealign_jobs", kind="AlignJob", state="Complete") == 1
    assert sample(metrics, "nativealign_steps_committed_total", kind="AlignJob", step="clean") == 0


def test_settings_come_from_the_environment() -> None:
    store = {"bucket": "alignment", "endpoint": "http://minio:9000"}
    more = {"STORE": json.dumps(store), "WATCH_NAMESPACES": "a,b", "EXCLUDED_NAMESPACES": "", "WORKERS": "3"}
    found = from_environment(GOOD | {f"NATIVEALIGN_OPERATOR_{name}": value for name, value in more.items()})
    assert (found.watch_namespaces, found.excluded_namespaces, found.workers) == (("a", "b"), (), 3)
    assert found.rendering.store
    assert found.rendering.store.bucket == "alignment"


@pytest.mark.parametrize(
    ("name", "value", "words"), [("WORKERS", "many", "WORKERS"), ("STORE", "{", "STORE is not JSON"), ("IMAGE", "", "IMAGE")]
)
def test_wrong_settings_are_named(name: str, value: str, words: str) -> None:
    with pytest.raises(BadSettings, match=words):
        from_environment(GOOD | {f"NATIVEALIGN_OPERATOR_{name}": value})


# what Kueue says


def workload(checks: list[dict[str, str]] | None = None, **conditions: str) -> dict[str, Any]:
    told = [{"type": kind, "status": status, "reason": kind[:3], "message": f"{kind}!"} for kind, status in conditions.items()]
    return {"status": {"conditions": told, "admissionChecks": checks or []}}


@pytest.mark.parametrize(
    ("given_workload", "reason", "message"),
    [
        ({}, "Queued", "Kueue has not looked at it yet"),
        (workload(QuotaReserved="False"), "Quo", "QuotaReserved!"),
        (workload(Evicted="True", QuotaReserved="False"), "Evi", "Evicted!; QuotaReserved!"),
        (workload(Evicted="False", QuotaReserved="False"), "Quo", "QuotaReserved!"),
        (workload([{"name": "budget", "state": "Pending"}], QuotaReserved="True"), "AdmissionChecks", "budget is Pending"),
        (workload([{"name": "a", "state": "Ready"}, {"name": "b", "state": "Retry", "message": "no"}], QuotaReserved="True"),
         "AdmissionChecks", "quota is reserved; b is Retry: no"),
    ],
)  # fmt: skip
def test_what_kueue_says_of_a_workload_becomes_reason_and_message(
    given_workload: dict[str, Any], reason: str, message: str
) -> None:
    found = read_queue(given_workload)
    assert found[0] == reason
    assert message in found[1]


@pytest.mark.parametrize("turns", range(5))
def test_a_worker_that_is_stopped_just_as_a_key_comes_ends(turns: int) -> None:
    async def go() -> None:
        queue: WorkQueue[str] = WorkQueue()

        async def work() -> None:
            while True:
                async with asyncio.timeout(60):
                    queue.done(await queue.get())

        worker = asyncio.create_task(work())
        queue.add_after("b", 60)
        await asyncio.sleep(0.01)
        queue.add("a")
        for _ in range(turns):
            await asyncio.sleep(0)
        worker.cancel()
        _, pending = await asyncio.wait([worker], timeout=60)
        assert not pending

    asyncio.run(go())
