"""`python -m tests.workloads.asking FOLDER URL COUNT`: a process that asks an endpoint and goes on from its journal when killed."""

import os
from pathlib import Path

from nativealign_workloads.engines.journal import Journal
from nativealign_workloads.engines.openai_endpoint import Endpoint
from nativealign_workloads.engines.openai_http import OpenAIEngine, Rates
from nativealign_workloads.engines.protocol import Reply, Request
from nativealign_workloads.store import LocalStore

CONCURRENCY = 8


def ask(folder: Path, url: str, count: int) -> list[Reply]:
    """The replies to `count` requests."""
    journal = Journal(LocalStore(folder), "journal", f"writer-{os.getpid()}")
    engine = OpenAIEngine(Endpoint(url, "m", None), journal, Rates(concurrency=CONCURRENCY))
    messages = [[{"role": "user", "content": f"text {number} " + "و" * (number % 40)}] for number in range(count)]
    replies = engine.generate([Request(f"r{number}", messages[number], "", 20) for number in range(count)])
    engine.close()
    return replies


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    folder, url, count = arguments
    ask(Path(folder), url, int(count))
    return 0
