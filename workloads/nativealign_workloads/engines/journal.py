"""The durable record of what one shard asks engines, so that nobody pays twice and every request is in the bill.

    <prefix>/<writer>-<n>.json   {"intents": […], "batches": […], "settled": […]}
    <prefix>-leaving/<batch>     the writer that may send a batch, or say that it never left

Before a request leaves for an endpoint its intent is here: what it may cost at most. When the answer is here too, with what was
billed, the intent is settled. An intent that nobody settled stands for a request whose answer was lost, e.g. in a killed process;
whether it was billed only the provider knows, so it counts in full. Objects are only added, so writers never disturb each other.
Several requests share one write. Called by the engines; steps read the usage.
"""

import asyncio
import json
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from nativealign_workloads.engines.billing import Json, billed_together
from nativealign_workloads.engines.budget import Tokens
from nativealign_workloads.engines.protocol import Reply, Request
from nativealign_workloads.store import ObjectStore

WRITE_SECONDS = 0.1
"""From the begin of one write to that of the next: what comes meanwhile goes together."""
LOOKED_UP = 32
"""Objects whose answers are held in memory; waves come in the order in which they were asked."""

NOTHING = Tokens(0, 0)
Key = tuple[str, int]
"""A request's id and its attempt."""


def key_of(request: Request) -> Key:
    return request.id, request.attempt


@dataclass(frozen=True, slots=True)
class Intent:
    """A request that may leave. `id` also goes to the endpoint, to be found in the provider's own records."""

    id: str
    key: Key
    tokens: int
    """Most that it may cost."""
    completion_tokens: int
    """Of these in the answer."""

    @property
    def highest(self) -> Tokens:
        return Tokens(self.tokens - self.completion_tokens, self.completion_tokens)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What came of an intent: what was billed, and the reply where there was a usable one."""

    intent: Intent
    requests: int = 0
    tokens: int = 0
    completion_tokens: int = 0
    reply: Reply | None = None

    @property
    def used(self) -> Tokens:
        return Tokens(self.tokens - self.completion_tokens, self.completion_tokens)

    def dump(self) -> Json:
        billed = {"requests": self.requests, "tokens": self.tokens, "completionTokens": self.completion_tokens}
        return {"intent": asdict(self.intent), **billed, "reply": asdict(self.reply) if self.reply else None}


@dataclass
class Batch:
    """Requests that go to the endpoint as one file. `id`: the endpoint's; "" until it has said so."""

    name: str
    intents: list[Intent]
    id: str = ""


class Journal:
    """What is known of one shard's requests to one engine. Its methods that wait belong to one event loop.

    `alive` is called with each write: answers come on, whatever asks for them.
    """

    def __init__(self, store: ObjectStore, prefix: str, writer: str, alive: Callable[[], None] = lambda: None) -> None:
        self._store, self._prefix, self._writer = store, prefix, writer
        self.alive = alive
        self._read: set[str] = set()
        self._open: dict[str, int] = {}
        self._settled: set[str] = set()
        self._billed = billed_together([])
        self._pending: Json = {"intents": [], "settled": []}
        self._failure: BaseException | None = None
        self._noted = self._durable = 0
        self._next_write = 0.0
        self._writing = asyncio.Lock()
        self._places: dict[Key, str] = {}
        """The object that holds the reply to a request: a shard may have more replies than memory."""
        self._looked_up: OrderedDict[str, dict[Key, Reply]] = OrderedDict()
        self._looking = threading.Lock()
        self.batches: dict[str, Batch] = {}
        """Those whose answers are not here, by name."""
        self.refresh()

    def refresh(self) -> None:
        """Reads what other writers have added since."""
        for info in self._store.list(f"{self._prefix}/"):
            if info.key not in self._read:
                self._read.add(info.key)
                self._take(json.loads(self._store.read(info.key)), info.key)

    def __contains__(self, key: Key) -> bool:
        """Whether the answer to a request is here, so that nobody needs to ask for it again."""
        return key in self._places

    @property
    def objects(self) -> list[str]:
        """Names of all that was read or written: <writer>-<n>.json."""
        return [key.removeprefix(f"{self._prefix}/") for key in self._read]

    @property
    def open(self) -> list[str]:
        """Ids of the intents that nobody has settled."""
        return list(self._open)

    @property
    def answers(self) -> int:
        """How many answers are here."""
        return len(self._places)

    def reply(self, key: Key) -> Reply:
        """An answer that is here. Called from several threads."""
        place = self._places[key]
        with self._looking:
            if place not in self._looked_up:
                settled = json.loads(self._store.read(place))["settled"]
                found = {_load_intent(row["intent"]).key: Reply(**row["reply"]) for row in settled if row["reply"]}
                self._looked_up[place] = found
                if len(self._looked_up) > LOOKED_UP:
                    self._looked_up.popitem(last=False)
            self._looked_up.move_to_end(place)
            return self._looked_up[place][key]

    def usage(self) -> Json:
        """What was billed for all answers, and what the requests whose answer was lost may cost."""
        return self._billed | {"unsettledRequests": len(self._open), "unsettledTokens": sum(self._open.values())}

    async def intend(self, request: Request, highest: Tokens) -> Intent:
        """Returns when the intent is durable."""
        intent = self._intent(request, highest)
        self._open[intent.id] = intent.tokens
        self._pending["intents"].append(asdict(intent))
        await self._written()
        return intent

    async def settle(self, settlement: Settlement) -> None:
        """Returns when it is durable."""
        row = settlement.dump()
        self._take_settled(row)
        self._pending["settled"].append(row)
        await self._written()

    async def flush(self) -> None:
        """Makes durable what is settled, also where who waited for it was cancelled. An intent of such a one has not left."""
        self._pending["intents"] = []
        if self._pending["settled"] and not self._failure:
            await self._written()

    def record(self, answers: Iterable[tuple[Request, Reply]]) -> None:
        """Makes answers durable that cost nothing, all of them or none."""
        self._add({"settled": [Settlement(self._intent(request, NOTHING), reply=reply).dump() for request, reply in answers]})

    def intend_batch(self, requests: Sequence[tuple[Request, Tokens]]) -> Batch:
        """A batch of requests with what each may cost at most, durable before it leaves."""
        batch = Batch(f"{self._writer}-{uuid.uuid4().hex[:16]}", [self._intent(*request) for request in requests])
        intents = [asdict(intent) for intent in batch.intents]
        self._add({"intents": intents, "batches": [{"name": batch.name, "id": "", "intents": intents}]})
        return self.batches[batch.name]

    def claim(self, batch: Batch) -> bool:
        """Whether it is this writer's to send the batch, or to say that it never left: the first to ask has the say."""
        return self._store.try_create(f"{self._prefix}-leaving/{batch.name}", self._writer.encode())

    def batch_left(self, batch: Batch, identifier: str) -> None:
        """The endpoint has taken it under this id."""
        self._add({"batches": [{"name": batch.name, "id": identifier, "intents": []}]})

    def settle_batch(self, batch: Batch, settlements: Iterable[Settlement]) -> None:
        """All that came of a batch, at once."""
        self._add({"settled": [settlement.dump() for settlement in settlements]})
        self.batches.pop(batch.name, None)

    def _intent(self, request: Request, highest: Tokens) -> Intent:
        return Intent(f"{self._writer}-{uuid.uuid4().hex[:16]}", key_of(request), highest.total, highest.answer)

    def _add(self, entry: Json) -> None:
        self._take(entry, self._write(entry))

    def _take(self, entry: Json, place: str) -> None:
        self._open |= {row["id"]: row["tokens"] for row in entry.get("intents", []) if row["id"] not in self._settled}
        for row in entry.get("batches", []):
            batch = self.batches.setdefault(row["name"], Batch(row["name"], [_load_intent(found) for found in row["intents"]]))
            batch.id = row["id"] or batch.id
        for row in entry.get("settled", []):
            self._take_settled(row)
        self._place(entry, place)
        settled = [name for name, batch in self.batches.items() if all(intent.id in self._settled for intent in batch.intents)]
        for name in settled:
            del self.batches[name]

    def _take_settled(self, row: Json) -> None:
        intent = _load_intent(row["intent"])
        if intent.id in self._settled:
            return  # two writers have waited for one batch
        self._settled.add(intent.id)
        self._open.pop(intent.id, None)
        self._billed = billed_together([self._billed, row])

    def _place(self, entry: Json, place: str) -> None:
        for row in entry.get("settled", []):
            if row["reply"]:
                self._places.setdefault(_load_intent(row["intent"]).key, place)

    async def _written(self) -> None:
        """Until all that is pending now is durable; who waits for another's write finds its own done with it."""
        self._noted += 1
        mine = self._noted
        async with self._writing:
            if self._failure:
                raise self._failure
            if self._durable < mine:
                await asyncio.sleep(max(0.0, self._next_write - time.monotonic()))
                self._next_write = time.monotonic() + WRITE_SECONDS
                await self._write_pending()

    async def _write_pending(self) -> None:
        pending, upto = self._pending, self._noted
        self._pending = {"intents": [], "settled": []}
        write = asyncio.ensure_future(asyncio.to_thread(self._write, pending))
        try:
            await asyncio.shield(write)
        finally:  # also where this task is cancelled, the next write waits for this one
            await asyncio.wait([write])
            self._failure, self._durable = write.exception(), upto
        self._place(pending, write.result())

    def _write(self, entry: Json) -> str:
        key = f"{self._prefix}/{self._writer}-{len(self._read):06d}.json"
        self._read.add(key)
        self._store.create(key, json.dumps(entry, ensure_ascii=False).encode())
        self.alive()
        return key


def _load_intent(row: Json) -> Intent:
    return Intent(row["id"], (row["key"][0], row["key"][1]), row["tokens"], row["completion_tokens"])
