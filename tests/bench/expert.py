"""`make bench-expert`: how well the expert's client uses an endpoint, and what a request costs it.

A server in a process of its own has 64 slots and takes 200 ms for each answer; what comes while all are taken waits, as in vLLM.
The occupancy is the part of its slot-seconds in which a request was there, from the first request to the last answer, with as
many in flight as there are slots, and with an eighth more. The client asks as annotate does: waves of chunks from several
threads, with the journal in a folder. Then the server answers at once, and requests per second of the client's processor time are
counted, of ours and of the bare `openai` library with as many connections and nothing else. Prints JSON.
"""

import asyncio
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import openai

from nativealign_workloads.align.waves import AT_ONCE
from nativealign_workloads.engines.journal import Journal
from nativealign_workloads.engines.openai_endpoint import Endpoint
from nativealign_workloads.engines.openai_http import OpenAIEngine, Rates
from nativealign_workloads.engines.protocol import Request
from nativealign_workloads.store import LocalStore

SLOTS, SECONDS = 64, 0.2
AN_EIGHTH_MORE = SLOTS + SLOTS // 8
REQUESTS = 12_800
TEXT = "نص عربي من نحو أربعين كلمة " * 8
REPLY = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 80, "total_tokens": 180},
}


class Server:
    """Answers every request alike, `seconds` after a slot is free."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._slots = seconds, asyncio.Semaphore(SLOTS)
        self.begun, self.ended, self.busy = 0.0, 0.0, 0.0
        body = json.dumps(REPLY).encode()
        self._reply = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            async with self._slots:
                started = time.perf_counter()
                self.begun = self.begun or started
                await asyncio.sleep(self._seconds)
                self.ended = time.perf_counter()
                self.busy += self.ended - started
            writer.write(self._reply)
        writer.close()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def run_server(seconds: float, pipe: Connection) -> None:
    async def main() -> None:
        state = Server(seconds)
        server = await asyncio.start_server(state.serve, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)
        pipe.send(state.busy / (SLOTS * (state.ended - state.begun)) if state.ended else 0.0)

    asyncio.run(main())


@contextmanager
def served(seconds: float, found: dict[str, float]) -> Iterator[str]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run_server, args=(seconds, theirs), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{ours.recv()}/v1"
    ours.send("end")
    found["occupancy"] = ours.recv()
    process.terminate()


def requests() -> list[Request]:
    return [Request(f"{number}:0", [{"role": "user", "content": TEXT}], TEXT, 200) for number in range(REQUESTS)]


def ours(url: str, concurrency: int = SLOTS) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(LocalStore(Path(folder)), "journal", "w")
        engine = OpenAIEngine(Endpoint(url, "m", None), journal, Rates(concurrency=concurrency))
        asked = requests()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(engine.generate, (asked[n : n + engine.wave] for n in range(0, REQUESTS, engine.wave))))
        engine.close()


def bare(url: str) -> None:
    async def main() -> None:
        gate = asyncio.Semaphore(SLOTS)
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            async def ask(request: Request) -> None:
                async with gate:
                    messages = request.messages
                    await client.chat.completions.create(model="m", messages=messages, max_tokens=200, temperature=0, seed=0)  # type: ignore[arg-type]

            await asyncio.gather(*map(ask, requests()))

    asyncio.run(main())


def per_processor_second(url: str) -> dict[str, int]:
    found = {}
    for name, client in (("requestsPerCpuSecond", ours), ("bareRequestsPerCpuSecond", bare)):
        started = time.process_time()
        client(url)
        found[name] = round(REQUESTS / (time.process_time() - started))
    return found


def occupancy(concurrency: int) -> float:
    found: dict[str, float] = {}
    with served(SECONDS, found) as url:
        ours(url, concurrency)
    return round(found["occupancy"], 4)


def main() -> None:
    facts = {"slots": SLOTS, "secondsPerAnswer": SECONDS, "requests": REQUESTS}
    occupied = {f"occupancyAt{concurrency}": occupancy(concurrency) for concurrency in (SLOTS, AN_EIGHTH_MORE)}
    with served(0, {}) as url:
        rates = per_processor_second(url)
    ratio = round(rates["requestsPerCpuSecond"] / rates["bareRequestsPerCpuSecond"], 3)
    print(json.dumps(facts | occupied | rates | {"ratio": ratio}, indent=1))


if __name__ == "__main__":
    main()
