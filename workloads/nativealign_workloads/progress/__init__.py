"""What a running pod says of itself: how far it is, how long it will take, what it counted.

Steps call `advance`; the operator and the local runner read the JSON, people the lines in the pod's log. Losing it costs nothing:
it is never an input. What stands still for deadlines.progressSeconds is stopped: whatever lasts and cannot be counted says `alive`.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nativealign_api.status import duration

INTERVAL = 1.0
"""Seconds between two writes."""
LOG_INTERVAL = 30.0
"""Seconds between two lines of the log."""


class Progress:
    """Progress of one index of a phase, as a JSON file that is replaced in one piece."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.monotonic, **labels: Any) -> None:
        self._path, self._clock, self._labels = path, clock, labels
        self._start = self._written = self._logged = clock()
        self._first, self._begun = 0, False
        self._done, self._total, self._unit = 0, 0, ""
        self._alive = 0
        self._counts: dict[str, float] = {}

    @property
    def started(self) -> bool:
        """Whether `begin` was called."""
        return self._begun

    def begin(self, total: int, unit: str, done: int = 0) -> None:
        """Starts counting `total` things; `done` of them were there before this attempt."""
        self._start, self._total, self._unit, self._done, self._first = self._clock(), total, unit, done, done
        self._begun = True
        self._write()
        self._log()

    def advance(self, amount: int = 1, **counts: float) -> None:
        """`amount` more is done; `counts` replace the headline counts of the same name."""
        self._done += amount
        self.alive(**counts)

    def alive(self, **counts: float) -> None:
        """A sign of life where nothing more is done. Called from any thread."""
        self._alive += 1
        self._counts |= counts
        if self._clock() - self._written >= INTERVAL:
            self._write()
        if self._begun and self._clock() - self._logged >= LOG_INTERVAL:
            self._log()

    def finish(self) -> None:
        """Writes the end. What never began leaves that to others: a rank of the gang writes the file."""
        if self.started:
            self._write()
            self._log()

    def snapshot(self) -> dict[str, Any]:
        """The JSON object: done, total, unit, percent, etaSeconds (None while unknown), counts, alive (signs of life so far)."""
        fresh, elapsed = self._done - self._first, self._clock() - self._start
        eta = elapsed * (self._total - self._done) / fresh if fresh and self._total >= self._done else None
        percent = 100.0 * self._done / self._total if self._total else None
        return self._labels | {
            "done": self._done,
            "total": self._total,
            "unit": self._unit,
            "percent": percent,
            "etaSeconds": eta,
            "counts": self._counts,
            "alive": self._alive,
        }

    def _log(self) -> None:
        self._logged = self._clock()
        if self._path is not None:
            print(self.line(), flush=True)

    def line(self) -> str:
        """The snapshot for people."""
        found = self.snapshot()
        of_all = f" of {self._total:,}" if self._total else ""
        left = found["etaSeconds"]
        counts = [f"{name} {value:.5g}" for name, value in self._counts.items()]
        facts = [f"{self._done:,}{of_all} {self._unit}", *([f"about {duration(left)} left"] if left else []), *counts]
        return f"{' '.join(map(str, self._labels.values()))}: {', '.join(facts)}"

    def _write(self) -> None:
        self._written = self._clock()
        if self._path is None:
            return
        partial = self._path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
        with suppress(OSError):
            partial.write_text(json.dumps(self.snapshot() if self._begun else self._one_more_sign(self._path)))
            partial.replace(self._path)

    def _one_more_sign(self, path: Path) -> dict[str, Any]:
        """What another process has written, and a sign of life more."""
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            return self.snapshot()
        return found | {"alive": found["alive"] + 1}
