"""A user's folder: manifests and corpora in it, the command run over it, and what the user is told when that fails.

Used by the tests of bad input and of bad services.
"""

import io
import json
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from tests.workloads.pipeline import manifest_of, nativealign, tally, write_manifests

from nativealign_api.status import JobStatus
from nativealign_cli.doctor import examine
from nativealign_cli.inspecting import show_status
from nativealign_cli.state import Home, Run

Json = dict[str, Any]
WORDS = ("علم", "نور", "بيت", "شمس", "قمر", "بحر", "جبل", "نهر", "شجرة", "كتاب", "قلم", "باب", "سماء", "أرض", "ريح", "مطر")
DOCUMENTS = 10
ALIGN: Json = {
    "corpora": [{"name": "web", "uri": "corpus/"}],
    "expert": {"rules": {}},
    "sharding": {"shards": 1},
    "heldOut": {"documents": 0},
    "retries": 0,
}
COUNTS = {"in": DOCUMENTS, "out": DOCUMENTS, "reasons": {}}
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def texts(count: int = DOCUMENTS, seed: int = 1) -> list[str]:
    """Arabic documents of which no two resemble each other."""
    draw = random.Random(seed)
    return [f"تصف هذه الوثيقة رقم {number} المدينة القديمة " + " ".join(draw.choices(WORDS, k=40)) for number in range(count)]


def jsonl(documents: list[str], field: str = "text") -> bytes:
    return "".join(json.dumps({field: text}, ensure_ascii=False) + "\n" for text in documents).encode()


GOOD = jsonl(texts())


@dataclass
class Desk:
    """Where one user works. `store` is a folder that others may share."""

    folder: Path
    store: Path

    @property
    def home(self) -> Home:
        return Home(self.folder / ".nativealign")

    def put(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def job(self, spec: Json, kind: str = "AlignJob", name: str = "web", file: str = "job.yaml") -> None:
        write_manifests(self.folder / file, manifest_of(kind, name, spec))

    def command(self, *arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return nativealign(*arguments, cwd=self.folder, environment=ONE_THREAD | (environment or {}))

    def run(self, *more: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """`nativealign run job.yaml`; never a traceback, whatever happens."""
        arguments = more or ("job.yaml", "--store", self.store)
        done = self.command("run", *arguments, environment=environment)
        logs = "".join(path.read_text(errors="replace") for path in self.home.root.rglob("*.log"))
        assert "Traceback" not in done.stdout + done.stderr + logs
        return done

    def fails(
        self, code: int, reason: str, *words: str, environment: dict[str, str] | None = None, more: tuple[str | Path, ...] = ()
    ) -> str:
        """Runs; output, status and doctor must all tell the same cause with all `words` in it. Returns the message."""
        done = self.run(*more, environment=environment)
        assert done.returncode == code, done.stdout + done.stderr
        (ready,) = [c for c in self.status().conditions if c.type == "Ready"]
        cause = f"{ready.reason}: {ready.message}"
        assert (ready.status, ready.reason, self.status().state) == ("False", reason, "Failed"), cause
        for word in words:
            assert word in ready.message
        for shown in (done.stdout, self.doctor(), self.shown()):
            assert cause in shown
        return ready.message

    def goes_on(self, *, environment: dict[str, str] | None = None, more: tuple[str | Path, ...] = ()) -> JobStatus:
        """Runs the same command again; it must end well."""
        done = self.run(*more, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert self.status().state == "Complete"
        return self.status()

    @property
    def last(self) -> Run:
        """The job whose status was written last."""
        return max(self.home.runs(), key=lambda run: (run.folder / "status.json").stat().st_mtime_ns)

    def status(self) -> JobStatus:
        status = self.last.status()
        assert status is not None
        return status

    def doctor(self) -> str:
        out = Console(file=io.StringIO())
        examine(self.home, self.last.reference, out)
        return out.file.getvalue()  # type: ignore[attr-defined]

    def shown(self) -> str:
        out = Console(file=io.StringIO())
        show_status(self.home, self.last.reference, "table", out, out)
        return out.file.getvalue()  # type: ignore[attr-defined]

    def tally(self, step: str = "clean") -> Json:
        """What the step's manifest says of its documents."""
        (digest,) = [found.digest for found in self.status().steps if found.name == step]
        return tally(self.store, f"steps/{step}/{digest}")


def good_store(desk: Desk) -> Path:
    """The desk's store, in which the good job is committed."""
    desk.put("corpus/a.jsonl", GOOD)
    desk.job(ALIGN)
    desk.goes_on()
    assert desk.tally() == COUNTS
    return desk.store
