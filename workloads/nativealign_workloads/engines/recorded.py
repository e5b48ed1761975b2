"""A local engine whose answers outlive its process: what the journal holds is not generated again. Called by rewrite."""

import threading
from collections.abc import Callable, Sequence

from nativealign_workloads.engines.journal import Journal, key_of
from nativealign_workloads.engines.protocol import Engine, Reply, Request
from nativealign_workloads.errors import StepError


class Recorded:
    """Opens the engine when something is to be asked; its calls come one after another, whatever threads they come from."""

    def __init__(self, name: str, wave: int, open_engine: Callable[[], Engine], journal: Journal) -> None:
        self.name, self.wave = name, wave
        self._open, self._journal = open_engine, journal
        self._engine: Engine | None = None
        self._interrupted: StepError | None = None
        self._lock = threading.Lock()

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """As the engine's. A call is asked whole, since its composition may change low bits of the answers."""
        known = self._journal.replies
        if any(key_of(request) not in known for request in requests):
            with self._lock:
                self._journal.record(requests, self._opened().generate(requests))
        return [known[key_of(request)] for request in requests]

    def interrupt(self, error: StepError) -> None:
        self._interrupted = error
        if self._engine:
            self._engine.interrupt(error)

    def close(self) -> None:
        if self._engine:
            self._engine.close()

    def _opened(self) -> Engine:
        if self._interrupted:
            raise self._interrupted
        self._engine = self._engine or self._open()
        return self._engine
