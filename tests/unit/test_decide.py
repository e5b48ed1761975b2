"""decide: the life of a job, without a cluster. What a user would see in `kubectl get` and `describe`."""

import copy
import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.world import ALIGN, PRETRAIN, SETTINGS, Json, World, digest, pretraining, upstream_ready, world

from nativealign_api.common import Store
from nativealign_api.status import JobStatus
from nativealign_operator.conditions import say, stamp
from nativealign_operator.decide import MAX_DISRUPTIONS, decide
from nativealign_operator.pod import CONTAINER
from nativealign_operator.render import GANG_GRACE_SECONDS, RenderSettings
from nativealign_operator.seen import Progress, Stranger, read_stranger

STEPS = ["inspect", "clean", "dedup", "rewrite", "assess"]

BY_TAINT = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
"""Condition of a pod that a taint of its node ends."""


def truths(status: JobStatus) -> dict[str, str]:
    return {condition.type: condition.status for condition in status.conditions}


def ready(status: JobStatus) -> tuple[str, str]:
    return next((c.reason, c.message) for c in status.conditions if c.type == "Ready")


def test_a_job_goes_through_its_phases_one_after_the_other() -> None:
    seen = world()
    created = seen.finish()
    phases = (
        ["list"],
        ["filter", "commit"],
        ["sign", "group", "link", "filter", "commit"],
        ["rewrite", "commit"],
        ["draw", "measure", "commit"],
    )
    expected = [f"aj-web-{step}-{phase}-0" for step, names in zip(STEPS, phases, strict=True) for phase in names]
    assert created == expected
    assert seen.status.state == "Complete"
    assert truths(seen.status) == {"Ready": "True", "Stalled": "False", "Running": "False", "Complete": "True", "Finished": "True"}
    assert [(step.name, step.state, step.counts) for step in seen.status.steps[1:]] == [
        (s, "Committed", {"out": 7}) for s in STEPS[1:]
    ]
    assert [event.reason for event in seen.events] == ["Started", *["StepCommitted"] * 5, "StepsCommitted"]
    assert set(seen.status.outputs) == set(STEPS)
    assert seen.status.cost.step_seconds == len(created)


def test_outputs_are_those_of_committed_steps_alone() -> None:
    seen = world()
    seen.settle()
    assert seen.status.outputs == {}
    seen.complete(seen.words(seen.current, {}, []))
    seen.settle()
    assert set(seen.status.outputs) == {"inspect"}


def test_what_inspect_finds_committed_is_not_run_again() -> None:
    seen = world()
    committed = {name: {"counts": {"out": 3}, "metrics": {}, "failedGates": []} for name in STEPS[1:]}
    assert seen.finish(committed) == ["aj-web-inspect-list-0"]
    assert [(step.reused, step.counts.get("out")) for step in seen.status.steps[1:]] == [(True, 3)] * 4
    assert set(seen.status.outputs) == set(STEPS)


def test_a_failed_gate_ends_the_job_also_where_the_step_was_committed_before() -> None:
    seen = world()
    seen.finish(gates=["maxFallbackPercent"])
    assert (seen.status.state, ready(seen.status)[1]) == ("GateFailed", "gate not passed: maxFallbackPercent; the data is kept")
    again = world()
    again.finish({name: {"failedGates": ["maxFallbackPercent"] if name == "assess" else []} for name in STEPS[1:]})
    assert again.status.state == "GateFailed"
    assert truths(again.status) == {"Ready": "False", "Stalled": "True", "Running": "False", "Failed": "True", "Finished": "True"}


@settings(max_examples=30)  # each is a whole job
@given(again=st.lists(st.booleans(), max_size=40))
def test_looking_twice_changes_nothing(again: list[bool]) -> None:
    """A repeated look gives the same status, creates nothing, and tells nothing."""
    seen = world()
    for twice in again:
        seen.settle()
        if twice:
            decision = decide(seen.seen(), SETTINGS)
            assert (decision.status.dump(), decision.create, decision.events) == (seen.status.dump(), [], [])
        if not seen.status.completion_time:
            seen.complete(seen.words(seen.current, {}, []))
    assert len(set(seen.created)) == len(seen.created)


def test_a_stale_read_creates_nothing_new() -> None:
    """What was decided from an old version must first write the status, and is refused; or it decides names that exist."""
    seen = world()
    old: list[JobStatus] = []
    while not seen.status.completion_time:
        old.append(seen.status.model_copy(deep=True))
        seen.settle()
        old.append(seen.status.model_copy(deep=True))
        if not seen.status.completion_time:
            seen.complete(seen.words(seen.current, {}, []))
    fenced = 0
    for status in old:
        past = copy.copy(seen)
        past.job = seen.job.model_copy(update={"status": status})
        decision = decide(past.seen(), SETTINGS)
        if decision.status.dump() != status.dump():
            fenced += 1
            continue
        assert {item["metadata"]["name"] for item in decision.create if item["kind"] == "Job"} <= set(seen.created)
    assert fenced


def test_a_lost_status_is_found_again_without_an_accelerator() -> None:
    seen = world("PretrainJob", PRETRAIN)
    seen.upstream = upstream_ready()
    committed = {name: {"counts": {"steps": 4}} for name in ("tokenize", "train", "export")}
    seen.finish(committed)
    assert seen.status.state == "Complete"
    assert all("nvidia.com/gpu" not in str(job["spec"]) for job in seen.jobs.values())


def test_children_of_a_run_whose_status_was_lost_are_not_taken_for_this_runs() -> None:
    seen = world()
    seen.finish()
    seen.job.status = JobStatus()
    committed = {name: {"counts": {"out": 7}} for name in STEPS[1:]}
    again = seen.finish(committed)[13:]
    assert again == ["aj-web-inspect-list-1"]
    assert seen.status.state == "Complete"


# Names


def test_a_name_that_another_has_stalls_the_job_until_it_is_free() -> None:
    seen = world()
    seen.settle()
    seen.complete(seen.words(seen.current, {}, []))
    seen.stranger = Stranger("Job/aj-web-clean-filter-0", leaving=False)
    decision = seen.settle()
    assert seen.created == ["aj-web-inspect-list-0"]
    assert truths(seen.status) == {"Ready": "False", "Stalled": "True", "Running": "False"}
    reason, message = ready(seen.status)
    assert (reason, "Job/aj-web-clean-filter-0" in message, "delete it" in message) == ("NameConflict", True, True)
    assert decision.requeue
    seen.wait(60)
    seen.settle()
    assert [event.reason for event in seen.events].count("NameConflict") == 1
    seen.stranger = None
    assert seen.finish()[1] == "aj-web-clean-filter-0"
    assert seen.status.state == "Complete"


def test_a_name_that_another_has_when_the_job_is_resumed_costs_no_attempts() -> None:
    seen = world()
    seen.settle()
    seen.job.spec = seen.job.spec.model_copy(update={"suspend": True})
    seen.settle()
    seen.job.spec = seen.job.spec.model_copy(update={"suspend": False})
    seen.stranger = Stranger("Job/aj-web-inspect-list-1", leaving=False)
    for _ in range(3):
        seen.wait(60)
        seen.settle()
    seen.stranger = None
    seen.settle()
    assert seen.current == "aj-web-inspect-list-1"


def test_what_is_left_of_an_earlier_object_is_waited_for_without_alarm() -> None:
    seen = world()
    seen.stranger = Stranger("Job/aj-web-inspect-list-0", leaving=True)
    seen.settle()
    assert (seen.status.state, ready(seen.status)[0]) == ("Waiting", "NameConflict")
    assert [event.kind for event in seen.events] == ["Normal"]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, False),
        ({"ownerReferences": [{"kind": "CronJob", "name": "web", "uid": "u", "controller": True}]}, False),
        ({"ownerReferences": [{"kind": "AlignJob", "name": "web", "uid": "an earlier one's", "controller": True}]}, True),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, True),
        ({"ownerReferences": [{"kind": "AlignJob", "name": "web", "uid": "uid-web", "controller": True}]}, None),
    ],
)
def test_who_has_a_childs_name(metadata: dict[str, object], expected: bool | None) -> None:
    """None: it is the job's own."""
    found = read_stranger({"metadata": {"name": "x", **metadata}}, "Service", world().job)
    assert (found.leaving if found else None) is expected


# References


def test_a_reference_is_waited_for_also_if_it_comes_later() -> None:
    seen = world("PretrainJob", PRETRAIN)
    seen.settle()
    assert (seen.status.state, ready(seen.status)) == ("Waiting", ("WaitingForInput", "AlignJob/corpus does not exist yet"))
    assert seen.status.start_time is None
    seen.upstream = {"AlignJob/corpus": JobStatus(state="Running")}
    seen.settle()
    assert ready(seen.status)[1] == "AlignJob/corpus is Running"
    seen.upstream = upstream_ready()
    seen.settle()
    assert seen.created == ["pj-web-inspect-list-0"]
    assert seen.status.pinned.upstream["AlignJob/corpus"] == {
        "uid": "uid-AlignJob/corpus",
        "clean": digest(0),
        "dedup": digest(1),
        "rewrite": digest(2),
    }


def test_a_failed_reference_stalls_and_clears_by_itself() -> None:
    seen = world("PretrainJob", PRETRAIN)
    seen.upstream = {"AlignJob/corpus": JobStatus(state="Failed")}
    seen.settle()
    assert truths(seen.status) == {"Ready": "False", "Stalled": "True", "Running": "False"}
    assert ready(seen.status)[0] == "UpstreamFailed"
    seen.upstream = upstream_ready()
    seen.settle()
    assert truths(seen.status) == {"Ready": "True", "Stalled": "False", "Running": "False"}


@pytest.mark.parametrize(("accepted", "state"), [(False, "Stalled"), (True, "Running")])
def test_a_gate_that_failed_upstream_must_be_accepted(accepted: bool, state: str) -> None:
    seen = world("PretrainJob", PRETRAIN | {"mix": [{"alignJob": "corpus", "acceptFailedGate": accepted}]})
    seen.upstream = {"AlignJob/corpus": upstream_ready()["AlignJob/corpus"].model_copy(update={"state": "GateFailed"})}
    seen.settle()
    assert seen.status.state == state


def test_what_happens_upstream_after_the_start_is_of_no_matter() -> None:
    seen = world("PretrainJob", PRETRAIN)
    seen.upstream = upstream_ready()
    seen.settle()
    seen.upstream = {}
    seen.finish()
    assert seen.status.state == "Complete"


# Suspend


def test_suspend_stops_the_pods_and_resume_is_the_next_attempt() -> None:
    seen = world()
    seen.settle()
    seen.complete(seen.words(seen.current, {}, []))
    seen.settle()
    seen.run()
    seen.settle()
    assert truths(seen.status)["Running"] == "True"
    seen.job.spec = seen.job.spec.model_copy(update={"suspend": True})
    seen.settle()
    assert (seen.status.state, truths(seen.status)) == (
        "Suspended",
        {"Ready": "True", "Stalled": "False", "Running": "False", "Suspended": "True"},
    )
    seen.job.spec = seen.job.spec.model_copy(update={"suspend": False})
    seen.settle()
    assert (seen.current, ready(seen.status)) == ("aj-web-clean-filter-0", ("ChildDeleted", "aj-web-clean-filter-0 ends first"))
    seen.end_stopped()
    seen.settle()
    assert seen.current == "aj-web-clean-filter-1"
    seen.finish()
    assert seen.status.state == "Complete"
    assert truths(seen.status)["Suspended"] == "False"


@pytest.mark.parametrize("unreachable", [False, True])
def test_a_suspended_job_is_not_held_up_by_a_dead_node_when_it_goes_on(unreachable: bool) -> None:
    seen = pretraining()
    for suspend in (True, False):
        seen.job.spec = seen.job.spec.model_copy(update={"suspend": suspend})
        seen.settle()
    ended, left = seen.pods[seen.current]
    ended["status"] = {"phase": "Failed"}
    if unreachable:
        left["status"]["conditions"] = [BY_TAINT, {"type": "Ready", "status": "False"}]
    else:
        seen.wait(GANG_GRACE_SECONDS + seen.job.spec.node_lost_after_seconds - 1)
        seen.settle()
        assert seen.current == "pj-web-train-train-0"
        seen.wait(1)
    seen.settle()
    assert (seen.current, seen.status.steps[2].failures) == ("pj-web-train-train-1", 0)


def test_an_attempt_that_completes_while_it_is_stopped_is_kept_and_counted_once() -> None:
    seen = world()
    seen.settle()
    seen.run()
    seen.wait(100)
    seen.job.spec = seen.job.spec.model_copy(update={"suspend": True})
    seen.settle()
    seen.complete(seen.words(seen.current, {}, []))
    seen.wait(10)
    seen.settle()
    assert (seen.status.state, seen.status.steps[0].state, seen.status.cost.step_seconds) == ("Suspended", "Committed", 100)


@pytest.mark.parametrize(("code", "state"), [(78, "Failed"), (69, "Suspended")])
def test_a_failure_before_a_suspension_counts(code: int, state: str) -> None:
    seen = pretraining()
    seen.wait(100)
    seen.fail(code)
    seen.job.spec = seen.job.spec.model_copy(update={"suspend": True})
    seen.settle()
    assert (seen.status.state, seen.status.steps[2].failures, seen.status.steps[2].seconds) == (state, int(code == 69), 100)


def test_a_result_that_comes_while_suspended_is_kept() -> None:
    seen = world()
    seen.settle()
    seen.job.spec = seen.job.spec.model_copy(update={"suspend": True})
    seen.complete(seen.words(seen.current, {}, []))
    seen.settle()
    assert [step.state for step in seen.status.steps][:2] == ["Committed", "Waiting"]
    assert seen.created == ["aj-web-inspect-list-0"]


def test_a_job_that_is_suspended_from_the_start_starts_nothing() -> None:
    seen = world(spec=ALIGN | {"suspend": True})
    seen.settle()
    assert (seen.created, seen.status.state, seen.status.start_time) == ([], "Suspended", None)


# Failures


def test_a_failed_step_tells_the_cause_of_its_pod() -> None:
    seen = world()
    seen.settle()
    seen.fail(66, {"code": "InputEmpty", "message": "s3://corpora/web/*.jsonl matches no file", "hint": "check the URI"})
    seen.settle()
    assert seen.status.state == "Failed"
    assert ready(seen.status) == ("InputEmpty", "inspect list: s3://corpora/web/*.jsonl matches no file; check the URI")
    assert truths(seen.status) == {"Ready": "False", "Stalled": "True", "Running": "False", "Failed": "True", "Finished": "True"}
    assert seen.events[-1].kind == "Warning"
    seen.settle()
    assert seen.created == ["aj-web-inspect-list-0"]


@pytest.mark.parametrize(
    ("code", "message", "reason", "expected"),
    [
        (137, None, "BackoffLimitExceeded", "ProcessDied"),
        (75, {"code": "Stopped", "message": "was asked to stop"}, "DeadlineExceeded", "DeadlineExceeded"),
        (78, {"code": "BucketNotFound", "message": "no bucket"}, "PodFailurePolicy", "BucketNotFound"),
    ],
)
def test_the_cause_of_a_failure_is_named(code: int, message: dict[str, str] | None, reason: str, expected: str) -> None:
    seen = world()
    seen.settle()
    seen.fail(code, message, reason)
    seen.settle()
    assert ready(seen.status)[0] == expected


def test_a_gang_is_tried_again_after_a_pause_and_no_more_often_than_it_may() -> None:
    seen = pretraining()
    for failures in (1, 2):
        seen.fail(70, {"code": "RankFailed", "message": "rank 3 failed"})
        decision = seen.settle()
        assert (seen.status.state, seen.status.steps[2].failures) == ("Retrying", failures)
        assert decision.requeue == seen.now + timedelta(seconds=10 * failures)
        seen.wait(10 * failures)
        seen.settle()
        assert seen.current == f"pj-web-train-train-{failures}"
        seen.run(pods=2)
        seen.settle()
        assert seen.status.state == "Running"
    seen.fail(70, {"code": "RankFailed", "message": "rank 3 failed"})
    seen.settle()
    assert (seen.status.state, ready(seen.status)[0]) == ("Failed", "RankFailed")


def test_a_gang_that_cannot_succeed_is_not_tried_again() -> None:
    seen = pretraining()
    seen.fail(64, {"code": "MixWeight", "message": "a weight is not above 0"})
    seen.settle()
    assert seen.status.state == "Failed"


def test_disruptions_of_a_gang_do_not_count_and_are_bounded() -> None:
    seen = pretraining()
    text = "Pod team/x has condition DisruptionTarget matching FailJob rule at index 0"
    for number in range(MAX_DISRUPTIONS):
        seen.fail(75, {"code": "Stopped", "message": "was asked to stop"}, "PodFailurePolicy", text)
        seen.settle()
        assert seen.current == f"pj-web-train-train-{number + 1}"
    assert (seen.status.steps[2].failures, seen.status.steps[2].disruptions) == (0, MAX_DISRUPTIONS)
    seen.fail(75, None, "PodFailurePolicy", text)
    seen.settle()
    assert (seen.status.state, ready(seen.status)[0]) == ("Failed", "Disrupted")


def test_a_commit_whose_words_are_lost_is_asked_again() -> None:
    seen = world()
    seen.settle()
    seen.complete()
    seen.settle()
    assert seen.current == "aj-web-inspect-list-1"
    seen.finish()
    assert seen.status.state == "Complete"


@pytest.mark.parametrize("end", [World.complete, World.fail])
def test_pods_that_tell_nothing_yet_are_looked_at_closer_before_anything_is_done(end: Callable[[World], None]) -> None:
    """The Job's watch may be ahead of the pods'."""
    seen = world()
    seen.settle()
    end(seen)
    seen.pods[seen.current], seen.fresh = [], False
    decision = decide(seen.seen(), SETTINGS)
    assert decision.closer
    assert decision.closer.name == seen.current
    assert (decision.create, decision.delete, decision.status.dump()) == ([], [], seen.status.dump())


def test_what_an_earlier_pod_said_is_no_result() -> None:
    """Its successor has done the work, and the watch of pods does not know yet."""
    seen = world()
    seen.settle()
    seen.end_pod(69, {"code": "StoreUnavailable"})
    (failed,) = (pod for pod in seen.pods[seen.current] if pod["status"]["phase"] == "Failed")
    seen.complete(seen.words(seen.current, {}, []))
    seen.pods[seen.current], seen.fresh = [failed], False
    assert decide(seen.seen(), SETTINGS).closer


def test_a_child_that_somebody_deletes_is_created_again_under_its_name() -> None:
    seen = world()
    seen.settle()
    seen.jobs.clear()
    seen.settle()
    assert seen.created == ["aj-web-inspect-list-0"] * 2
    assert seen.status.steps[0].failures == 0


# Deadlines


def test_a_pod_that_cannot_start_is_told_at_once_and_stalls_the_job_after_its_deadline() -> None:
    seen = world(spec=ALIGN | {"deadlines": {"startSeconds": 60}})
    seen.settle()
    seen.pend("ImagePullBackOff", 'Back-off pulling image "registry.example/workloads"')
    seen.settle()
    assert (seen.status.state, ready(seen.status)[0]) == ("Waiting", "ImagePullBackOff")
    seen.wait(61)
    seen.settle()
    assert truths(seen.status) == {"Ready": "False", "Stalled": "True", "Running": "False"}
    assert "waiting since 2026-01-01T00:00:00Z" in ready(seen.status)[1]
    seen.run()
    seen.settle()
    assert (seen.status.state, truths(seen.status)["Stalled"]) == ("Running", "False")


def test_a_sharded_phase_that_waits_for_its_next_pod_is_no_reason_to_look_again_and_again() -> None:
    """Some of its shards are done, and it has run for longer than a pod may take to start."""
    seen = world(spec=ALIGN | {"deadlines": {"startSeconds": 60}, "sharding": {"shards": 2}})
    while "clean-filter" not in (seen.created or [""])[-1]:
        if seen.created:
            seen.complete(seen.words(seen.current, {}, []))
        seen.settle()
    seen.jobs[seen.current]["status"]["succeeded"] = 1
    seen.pend("ImagePullBackOff", "later")
    for _ in range(3):
        seen.wait(61)
        decision = seen.settle()
        assert decision.requeue is None
    assert (seen.status.state, ready(seen.status)[0]) == ("Waiting", "ImagePullBackOff")


@pytest.mark.parametrize("reason", ["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"])
def test_a_cause_that_only_events_tell_is_told_and_stalls_the_job_until_it_is_gone(reason: str) -> None:
    """A pod whose volume cannot be mounted, or without a network, stays ContainerCreating."""
    seen = world(spec=ALIGN | {"deadlines": {"startSeconds": 60}})
    seen.settle()
    seen.pend("ContainerCreating")
    pod = seen.pods[seen.current][0]["metadata"]["uid"]
    seen.tell(pod, reason, 'MountVolume.SetUp failed for volume "nativealign": secret "minio" not found')
    seen.settle()
    assert ready(seen.status)[0] == "PodsCreated"
    seen.wait(10)
    decision = seen.settle()
    assert (seen.status.state, ready(seen.status)[0]) == ("Waiting", reason)
    assert 'secret "minio" not found' in ready(seen.status)[1]
    assert decision.requeue is not None
    assert decision.requeue <= seen.now + timedelta(seconds=30)
    seen.wait(60)
    seen.settle()
    assert (seen.status.state, ready(seen.status)[0]) == ("Stalled", reason)
    before, told = seen.status.dump(), len(seen.events)
    seen.wait(60)
    assert seen.settle().requeue
    assert (seen.status.dump(), len(seen.events)) == (before, told)
    seen.tell(pod, "Pulling", "Pulling image")
    seen.settle()
    assert ready(seen.status)[0] == "PodsPending"
    seen.run()
    seen.settle()
    assert seen.status.state == "Running"


def test_a_child_whose_pods_have_ended_waits_for_nothing() -> None:
    """The Job controller needs seconds until it says that a Job is complete."""
    seen = world()
    seen.settle()
    seen.pend("ImagePullBackOff", "not found")
    seen.settle()
    seen.end_pod(0, {})
    assert seen.settle().requeue, "the next pods may wait for what events alone tell"
    assert (seen.status.state, ready(seen.status)[0], truths(seen.status)["Running"]) == ("Running", "PodsSucceeded", "True")


def test_the_end_of_a_childs_pods_costs_no_write_of_its_own() -> None:
    seen = world()
    seen.settle()
    seen.run()
    seen.settle()
    before = seen.status.dump()
    seen.end_pod(0, {})
    seen.settle()
    assert seen.status.dump() == before


def test_pods_that_fail_and_are_tried_again_by_their_job_are_told_with_their_own_words() -> None:
    seen = world(spec=ALIGN | {"deadlines": {"startSeconds": 60}})
    seen.settle()
    seen.end_pod(69, {"code": "StoreUnavailable", "message": "https://minio does not answer"})
    seen.wait(120)
    seen.settle()
    assert (seen.status.state, ready(seen.status)[0]) == ("Retrying", "StoreUnavailable")
    assert "1 pods have failed: StoreUnavailable: https://minio does not answer" in ready(seen.status)[1]
    seen.end_pod(69, {"code": "StoreUnavailable", "message": "https://minio does not answer"}, running=1)
    seen.settle()
    assert (seen.status.state, ready(seen.status)[0]) == ("Running", "PodsRunning")
    assert "https://minio does not answer" in ready(seen.status)[1]


def edited(seen: World, **changes: object) -> None:
    """The spec is changed by somebody."""
    seen.job.spec = seen.job.spec.model_copy(update=changes)
    seen.job.metadata.generation = (seen.job.metadata.generation or 0) + 1


@pytest.mark.parametrize("waits_for", ["pods", "quota"])
def test_a_child_that_has_not_started_is_made_anew_when_the_spec_is_mended(waits_for: str) -> None:
    seen = world(spec=ALIGN | ({"queueName": "research"} if waits_for == "quota" else {}))
    seen.settle()
    seen.complete(seen.words(seen.current, {}, []))
    seen.settle()
    created, first = list(seen.created), seen.current
    if waits_for == "quota":
        seen.jobs[first]["spec"]["suspend"] = True
    else:
        seen.pend("ImagePullBackOff", "no such image")
    seen.settle()
    edited(seen, ttl_seconds_after_finished=60)
    seen.settle()
    assert seen.created == created, "nothing that the child is made by has changed"
    edited(seen, image="registry.example/mended:1")
    seen.settle()
    assert first not in seen.jobs
    (container,) = seen.jobs[seen.current]["spec"]["template"]["spec"]["containers"]
    assert (len(seen.created), container["image"]) == (len(created) + 1, "registry.example/mended:1")
    assert [event.reason for event in seen.events].count("SpecChanged") == 1
    assert not seen.status.steps[1].failures
    seen.run()
    edited(seen, image="registry.example/later:1")
    seen.settle()
    assert len(seen.created) == len(created) + 1, "pods that run are let alone"


def test_a_quota_that_refuses_every_pod_is_told() -> None:
    seen = world()
    seen.settle()
    seen.tell(f"uid-{seen.current}", "FailedCreate", "exceeded quota: compute")
    seen.wait(10)
    seen.settle()
    assert (seen.status.state, ready(seen.status)[0]) == ("Waiting", "FailedCreate")


def test_a_pods_own_word_counts_before_its_events() -> None:
    seen = world()
    seen.settle()
    seen.pend("ImagePullBackOff", "no such image")
    seen.tell(seen.pods[seen.current][0]["metadata"]["uid"], "FailedMount", "it took a moment")
    seen.wait(10)
    seen.settle()
    assert ready(seen.status)[0] == "ImagePullBackOff"


def test_kueue_is_named_as_the_reason_to_wait() -> None:
    seen = world(spec=ALIGN | {"queueName": "research"})
    seen.settle()
    seen.jobs[seen.current]["spec"]["suspend"] = True
    seen.queue = ("QuotaReserved", "couldn't assign flavors: insufficient unused quota")
    seen.settle()
    assert (seen.status.state, ready(seen.status)[0]) == ("Queued", "QuotaReserved")
    seen.wait(10**6)
    seen.settle()
    assert seen.status.state == "Queued"


def queued(seen: World, held: bool, reason: str = "Pending") -> None:
    """Kueue holds the current child, or lets it go; its Job has a start time of its own each time."""
    job = seen.jobs[seen.current]
    job["spec"]["suspend"] = held
    job["status"] = {} if held else {"startTime": stamp(seen.now)}
    seen.pods[seen.current] = []
    seen.queue = (reason, "insufficient unused quota") if held else None
    seen.settle()


def test_time_in_a_queue_costs_nothing_and_that_of_preempted_pods_does() -> None:
    seen = pretraining()
    train = seen.status.steps[2]
    before = seen.status.cost.accelerator_seconds
    seen.wait(100)
    queued(seen, True, "Preempted")
    assert (seen.status.state, ready(seen.status)[0], train.failures) == ("Queued", "Preempted", 0)
    seen.wait(1000)
    queued(seen, True)
    queued(seen, False)
    seen.run(pods=2)
    seen.settle()
    seen.wait(10)
    seen.complete()
    seen.settle()
    gpus = 2 * seen.job.spec.train_resources.gpus_per_node
    assert seen.status.cost.accelerator_seconds - before == 110 * gpus


@pytest.mark.parametrize("suspend", [False, True])
def test_the_time_in_a_queue_is_no_start_that_takes_too_long(suspend: bool) -> None:
    """Kueue has let it go, and the Job controller has not written yet that it has started."""
    seen = pretraining()
    before = seen.status.cost.step_seconds
    queued(seen, held=True)
    spent = seen.status.cost.step_seconds
    seen.wait(4 * 3600)
    seen.settle()
    seen.job.spec = seen.job.spec.model_copy(update={"queue_name": "research", "suspend": suspend})
    seen.jobs[seen.current]["spec"]["suspend"] = False
    seen.settle()
    assert seen.status.state == ("Suspended" if suspend else "Running")
    assert (seen.status.cost.step_seconds, spent) == (spent, before)


def test_a_job_that_is_suspended_in_a_queue_has_cost_nothing() -> None:
    seen = pretraining()
    before = seen.status.cost
    queued(seen, True)
    seen.wait(1000)
    seen.job.spec = seen.job.spec.model_copy(update={"suspend": True})
    seen.settle()
    assert (seen.status.state, seen.status.cost) == ("Suspended", before)


def test_kueue_is_asked_again_and_rarer_the_longer_it_holds_a_job() -> None:
    seen = world(spec=ALIGN | {"queueName": "research"})
    seen.settle()
    looks = []
    for seconds in (0, 100, 100_000):
        seen.wait(seconds)
        queued(seen, True)
        looks.append((seen.look().requeue or seen.now) - seen.now)
    assert looks == [timedelta(seconds=2), timedelta(seconds=25), timedelta(seconds=60)]


def test_a_child_that_the_apiserver_refuses_is_told_until_it_is_there() -> None:
    seen = world()
    seen.refused = "Stalled", 'Job aj-web-inspect-list-0: spec.template.spec.tolerations[0].operator: Invalid value: "Equal"'
    seen.look()
    assert (seen.status.state, ready(seen.status)) == ("Stalled", ("ChildRefused", seen.refused[1]))
    seen.refused = None
    seen.settle()
    assert (seen.status.state, truths(seen.status)["Stalled"]) == ("Running", "False")


def test_a_gang_that_comes_no_further_is_stopped_and_counts_as_failed() -> None:
    seen = pretraining()
    child = seen.child(seen.current)
    began = seen.now
    seen.progress[child.name] = Progress(40.0, 100.0, began, began)
    seen.settle()
    assert (seen.status.steps[2].progress, seen.status.steps[2].eta) == ("40%", "1m40s")
    seen.wait(seen.job.spec.deadlines.progress_seconds)
    seen.settle()
    assert child.name in seen.jobs  # nobody has asked since
    seen.progress[child.name] = Progress(40.0, 100.0, began, seen.now)
    seen.settle()
    assert child.name not in seen.jobs
    assert (seen.current, seen.status.steps[2].failures) == ("pj-web-train-train-1", 1)
    assert any(event.reason == "NoProgress" for event in seen.events)


def test_the_pods_of_a_lost_node_are_given_up() -> None:
    seen = pretraining()
    lost = seen.pods[seen.current][1]
    lost["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    lost["status"]["conditions"] = [BY_TAINT, {"type": "Ready", "status": "True"}]
    seen.settle()
    assert seen.current == "pj-web-train-train-0"  # a taint of a node that lives: its pods end by themselves
    lost["status"]["conditions"] = [BY_TAINT, {"type": "Ready", "status": "False"}]
    seen.settle()
    assert (seen.current, seen.status.steps[2].failures, seen.status.steps[2].disruptions) == ("pj-web-train-train-1", 0, 1)


@pytest.mark.parametrize("phase", ["Failed", "Pending"])
def test_a_pod_that_a_living_node_ends_for_its_taint_does_not_end_the_others(phase: str) -> None:
    seen = world()
    seen.settle()
    seen.complete(seen.words(seen.current, {}, []))
    seen.settle()
    seen.run(pods=3)
    drained = seen.pods[seen.current][0]
    drained["metadata"]["deletionTimestamp"] = stamp(seen.now + timedelta(seconds=30))
    drained["status"] |= {"phase": phase, "conditions": [BY_TAINT, {"type": "Ready", "status": "False"}]}
    seen.settle()
    assert (seen.current, seen.status.state) == ("aj-web-clean-filter-0", "Running")


def test_the_pods_that_outlive_their_grace_are_given_up() -> None:
    seen = pretraining()
    late = seen.pods[seen.current][1]
    late["metadata"]["deletionTimestamp"] = stamp(seen.now + timedelta(seconds=600))  # as Kubernetes sets it: when the grace ends
    late["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
    seen.wait(600 + seen.job.spec.node_lost_after_seconds - 1)
    seen.settle()
    assert seen.current == "pj-web-train-train-0"
    seen.wait(1)
    seen.settle()
    assert (seen.current, seen.status.steps[2].disruptions) == ("pj-web-train-train-1", 1)


def test_a_gang_that_lacks_a_pod_waits_and_says_why() -> None:
    seen = pretraining()
    gang = seen.pods[seen.current]
    seen.jobs[seen.current]["status"]["ready"] = 1
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/4 nodes are available"}
    gang[1] = gang[1] | {"status": {"phase": "Pending", "conditions": [unschedulable]}}
    seen.settle()
    told = "train train: 1 of 2 pods have started; 0/4 nodes are available"
    assert (seen.status.state, ready(seen.status), truths(seen.status)["Running"]) == ("Waiting", ("Unschedulable", told), "True")
    seen.wait(seen.job.spec.deadlines.start_seconds)
    seen.settle()
    assert (seen.status.state, ready(seen.status)[0]) == ("Stalled", "Unschedulable")
    seen.run(pods=2)
    seen.settle()
    assert (seen.status.state, seen.status.steps[2].failures) == ("Running", 0)


def test_events_tell_why_a_gang_lacks_a_pod() -> None:
    seen = pretraining()
    seen.jobs[seen.current]["status"]["ready"] = 1
    pod = seen.pods[seen.current][1]
    pod["status"] = {
        "phase": "Pending",
        "containerStatuses": [{"name": CONTAINER, "state": {"waiting": {"reason": "ContainerCreating"}}}],
    }
    seen.tell(pod["metadata"]["uid"], "FailedMount", 'secret "s3" not found')
    seen.wait(60)
    seen.settle()
    assert (seen.status.state, ready(seen.status)[0]) == ("Waiting", "FailedMount")


def test_what_was_tried_again_with_success_is_not_why_a_job_failed() -> None:
    """Index 3 failed for a while, index 4 was drained, index 7 has data that no attempt can read."""
    seen = world()
    seen.settle()
    seen.complete(seen.words(seen.current, {}, []))
    seen.settle()
    seen.fail(65, {"code": "InputUnreadable", "message": "web.jsonl cannot be read"})
    unreadable = seen.pods[seen.current][0]
    seen.wait(-60)
    seen.end_pod(69, {"code": "StoreUnavailable", "message": "no answer"})
    (passing,) = seen.pods[seen.current]
    seen.end_pod(75, {"code": "Stopped", "message": "asked to stop"})
    (drained,) = seen.pods[seen.current]
    seen.pods[seen.current] = [_at(passing, 3), _at(drained, 4), _at(unreadable, 7)]
    seen.jobs[seen.current]["status"]["failedIndexes"] = "1,5-7"
    seen.settle()
    assert (seen.status.state, ready(seen.status)[0]) == ("Failed", "InputUnreadable")


def _at(pod: Json, index: int) -> Json:
    annotations = {"batch.kubernetes.io/job-completion-index": str(index)}
    return pod | {"metadata": pod["metadata"] | {"name": f"pod-{index}", "uid": f"uid-{index}", "annotations": annotations}}


def test_what_an_operator_died_before_deleting_does_not_run_on() -> None:
    """The status of the next attempt was written, and the frozen one is still there."""
    seen = pretraining()
    first = seen.jobs[seen.current]
    seen.job.status.steps[2].attempt = 1
    seen.settle()
    assert (first["metadata"]["name"] in seen.jobs, seen.current) == (False, "pj-web-train-train-1")


def test_nothing_runs_on_after_the_end() -> None:
    seen = pretraining()
    say(seen.job.status, "Failed", "NoProgress", "out of retries", seen.now)
    seen.settle()
    assert not [child for child in map(seen.child, seen.jobs) if child.outcome is None]


def test_a_child_knows_what_goes_with_it() -> None:
    seen = pretraining()
    gang, single = seen.child("pj-web-train-train-0"), seen.child("pj-web-inspect-list-0")
    assert (gang.service, single.service) == ("pj-web-train-train-0", None)
    assert str(single.config_map).startswith("pj-web-inspect-list-0-")


# The end


def test_the_jobs_of_a_finished_job_go_after_their_time_and_never_come_back() -> None:
    seen = world(spec=ALIGN | {"ttlSecondsAfterFinished": 60})
    created = list(seen.finish())
    assert len(seen.jobs) == len(created)
    seen.wait(61)
    seen.settle()
    assert seen.jobs == {}
    seen.job.metadata.generation = 2
    seen.settle()
    assert (seen.created, seen.status.state, seen.status.observed_generation) == (created, "Complete", 2)


def test_a_job_that_is_being_deleted_is_left_alone() -> None:
    seen = world()
    seen.deleting = True
    assert seen.look().create == []
    assert seen.status == JobStatus()


def test_operational_fields_take_effect_at_the_next_child() -> None:
    seen = world()
    seen.settle()
    seen.complete(seen.words(seen.current, {}, []))
    seen.job.spec = seen.job.spec.model_copy(update={"parallelism": 3, "image": "registry.example/other"})
    seen.settle()
    assert seen.jobs[seen.current]["spec"]["parallelism"] == 3
    assert _image(seen) == "registry.example/other"
    seen.job.spec = seen.job.spec.model_copy(update={"image": None})
    seen.complete(seen.words(seen.current, {}, []))
    seen.settle()
    assert _image(seen) == SETTINGS.image


def test_an_image_that_was_named_at_the_start_and_is_taken_back_counts_no_more() -> None:
    seen = world()
    seen.job.spec = seen.job.spec.model_copy(update={"image": "registry.example/typo"})
    seen.settle()
    assert _image(seen) == "registry.example/typo"
    seen.job.spec = seen.job.spec.model_copy(update={"image": None})
    seen.complete(seen.words(seen.current, {}, []))
    seen.settle()
    assert _image(seen) == SETTINGS.image


def _image(seen: World) -> str:
    return str(seen.jobs[seen.current]["spec"]["template"]["spec"]["containers"][0]["image"])


def test_an_upgraded_operator_keeps_the_image_and_the_store_of_a_run() -> None:
    seen = world()
    seen.job.spec = seen.job.spec.model_copy(update={"store": None})
    seen.settle()
    seen.complete(seen.words(seen.current, {}, []))
    other = Store.model_validate({"bucket": "other", "endpoint": "https://s3.example"})
    decision = decide(seen.seen(), RenderSettings("registry.example/newer", other))
    made = {item["kind"]: item for item in decision.create}
    assert made["Job"]["spec"]["template"]["spec"]["containers"][0]["image"] == SETTINGS.image
    (told,) = made["ConfigMap"]["data"].values()
    assert json.loads(told)["store"]["bucket"] == SETTINGS.store.bucket


@pytest.mark.parametrize(
    ("reported", "recorded"),
    [
        ("registry.example/workloads@sha256:" + "a" * 64, ["registry.example/workloads@sha256:" + "a" * 64]),
        ("docker-pullable://registry.example/workloads@sha256:" + "a" * 64, ["registry.example/workloads@sha256:" + "a" * 64]),
        ("sha256:" + "b" * 64, ["sha256:" + "b" * 64]),
        ("", []),
    ],
)
def test_each_step_records_the_image_that_ran_and_starts_from_the_one_asked_for(reported: str, recorded: list[str]) -> None:
    seen, plain = world(), world()
    seen.image_id = reported
    seen.finish()
    plain.finish()
    assert [step.images for step in seen.status.steps] == [recorded] * 5
    assert seen.status.pinned.images == {"workload": SETTINGS.image}
    assert [step.digest for step in seen.status.steps] == [step.digest for step in plain.status.steps]


def test_a_tag_that_is_moved_in_mid_step_leaves_both_images_on_record() -> None:
    seen = pretraining()
    for letter in "ba":
        seen.image_id = "registry.example/workloads@sha256:" + letter * 64
        seen.run(pods=2)
        seen.settle()
        seen.fail(70, {"code": "RankFailed", "message": "rank 3 failed"})
        seen.settle()
        seen.wait(60)
        seen.settle()
    assert [image[-1] for image in seen.status.steps[2].images] == ["a", "b"]
