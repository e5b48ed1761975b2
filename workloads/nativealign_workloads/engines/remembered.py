"""Answers that were paid for and are in no durable record yet: kept in the store, so that nobody pays for them twice.

They wait there when a budget is spent or an endpoint fails in the middle of a batch, and, where a caller has no segments of its
own, after every few requests. Called by the steps that ask an endpoint; `settle` says that a record holds them now.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from nativealign_workloads.engines.billing import Json, billed, usage
from nativealign_workloads.engines.protocol import Reply, Request
from nativealign_workloads.errors import StepError
from nativealign_workloads.store import ObjectStore

if TYPE_CHECKING:  # openai takes half a second to import, and a step without an endpoint looks for kept answers too
    from nativealign_workloads.engines.openai_http import OpenAIEngine


class Kept:
    """The kept answers of one shard, in `prefix`."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._keys = [info.key for info in store.list(f"{prefix}/")]
        rows = [row for key in self._keys for row in json.loads(store.read(key))]
        self.lost = usage(row["lost"] for row in rows if "lost" in row)
        """What was billed for requests that gave nothing."""
        self.replies = {(row["id"], row["attempt"]): Reply(**row["reply"]) for row in rows if "reply" in row}

    def usage(self) -> Json:
        """What all that is kept has cost."""
        return usage([self.lost, *map(billed, self.replies.values())])

    def add(self, writer: str, rows: list[Json]) -> None:
        key = f"{self._prefix}/{writer}-{len(self._keys):06d}.json"
        self._store.create(key, json.dumps(rows, ensure_ascii=False).encode())
        self._keys.append(key)

    def clear(self) -> None:
        for key in self._keys:
            self._store.delete(key)
        self._keys, self.replies = [], {}


class Remembered:
    """An endpoint that is asked only what no kept answer tells."""

    def __init__(self, engine: "OpenAIEngine", kept: Kept, writer: str, slice_size: int | None = None) -> None:
        """`slice_size`: keep the answers after every so many requests; None where the caller keeps them itself."""
        self._engine, self._kept, self._writer, self._slice = engine, kept, writer, slice_size
        self._paid = usage([])
        self._given = False
        self._begun = (engine.budget.spent_requests, engine.budget.spent_tokens)

    @property
    def name(self) -> str:
        return self._engine.name

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """As the endpoint's. What it raises has left its paid answers in the store."""
        self._given = True
        known = self._kept.replies
        fresh: dict[tuple[str, int], Reply] = {}
        for part in self._parts([request for request in requests if (request.id, request.attempt) not in known]):
            try:
                replies = self._engine.generate(part)
            except StepError:
                self._keep(part, self._engine.unclaimed)
                raise
            fresh |= {(request.id, request.attempt): reply for request, reply in zip(part, replies, strict=True)}
            self._paid = usage([self._paid, *map(billed, replies)])
            if self._slice:
                self._keep(part, replies)
        return [known.get((r.id, r.attempt)) or fresh[(r.id, r.attempt)] for r in requests]

    def settle(self) -> None:
        """A durable record holds all answers that were given so far."""
        if self._given:
            self._kept.clear()

    def close(self) -> None:
        self._engine.close()

    def _parts(self, requests: list[Request]) -> Iterator[list[Request]]:
        size = self._slice or len(requests)
        return (requests[start : start + size] for start in range(0, len(requests), max(1, size)))

    def _keep(self, requests: Sequence[Request], replies: Sequence[Reply]) -> None:
        attempts = {request.id: request.attempt for request in requests}
        rows: list[Json] = [{"id": reply.id, "attempt": attempts[reply.id], "reply": asdict(reply)} for reply in replies]
        if not self._slice:
            self._paid = usage([self._paid, *map(billed, replies)])
            rows.append({"lost": self._lost()})
        if rows:
            self._kept.add(self._writer, rows)

    def _lost(self) -> Json:
        """What this process was billed beyond the answers that it got."""
        budget = self._engine.budget
        requests, tokens = budget.spent_requests - self._begun[0], budget.spent_tokens - self._begun[1]
        return {
            "requests": requests - self._paid["requests"],
            "tokens": max(0, tokens - self._paid["tokens"]),
            "completionTokens": 0,
        }
