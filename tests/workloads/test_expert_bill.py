"""The endpoint's own bill against our journal, after a process that asks was killed 200 times at random moments.

The server is the judge: it notes what every request cost under the id that came with it, whether the answer arrived or not.
"""

import json
import os
import random
import signal
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.workloads.asking.__main__ import CONCURRENCY, ask
from tests.workloads.openai_server import Answer, OpenAIServer, completion, error, openai_server

from nativealign_cli.forkserver import ForkServer, Process
from nativealign_workloads.engines.journal import Journal
from nativealign_workloads.engines.openai_http import WINDOW
from nativealign_workloads.store import LocalStore

KILLS = 200
REQUESTS = 900
SEED = 20241204


class Billing:
    """Answers with costs of its own, notes them, and kills the asking process at some answer."""

    def __init__(self, server: OpenAIServer, seed: int) -> None:
        self.bill: dict[str, int] = {}
        self.asked: Counter[str] = Counter()
        self.victim: Process | None = None
        self.died = threading.Event()
        self._left = 0
        self._random, self._lock = random.Random(seed), threading.Lock()
        server.next_answer = self.answer  # type: ignore[method-assign]

    def strike(self, victim: Process) -> None:
        """Kills it at one of the next answers, before or after that is sent."""
        with self._lock:
            self._left, self.victim = self._random.randint(1, 2 * CONCURRENCY), victim

    def answer(self, request: dict[str, Any], headers: dict[str, str]) -> Answer:
        text = request["messages"][0]["content"]
        with self._lock:
            self.asked[text] += 1
            kind, prompt, tokens = self._random.random(), self._random.randint(1, 7), self._random.randint(1, 20)
            self._left -= 1
            kill = self.victim if self._left == 0 else None
            answer = Answer(body=priced("" if kind < 0.03 else f"رد {text}", prompt, tokens))
            if kind > 0.97:
                answer = error(429, "slow down", retry_after="0") if kind > 0.985 else error(500)
            self.bill[headers["x-client-request-id"]] = prompt + tokens if answer.status == 200 else 0
        if kill:
            assert kill.pid
            os.kill(kill.pid, signal.SIGKILL)
            self.died.wait(self._random.choice([0, 10]))  # some answers still go out to nobody, some find nobody
        return answer


def priced(text: str, prompt: int, tokens: int) -> bytes:
    reply = json.loads(completion(text))
    reply["usage"] = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
    return json.dumps(reply).encode()


def entries(folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    """(highest cost of each intent, tokens of each settled one)."""
    found = [json.loads(path.read_text()) for path in folder.rglob("*.json")]
    intents = {row["id"]: row["tokens"] for entry in found for row in entry["intents"]}
    return intents, {row["intent"]["id"]: row["tokens"] for entry in found for row in entry["settled"]}


def test_the_endpoints_bill_equals_the_journal_after_200_kills(tmp_path: Path) -> None:
    starter = ForkServer()
    with openai_server() as server, closing(starter):
        billing = Billing(server, SEED)
        for _ in range(KILLS):
            billing.died.clear()
            process = starter.start("tests.workloads.asking", [str(tmp_path), server.url, str(REQUESTS)], {}, tmp_path / "log")
            while process.pid is None:
                starter.hear(0.1)
            billing.strike(process)
            assert process.wait() == -signal.SIGKILL, "it ended before it could be killed: more requests are needed"
            billing.died.set()
        unfinished = Journal(LocalStore(tmp_path), "journal", "test").answers
        replies = ask(tmp_path, server.url, REQUESTS)
    assert unfinished < REQUESTS
    assert [reply.id for reply in replies] == [f"r{number}" for number in range(REQUESTS)]

    intents, settled = entries(tmp_path)
    lost = {identifier: tokens for identifier, tokens in billing.bill.items() if identifier not in settled}
    usage = Journal(LocalStore(tmp_path), "journal", "test").usage()
    assert {identifier: billing.bill[identifier] for identifier in settled} == settled
    assert usage["requests"] + len(lost) == sum(billing.asked.values())
    assert usage["tokens"] + sum(lost.values()) == sum(billing.bill.values())
    assert lost.keys() <= intents.keys()
    assert all(tokens <= intents[identifier] for identifier, tokens in lost.items())
    assert usage["unsettledRequests"] == len(intents) - len(settled) >= len(lost)
    assert usage["unsettledTokens"] == sum(intents[identifier] for identifier in intents.keys() - settled.keys())

    useless, again = usage["requests"] - REQUESTS, sum(billing.asked.values()) - REQUESTS
    print(
        f"{KILLS} kills, {len(lost)} of {sum(billing.asked.values())} answers lost, {usage['unsettledRequests']} intents unsettled"
    )
    assert again == useless + len(lost), "only what was useless or lost is asked for twice"
    assert len(lost) <= KILLS * CONCURRENCY * WINDOW
