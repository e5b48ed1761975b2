"""`make bench-memory`: peak memory of every phase of an AlignJob (rules, no worker) at 1, 4 and 16 times the input.

The further copies have the words of each document shuffled (seeded), so that they are documents of their own and no duplicates.
Shards grow with the input, as sharding.targetBytes makes them by default.
Prints JSON: for each size the documents, the seconds, and the largest resident set of any process of each phase, in MiB.
"""

import contextlib
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "corpus" / "saudi-news.jsonl.gz"
SIZES = (1, 4, 16)
SHARDS = 2
"""Shards of the input as it is."""
POLL_SECONDS = 0.02

MANIFEST = """
apiVersion: nativealign.dev/v1alpha1
kind: AlignJob
metadata: {{name: memory}}
spec:
  corpora: [{{name: news, uri: corpus.jsonl.gz}}]
  sharding: {{shards: {shards}}}
  expert: {{rules: {{}}}}
  chunking: {{maxTokens: 256}}
  parallelism: {parallelism}
"""


def source(folder: Path) -> Path:
    """The real corpus where it lies beside the project, else the quickstart's."""
    if REAL.is_file():
        return REAL
    subprocess.run([sys.executable, ROOT / "examples/quickstart/make_corpus.py", folder, "--documents", "5000"], check=True)
    return folder / "web.jsonl.gz"


def widened(path: Path, copies: int) -> Iterator[str]:
    """The lines of a corpus, and `copies - 1` shuffles of each."""
    with gzip.open(path, "rb") as file:
        for number, line in enumerate(file):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            words = record["text"].split()
            yield json.dumps({"text": record["text"]})
            for copy in range(1, copies):
                shuffled = words.copy()
                random.Random(f"{number}:{copy}").shuffle(shuffled)
                yield json.dumps({"text": " ".join(shuffled)}, ensure_ascii=False)


def run(folder: Path) -> dict[str, float]:
    """Runs the job; the largest resident set of each phase's processes, in MiB."""
    environment = os.environ | {"NATIVEALIGN_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "nativealign_cli.main", "run", str(folder / "job.yaml")]
    runner = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    peaks: dict[str, float] = {}
    while runner.poll() is None:
        for phase, mebibytes in _processes(runner.pid):
            peaks[phase] = max(peaks.get(phase, 0.0), mebibytes)
        time.sleep(POLL_SECONDS)
    if runner.returncode:
        sys.exit(f"the run failed with exit code {runner.returncode}")
    return peaks


def _processes(runner: int) -> Iterator[tuple[str, float]]:
    """(step-phase, peak in MiB) of every process of a phase: a child of the runner's fork server that writes a log."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [child for server in psutil.Process(runner).children() for child in server.children()]:
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                log = Path(os.readlink(f"/proc/{process.pid}/fd/1"))
                if log.parent.name == "logs":
                    yield log.stem.rpartition("-")[0], peak_mebibytes(process.pid)


def peak_mebibytes(pid: int) -> float:
    """The largest resident set that a process has had; 0 for one that has ended and is not collected. Raises OSError."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def main() -> None:
    results = []
    for copies in SIZES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            lines = list(widened(source(folder), copies))
            with gzip.open(folder / "corpus.jsonl.gz", "wt", compresslevel=1) as file:
                file.writelines(line + "\n" for line in lines)
            (folder / "job.yaml").write_text(MANIFEST.format(parallelism=os.cpu_count(), shards=SHARDS * copies))
            began = time.monotonic()
            peaks = run(folder)
            found = {"times": copies, "documents": len(lines), "seconds": round(time.monotonic() - began, 1)}
            results.append(found | {"peakMiB": {phase: round(peak) for phase, peak in sorted(peaks.items())}})
            print(json.dumps(results[-1]), flush=True)


if __name__ == "__main__":
    main()
