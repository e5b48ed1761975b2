"""The Batch API engine against a real server of it: answers, budgets, clear ends, and no batch twice whatever is cut."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.workloads.batch_server import BatchServer, Json, batch_server, line, upper
from tests.workloads.openai_server import completion

from nativealign_workloads.engines import openai_batch
from nativealign_workloads.engines.budget import Budget, BudgetExhausted, Limits, Spent
from nativealign_workloads.engines.journal import Batch, Journal
from nativealign_workloads.engines.openai_batch import OpenAIBatchEngine
from nativealign_workloads.engines.openai_endpoint import Endpoint, estimated_tokens
from nativealign_workloads.engines.protocol import Request
from nativealign_workloads.errors import ConfigError, StoppedError, UnavailableError
from nativealign_workloads.store import LocalStore

COUNT = 7


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setattr(openai_batch, "FIRST_POLL", 0.0)
    monkeypatch.setattr(openai_batch, "GONE_SECONDS", 0.0)
    with batch_server() as running:
        yield running


def requests(count: int = COUNT) -> list[Request]:
    return [Request(f"r{n}", [{"role": "user", "content": f"text {n}"}], f"text {n}", 20) for n in range(count)]


def texts(count: int = COUNT) -> list[str]:
    return [f"TEXT {n}" for n in range(count)]


def journal(folder: Path) -> Journal:
    return Journal(LocalStore(folder), "journal", "writer")


def engine(server: BatchServer, record: Journal, tokens: int | None = None) -> OpenAIBatchEngine:
    def left() -> Budget:
        used = record.usage()
        return Budget(Limits(tokens=tokens), spent=Spent(tokens=used["tokens"] + used["unsettledTokens"]))

    return OpenAIBatchEngine(Endpoint(server.url, "m", "key"), record, left)


def ask(server: BatchServer, folder: Path, count: int = COUNT) -> list[str]:
    return [reply.text for reply in engine(server, journal(folder)).generate(requests(count))]


def test_a_call_is_one_batch_and_its_answers_come_in_order(server, tmp_path: Path) -> None:
    server.polls = 2
    server.answer = lambda request: upper(request) if len(server.requests) else None
    assert ask(server, tmp_path) == texts()
    assert len(server.batches) == 1
    assert server.batches[0]["endpoint"] == "/v1/chat/completions"
    assert {request["body"]["model"] for request in server.requests} == {"m"}
    found = journal(tmp_path).usage()
    assert (found["requests"], found["tokens"], found["unsettledRequests"]) == (COUNT, 15 * COUNT, 0)
    assert server.files == {}, "the texts stay nowhere"


def test_an_answer_with_unusual_line_ends_is_one_answer(server, tmp_path: Path) -> None:
    server.answer = lambda request: line(request["custom_id"], completion("a\u2028b\x85c\x1cd"))
    assert ask(server, tmp_path, 1) == ["a\u2028b\x85c\x1cd"]


def test_an_account_that_is_used_up_is_told_and_what_was_answered_is_kept(server, tmp_path: Path) -> None:
    used_up = json.dumps({"error": {"message": "no money", "code": "insufficient_quota"}}).encode()
    server.answer = lambda request: line(request["custom_id"], used_up, 429) if "text 1" in str(request) else upper(request)
    with pytest.raises(ConfigError, match=r"QuotaExhausted: .*no money"):
        ask(server, tmp_path)
    server.answer = upper
    assert ask(server, tmp_path) == texts()
    assert len(server.requests) == COUNT + 1


def test_what_is_answered_is_not_asked_again(server, tmp_path: Path) -> None:
    ask(server, tmp_path, 4)
    assert ask(server, tmp_path) == texts()
    assert len(server.requests) == COUNT


def test_what_expired_is_asked_again_and_what_is_refused_is_not(server, tmp_path: Path) -> None:
    refused = {"error": {"message": "filtered", "code": "content_filter"}}
    too_long = {"error": {"message": "too long", "code": "context_length_exceeded"}}

    def answer(request: Json) -> Json | None:
        text = request["body"]["messages"][0]["content"]
        if text in ("text 1", "text 2"):
            return line(request["custom_id"], json.dumps(refused if text == "text 1" else too_long).encode(), 400)
        first = sum(asked["body"]["messages"] == request["body"]["messages"] for asked in server.requests) == 1
        return None if first and text == "text 3" else upper(request)

    server.answer, server.ends = answer, [{"status": "expired"}]
    replies = engine(server, journal(tmp_path)).generate(requests())
    assert [reply.finish_reason for reply in replies] == ["Stop", "Refusal", "Error", "Stop", "Stop", "Stop", "Stop"]
    assert replies[2].error == "too long"
    assert len(server.requests) == COUNT + 1


def test_a_request_without_a_usable_answer_is_given_up_and_billed(server, tmp_path: Path) -> None:
    server.answer = lambda request: line(request["custom_id"], completion("")) if "text 0" in str(request) else upper(request)
    replies = engine(server, journal(tmp_path)).generate(requests(2))
    assert [(reply.finish_reason, reply.error) for reply in replies] == [
        ("Error", "empty reply (after 6 attempts)"),
        ("Stop", None),
    ]
    assert journal(tmp_path).usage()["requests"] == len(server.requests) == 7


def test_the_budget_bounds_a_batch_and_what_turned_out_cheaper_is_used(server, tmp_path: Path) -> None:
    highest = estimated_tokens(requests(1)[0]).total
    with pytest.raises(BudgetExhausted):
        engine(server, journal(tmp_path), 3 * highest).generate(requests())
    spent = journal(tmp_path).usage()["tokens"]
    assert 2 * highest < spent <= 3 * highest
    assert len(server.batches) > 1
    assert [reply.text for reply in engine(server, journal(tmp_path), 10_000).generate(requests())] == texts()
    assert len(server.requests) == COUNT


def test_a_batch_that_is_too_large_for_the_account_is_halved(server, tmp_path: Path) -> None:
    too_many = {"data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}], "object": "list"}
    server.ends = [{"status": "failed", "errors": too_many}] * 2
    assert ask(server, tmp_path) == texts()
    assert [batch["request_counts"]["total"] for batch in server.batches] == [7, 3, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("end", "kind", "code"),
    [
        ({"status": "failed", "errors": {"data": [{"code": "x", "message": "bad"}]}}, ConfigError, "BatchRejected: .*: bad"),
        ({"status": "cancelled"}, UnavailableError, "BatchCancelled"),
    ],
)
def test_a_batch_that_does_not_run_to_its_end_is_told(server, tmp_path: Path, end: Json, kind: type, code: str) -> None:
    server.ends = [end]
    with pytest.raises(kind, match=code):
        ask(server, tmp_path)
    assert journal(tmp_path).usage()["unsettledRequests"] == 0


def test_an_endpoint_without_batches_is_told(server, tmp_path: Path) -> None:
    server.handle = lambda *_: (404, b'{"error": {"message": "Not Found"}}')
    with pytest.raises(ConfigError, match="NoBatchApi"):
        ask(server, tmp_path)


def test_who_is_asked_to_stop_leaves_the_batch_under_way_and_the_next_one_waits_for_it(server, tmp_path: Path) -> None:
    server.polls = 10**6
    stopping = engine(server, journal(tmp_path))

    def stop(what: str) -> None:
        if what == "GET batches" and server.batches:
            stopping.interrupt(StoppedError("Stopped", "asked to stop"))

    server.after = stop
    with pytest.raises(StoppedError):
        stopping.generate(requests())
    assert journal(tmp_path).usage()["unsettledRequests"] == COUNT
    server.after = lambda what: None
    server.batches[0]["left"] = 0
    assert ask(server, tmp_path) == texts()
    assert len(server.batches) == 1


def test_a_slow_pod_does_not_send_what_another_has_given_up_for_it(server, tmp_path: Path) -> None:
    """Another pod begins, and ends, while the first has noted its batch and not created it yet."""
    record, answers = Journal(LocalStore(tmp_path), "journal", "slow"), list[list[str]]()
    claim = record.claim

    def claim_too_late(batch: Batch) -> bool:
        answers.append(ask(server, tmp_path))
        return claim(batch)

    record.claim = claim_too_late  # type: ignore[method-assign]
    with pytest.raises(StoppedError):
        engine(server, record).generate(requests())
    assert (answers, len(server.batches)) == ([texts()], 1)
    assert ask(server, tmp_path) == texts()
    assert journal(tmp_path).usage()["requests"] == COUNT


def test_a_batch_that_somebody_is_about_to_send_is_waited_for(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another pod begins between the first one's claim and the creation of its batch."""
    monkeypatch.setattr(openai_batch, "GONE_SECONDS", 600.0)
    record, answers, looked = Journal(LocalStore(tmp_path), "journal", "slow"), list[list[str]](), threading.Event()
    server.before = lambda what: looked.set() if what == "GET batches" else None
    other = threading.Thread(target=lambda: answers.append(ask(server, tmp_path)))
    claim = record.claim

    def claim_and_dawdle(batch: Batch) -> bool:
        claimed = claim(batch)
        other.start()
        assert looked.wait(60)
        return claimed

    record.claim = claim_and_dawdle  # type: ignore[method-assign]
    assert [reply.text for reply in engine(server, record).generate(requests())] == texts()
    other.join()
    assert (answers, len(server.batches)) == ([texts()], 1)


class Killed(BaseException):
    """As if the process had ended here."""


class Mortal(LocalStore):
    """Dies at its n-th write, before or after it."""

    def __init__(self, folder: Path, die: Callable[[str], None]) -> None:
        super().__init__(folder)
        self._die = die

    def create(self, key: str, data: bytes) -> None:
        self._die(f"before write {key[-11:]}")
        super().create(key, data)
        self._die(f"after write {key[-11:]}")


def test_killed_anywhere_no_batch_is_sent_twice_and_the_bill_is_right(server, tmp_path: Path) -> None:
    """Every moment at the store and at the endpoint, one after another until none is left."""
    moment = 0
    while True:
        moment += 1
        left, folder = [moment], tmp_path / str(moment)
        server.batches.clear()
        server.requests.clear()

        def die(what: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed(what)

        dying = OpenAIBatchEngine(Endpoint(server.url, "m", None), Journal(Mortal(folder, die), "journal", "first"))
        ask_once = dying._client.request

        def request(*arguments, die=die, ask_once=ask_once, **named):
            die("before a request")
            answer = ask_once(*arguments, **named)
            die("after a request")
            return answer

        dying._client.request = request  # type: ignore[method-assign]
        try:
            dying.generate(requests())
        except Killed as killed:
            where = str(killed)
        else:
            break
        assert ask(server, folder) == texts(), where
        assert len(server.batches) == 1, where
        assert journal(folder).usage() | {"completionTokens": 0} == {
            "requests": COUNT,
            "tokens": 15 * COUNT,
            "completionTokens": 0,
            "unsettledRequests": 0,
            "unsettledTokens": 0,
        }, where
    assert moment > 12


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_batch_whose_creation_was_not_confirmed_is_found_again(server, tmp_path: Path, cut: str) -> None:
    struck = []

    def strike(what: str) -> None:
        if what == "POST batches" and not struck:
            struck.append(what)
            raise ConnectionError

    setattr(server, cut, strike)
    assert ask(server, tmp_path) == texts()
    assert len(server.batches) == 1
