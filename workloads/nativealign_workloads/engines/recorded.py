"""A local engine whose answers outlive its process: what the journal holds is not generated again.

Called where a model is opened for annotate or rewrite.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from nativealign_workloads.engines.journal import Journal, Key, key_of
from nativealign_workloads.engines.local import Answers, LocalEngine
from nativealign_workloads.engines.protocol import Reply, Request
from nativealign_workloads.errors import StepError

KEEP_CHUNKS, KEEP_SECONDS = 200, 60.0
"""After so many answers, or so long, they are durable; a batch is never parted."""
WAVE = 4096
"""Requests of one call: a shard of usual size, so that the lengths in a batch are alike."""
OVERLAPPING_WAVE = 1024
"""Of an engine that makes its own batches: while some are generated, others are cut and judged."""


class Recorded:
    """Opens the engine when something is to be asked; its calls come one after another, whatever threads they come from.

    The batches of a call, longest requests first, follow from its requests alone: their composition may change low bits of the
    answers, so an answer that is known does not part a batch. `batch_size`: None for an engine that makes its own batches; its
    calls overlap.
    """

    def __init__(self, name: str, batch_size: int | None, open_engine: Callable[[], LocalEngine], journal: Journal) -> None:
        self.name = name
        self.wave = WAVE if batch_size else OVERLAPPING_WAVE
        self._batch_size, self._open, self._journal = batch_size or 1, open_engine, journal
        self._engine: LocalEngine | None = None
        self._interrupted: StepError | None = None
        self._turn = threading.Lock() if batch_size else nullcontext()
        self._lock = threading.Lock()

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """As the engine's."""
        ordered = sorted(requests, key=lambda request: (-request.max_tokens, request.id))
        batches = [ordered[start : start + self._batch_size] for start in range(0, len(ordered), self._batch_size)]
        with self._turn:
            fresh = self._ask([batch for batch in batches if any(key_of(request) not in self._journal for request in batch)])
        return [fresh.get(key_of(request)) or self._journal.reply(key_of(request)) for request in requests]

    def _ask(self, batches: list[list[Request]]) -> dict[Key, Reply]:
        fresh: dict[Key, Reply] = {}
        unkept: Answers = []
        kept = time.monotonic()
        try:
            for found in self._opened().answers(batches) if batches else ():
                unkept += found
                if len(unkept) >= KEEP_CHUNKS or time.monotonic() - kept >= KEEP_SECONDS:
                    fresh |= self._keep(unkept)
                    unkept, kept = [], time.monotonic()
        finally:  # also what came before a stop
            fresh |= self._keep(unkept)
        return fresh

    def _keep(self, answers: Answers) -> dict[Key, Reply]:
        if answers:
            with self._lock:
                self._journal.record(answers)
        return {key_of(request): reply for request, reply in answers}

    def interrupt(self, error: StepError) -> None:
        self._interrupted = error
        if self._engine:
            self._engine.interrupt(error)

    def close(self) -> None:
        if self._engine:
            self._engine.close()

    def _opened(self) -> LocalEngine:
        if self._interrupted:
            raise self._interrupted
        with self._lock:
            self._engine = self._engine or self._open()
        return self._engine
