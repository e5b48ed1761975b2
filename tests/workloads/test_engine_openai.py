"""The HTTP engine against a real server of the protocol: order, retries, rates, budget, and clear ends."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.workloads.openai_server import Answer, OpenAIServer, completion, error, openai_server

from nativealign_workloads.engines import journal as writing
from nativealign_workloads.engines.budget import Budget, BudgetExhausted, Limits, Spent
from nativealign_workloads.engines.journal import LOOKED_UP, Journal, key_of
from nativealign_workloads.engines.openai_endpoint import RETRY_TEMPERATURE, Endpoint, estimated_tokens
from nativealign_workloads.engines.openai_http import OpenAIEngine, Rates
from nativealign_workloads.engines.pacing import Backoff, Pace, retry_after_seconds
from nativealign_workloads.engines.protocol import Reply, Request
from nativealign_workloads.errors import ConfigError, PermissionDenied, StoppedError, UnavailableError
from nativealign_workloads.store import LocalStore

KEY = "sk-very-secret-key"


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with openai_server() as running:
        yield running


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def engine(server: OpenAIServer, time: Time, tmp_path: Path) -> Iterator[Callable[..., OpenAIEngine]]:
    made: list[OpenAIEngine] = []

    def make(
        budget: Budget | None = None, url: str | None = None, key: str | None = KEY, journal: Journal | None = None, **limits: Any
    ) -> OpenAIEngine:
        endpoint = Endpoint(url or server.url, "m", key, timeout_seconds=limits.pop("timeout_seconds", 60))
        bounds = Rates(**{"concurrency": 4, "attempts": 3, **limits})
        record = journal or Journal(LocalStore(tmp_path), f"engine-{len(made)}", "writer")
        made.append(OpenAIEngine(endpoint, record, bounds, budget, clock=time.clock, sleep=time.sleep))
        return made[-1]

    yield make
    for one in made:
        one.close()


def requests(count: int) -> list[Request]:
    return [Request(f"r{i}", [{"role": "user", "content": f"text {i}"}], f"text {i}", 20) for i in range(count)]


def test_replies_come_in_the_order_of_the_requests_with_their_tokens(server, engine) -> None:
    replies = engine().generate(requests(20))
    assert [(r.id, r.text, r.finish_reason) for r in replies] == [(f"r{i}", f"TEXT {i}", "Stop") for i in range(20)]
    assert {(r.prompt_tokens, r.completion_tokens, r.model, r.error) for r in replies} == {(10, 5, "served", None)}


def test_the_request_is_deterministic_and_carries_the_key(server, engine) -> None:
    engine().generate(requests(1))
    assert server.requests == [
        {"model": "m", "messages": [{"role": "user", "content": "text 0"}], "max_tokens": 20, "temperature": 0, "seed": 0}
    ]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_further_attempt_is_asked_with_another_seed_at_a_temperature_at_which_it_matters(server, engine) -> None:
    engine().generate([replace(requests(1)[0], attempt=2)])
    assert (server.requests[0]["seed"], server.requests[0]["temperature"]) == (2, RETRY_TEMPERATURE)


def test_nothing_of_the_environment_goes_to_the_endpoint(server, engine, monkeypatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "from-environment")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    engine(key=None).generate(requests(1))
    assert not any("from-environment" in value for value in server.headers[0].values())


def test_an_engine_serves_many_batches(server, engine) -> None:
    one = engine()
    assert [one.generate(requests(3))[2].text for _ in range(3)] == ["TEXT 2"] * 3
    assert one.generate([]) == []


@pytest.mark.parametrize(
    "failure",
    [
        error(500),
        error(429),
        Answer(close=True),
        Answer(body=b"<html>gateway</html>", headers=(("Content-Type", "text/html"),)),
        Answer(body=b"{not json"),
        Answer(body=b"[]"),
        Answer(body=b'{"choices": []}'),
        Answer(body=b'{"choices": null}'),
        Answer(body=b'{"choices": [{"message": null}]}'),
        Answer(body=b""),
        Answer(body=completion("")),
        Answer(body=completion(None)),
    ],
    ids=lambda a: f"{a.status}-{(a.body or b'')[:25].decode()}",
)
def test_a_passing_failure_is_tried_again(server, engine, failure: Answer) -> None:
    server.script.extend([failure, failure])
    (reply,) = engine().generate(requests(1))
    assert (reply.text, reply.finish_reason) == ("TEXT 0", "Stop")
    assert len(server.requests) == 3


def test_a_request_that_never_succeeds_is_an_error_reply_and_the_others_stand(server, engine) -> None:
    server.script.extend([Answer(body=completion("fine"))] + [error(503, "busy")] * 3)
    replies = engine(concurrency=1).generate(requests(3))
    assert [r.finish_reason for r in replies] == ["Stop", "Error", "Stop"]
    assert replies[1].error == "Error code: 503 - busy (after 3 attempts)"


def test_retry_after_is_honoured(server, engine, time: Time) -> None:
    server.script.append(error(429, Retry_After="37"))
    engine().generate(requests(1))
    assert time.now >= 37


def test_a_server_that_is_too_slow_is_given_up(server, engine) -> None:
    server.script.append(Answer(hang=True))
    (reply,) = engine(timeout_seconds=1).generate(requests(1))
    assert reply.text == "TEXT 0"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(body=completion("half", "length")), ("half", "Length")),
        (Answer(body=completion(None, "length")), ("", "Length")),
        (Answer(body=completion(None, "content_filter")), ("", "Refusal")),
        (Answer(body=completion(None, "stop", refusal="I cannot")), ("", "Refusal")),
    ],
)
def test_finish_reasons_are_translated(server, engine, answer: Answer, expected: tuple[str, str]) -> None:
    server.script.append(answer)
    (reply,) = engine().generate(requests(1))
    assert (reply.text, reply.finish_reason) == expected


def test_a_prompt_that_is_refused_as_too_long_fails_alone_and_at_once(server, engine) -> None:
    server.script.append(error(400, "context length exceeded"))
    (reply,) = engine().generate(requests(1))
    assert (reply.finish_reason, reply.error) == ("Error", "Error code: 400 - context length exceeded")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (error(401, f"bad key {KEY}"), PermissionDenied, "ExpertUnauthorized"),
        (error(403), PermissionDenied, "ExpertUnauthorized"),
        (error(404), ConfigError, "ModelNotFound"),
        (error(400, "unknown parameter: 'response_format'"), ConfigError, "NoStructuredOutputs"),
        (error(429, code="insufficient_quota"), ConfigError, "QuotaExhausted"),
    ],
)
def test_what_no_retry_can_mend_stops_everything(server, engine, answer: Answer, kind: type, code: str) -> None:
    server.forever = answer
    with pytest.raises(kind) as caught:
        engine().generate(requests(50))
    assert caught.value.code == code
    assert KEY not in str(caught.value)
    assert len(server.requests) <= 8


@pytest.mark.parametrize("failure", [error(500), Answer(close=True), Answer(body=b"garbage")])
def test_an_endpoint_that_gives_nothing_usable_is_unavailable(server, engine, failure: Answer) -> None:
    server.forever = failure
    with pytest.raises(UnavailableError, match="ExpertUnavailable"):
        engine().generate(requests(50))
    assert len(server.requests) <= 4 * 3 + 8


def test_an_endpoint_that_is_not_there_is_unavailable(engine) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(UnavailableError, match="connection failed"):
        engine(url=url).generate(requests(2))


def test_the_budget_of_requests_is_a_hard_stop_and_keeps_what_is_paid(server, engine) -> None:
    budget = Budget(Limits(requests=5))
    asked = engine(budget)
    with pytest.raises(BudgetExhausted, match="spent 5 of 5 requests"):
        asked.generate(requests(9))
    assert len(server.requests) == 5
    assert budget.spent.tokens == 75


def test_a_retry_that_the_budget_has_no_room_for_ends_the_call(server, engine) -> None:
    """With others waiting for the only slot, whose room nobody will give back."""
    estimate = estimated_tokens(requests(1)[0]).total
    server.script.append(error(503))
    with pytest.raises(BudgetExhausted):
        engine(Budget(Limits(tokens=3 * estimate)), concurrency=1).generate(requests(9))
    assert len(server.requests) < 9


def test_an_interrupted_engine_takes_no_further_call(server, engine) -> None:
    one = engine()
    one.interrupt(StoppedError("Stopped", "asked to stop"))
    with pytest.raises(StoppedError):
        one.generate(requests(1))
    assert server.requests == []


def test_retries_count_against_the_budget(server, engine) -> None:
    server.forever = error(500)
    with pytest.raises(BudgetExhausted):
        engine(Budget(Limits(requests=2)), attempts=9).generate(requests(1))
    assert len(server.requests) == 2


def test_the_budget_of_tokens_is_never_passed_and_used_to_its_end(server, engine) -> None:
    estimate = estimated_tokens(requests(1)[0]).total
    assert estimate > 15
    budget = Budget(Limits(tokens=15 * 6 + estimate))
    with pytest.raises(BudgetExhausted):
        engine(budget).generate(requests(30))
    assert 15 * 6 < budget.spent.tokens <= 15 * 6 + estimate
    assert not budget.under_way


def test_a_budget_carries_over_what_was_spent_before(server, engine) -> None:
    with pytest.raises(BudgetExhausted):
        engine(Budget(Limits(requests=5), spent=Spent(requests=5))).generate(requests(1))
    assert server.requests == []


def test_requests_per_minute_are_kept(server, engine, time: Time) -> None:
    engine(requests_per_minute=60).generate(requests(10))
    assert time.now >= 9


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({"limit-requests": "60", "remaining-requests": "0", "reset-requests": "1m0s"}, 1.0),
        ({"limit-requests": "60", "remaining-requests": "1", "reset-requests": "59s"}, 0.0),
        ({"limit-tokens": "12000", "remaining-tokens": "0", "reset-tokens": "60"}, "tokens"),
        ({"limit-tokens": "9", "remaining-tokens": "0", "reset-tokens": "500ms"}, 0.5),
        ({"limit-requests": "60", "remaining-requests": "0", "reset-requests": "2026-11-28T00:00:00Z"}, 0.0),
        ({"limit-requests": "many", "remaining-requests": "0", "reset-requests": "1h"}, 0.0),
        ({"limit-requests": "1", "remaining-requests": "0", "reset-requests": "24h0m0s"}, 600.0),
    ],
)
def test_what_the_endpoint_says_of_its_room_is_waited_for(
    server, engine, time: Time, told: dict[str, str], seconds: float | str
) -> None:
    headers = tuple((f"x-ratelimit-{name}", value) for name, value in told.items())
    server.script.append(Answer(body=completion("نعم"), headers=headers))
    engine(concurrency=1).generate(requests(2))
    if seconds == "tokens":
        seconds = estimated_tokens(requests(1)[0]).total / 200  # 12,000 a minute
    assert time.now == pytest.approx(seconds)


def test_tokens_per_minute_are_kept(server, engine, time: Time) -> None:
    engine(tokens_per_minute=60, concurrency=1).generate(requests(5))
    assert time.now >= 4 * 15


def test_never_more_than_the_allowed_requests_run_at_once() -> None:
    time = Time()
    pace = Pace(120, time.clock, time.sleep)

    async def take_three() -> None:
        for _ in range(3):
            await pace.take(1)

    asyncio.run(take_three())
    assert time.slept == [0.5, 0.5]


def test_waits_grow_within_their_cap_and_respect_the_server() -> None:
    backoff = Backoff(first=1, cap=8)
    waits = [backoff.wait(n, None) for n in range(1, 9)]
    assert all(0.5 * min(8, 2 ** (n - 1)) <= wait <= min(8, 2 ** (n - 1)) for n, wait in enumerate(waits, 1))
    assert backoff.wait(1, 1e9) == 600
    assert retry_after_seconds({"retry-after": "12"}) == 12
    assert retry_after_seconds({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0
    assert retry_after_seconds({"retry-after": "soon"}) is None
    assert retry_after_seconds({}) is None


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
def test_a_prompt_that_the_endpoints_moderation_refuses_is_a_refusal(server, engine, code: str) -> None:
    server.script.extend([error(400, "filtered", code), error(400, "too long", "context_length_exceeded")])
    replies = engine(concurrency=1).generate(requests(3))
    assert [reply.finish_reason for reply in replies] == ["Refusal", "Error", "Stop"]
    assert replies[0].error == "Error code: 400 - filtered"


def test_every_attempt_is_billed_also_one_that_gave_nothing(server, engine) -> None:
    server.script.extend([error(503), Answer(body=completion(""))])
    (reply,) = engine().generate(requests(1))
    assert (reply.requests, reply.prompt_tokens, reply.completion_tokens) == (3, 20, 10)


def test_calls_from_several_threads_share_the_slots(server, engine) -> None:
    one = engine(concurrency=2)
    server.gate = threading.Semaphore(0)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(one.generate, requests(3)[n : n + 1]) for n in range(3)]
        server.wait_for(2)
        assert server.under_way == 2
        server.gate.release(3)
        assert [call.result()[0].text for call in calls] == ["TEXT 0", "TEXT 1", "TEXT 2"]
    assert server.most_under_way == 2


# The journal


def journal(folder: Path) -> Journal:
    return Journal(LocalStore(folder), "journal", "writer")


def test_answers_that_a_spent_budget_cut_off_are_not_asked_for_again(server, engine, tmp_path: Path) -> None:
    with pytest.raises(BudgetExhausted):
        engine(Budget(Limits(requests=5)), journal=journal(tmp_path)).generate(requests(9))
    found = journal(tmp_path)
    assert found.usage() == used(5)
    again = engine(Budget(Limits(requests=9), spent=Spent(5, 75)), journal=found)
    assert [reply.text for reply in again.generate(requests(9))] == [f"TEXT {i}" for i in range(9)]
    assert len(server.requests) == 9
    assert journal(tmp_path).usage() == used(9)


def test_what_was_answered_before_the_key_was_refused_is_kept(server, engine, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(writing, "WRITE_SECONDS", 0.5)
    server.script.extend([Answer(body=completion("TEXT"))] * 4)
    server.forever = error(401)
    one = engine(journal=journal(tmp_path))
    with pytest.raises(PermissionDenied):
        one.generate(requests(9))
    one.close()
    assert journal(tmp_path).usage() == used(4) | {"requests": len(server.requests)}
    assert journal(tmp_path).answers == 4


def test_what_failed_and_useless_requests_cost_is_in_the_journal(server, engine, tmp_path: Path) -> None:
    server.forever = error(503)
    server.script.append(Answer(body=completion("")))
    with pytest.raises(UnavailableError):
        engine(attempts=2, journal=journal(tmp_path)).generate(requests(2))
    assert journal(tmp_path).usage() == used(1) | {"requests": len(server.requests)}


@pytest.mark.parametrize(
    "lost", [Answer(close=True), Answer(hang=True), Answer(body=b"{not json")], ids=["cut", "silent", "garbage"]
)
def test_a_request_whose_answer_is_lost_counts_in_full(server, engine, tmp_path: Path, lost: Answer) -> None:
    server.script.append(lost)
    budget, highest = Budget(), estimated_tokens(requests(1)[0]).total
    engine(budget, journal=journal(tmp_path), timeout_seconds=2 if lost.hang else 60).generate(requests(1))
    assert journal(tmp_path).usage() == used(1) | {"unsettledRequests": 1, "unsettledTokens": highest}
    assert budget.spent.tokens == 15 + highest


def test_an_endpoint_that_cannot_be_reached_bills_nothing(engine, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(UnavailableError):
        engine(url=url, journal=journal(tmp_path)).generate(requests(2))
    assert journal(tmp_path).usage()["unsettledRequests"] == 0


def test_the_endpoint_is_told_the_id_under_which_the_journal_knows_a_request(server, engine, tmp_path: Path) -> None:
    engine(journal=journal(tmp_path)).generate(requests(3))
    rows = [row for path in tmp_path.rglob("*.json") for row in json.loads(path.read_text())["intents"]]
    assert {row["id"] for row in rows} == {headers["x-client-request-id"] for headers in server.headers}


def test_nothing_leaves_while_the_store_takes_no_intent(server, engine, tmp_path: Path) -> None:
    class Full(LocalStore):
        def create(self, key: str, data: bytes) -> None:
            raise UnavailableError("StoreDown", "no answer")

    with pytest.raises(UnavailableError, match="StoreDown"):
        engine(journal=Journal(Full(tmp_path), "journal", "writer")).generate(requests(9))
    assert server.requests == []


def test_an_interrupted_engine_lets_what_is_under_way_end_and_asks_no_more(server, engine, tmp_path: Path) -> None:
    one, server.gate = engine(concurrency=2, journal=journal(tmp_path)), threading.Semaphore(0)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(one.generate, requests(9))
        server.wait_for(2)
        one.interrupt(StoppedError("Stopped", "asked to stop"))
        server.gate.release(9)
        with pytest.raises(StoppedError):
            call.result()
    assert len(server.requests) == 2
    assert journal(tmp_path).usage() == used(2)


def test_a_request_that_waits_for_room_never_left_when_the_engine_is_interrupted(
    server, engine, time: Time, tmp_path: Path
) -> None:
    waits = threading.Event()

    async def never(seconds: float) -> None:
        waits.set()
        await asyncio.Event().wait()

    time.sleep = never  # type: ignore[method-assign]
    told = (("x-ratelimit-limit-requests", "1"), ("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "1h"))
    server.script.append(Answer(body=completion("نعم"), headers=told))
    one = engine(concurrency=1, journal=journal(tmp_path))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(one.generate, requests(2))
        assert waits.wait(30)
        one.interrupt(StoppedError("Stopped", "asked to stop"))
        with pytest.raises(StoppedError):
            call.result()
    assert len(server.requests) == 1
    assert journal(tmp_path).usage() == used(1)


def test_answers_are_found_in_any_order_though_memory_holds_a_few_objects(tmp_path: Path) -> None:
    record, asked = journal(tmp_path), requests(3 * LOOKED_UP)
    for request in asked:
        record.record([(request, Reply(request.id, f"answer to {request.id}", "Stop", 0, 0, "m"))])
    again = journal(tmp_path)
    assert again.answers == len(asked)
    for request in [*asked, *reversed(asked)]:
        assert again.reply(key_of(request)).text == f"answer to {request.id}"
    assert ("r0", 1) not in again, "another attempt is another request"


def test_what_another_writer_has_added_is_seen_when_looked_for(tmp_path: Path) -> None:
    mine, other = journal(tmp_path), Journal(LocalStore(tmp_path), "journal", "another")
    (request,) = requests(1)
    other.record([(request, Reply(request.id, "answer", "Stop", 0, 0, "m"))])
    assert key_of(request) not in mine
    mine.refresh()
    assert mine.reply(key_of(request)).text == "answer"


def used(requests: int) -> dict[str, int]:
    return {
        "requests": requests,
        "tokens": 15 * requests,
        "completionTokens": 5 * requests,
        "unsettledRequests": 0,
        "unsettledTokens": 0,
    }
