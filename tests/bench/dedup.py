"""`make bench-dedup`: deduplication beside its peers, one core each, compressed JSON lines in, filtered JSON lines out.

The corpora are those of articles.py, and the newspaper articles of memory.py where they lie beside the project. Prints JSON: for
each system documents, seconds, documents per second, the peak of its memory and the seconds of each phase; for datasketch and
nativealign precision and recall over all true pairs of smaller corpora.
"""

import contextlib
import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy import sparse
from tests.bench import articles
from tests.bench.memory import REAL, peak_mebibytes, widened
from tests.workloads.pipeline import Ended, Unit, World, manifest_of, pool_of, rows, run_phases

from nativealign_api.align import Fuzzy
from nativealign_workloads.text.fold import words
from nativealign_workloads.text.hashes import run_hashes, word_hashes

Json = dict[str, Any]
Clusters = dict[str, str]
"""Of each document's own id the id of the document that stands for it."""

CORE = 0
PEERS = Path(__file__).parent / "peers"
PEER_PYTHON = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"
PEER_DOCUMENTS, QUALITY_DOCUMENTS = 5_000, 5_000
QUALITY_SEEDS = (1, 2, 3, 4)
SIZES = (100_000, 1_000_000)
SYSTEMS = (["datatrove_minhash"], ["datatrove_minhash", "whitespace"], ["datasketch_lsh"], ["rensa_lsh"])
OFF = {"languages": [], "minWords": 0, "removeBoilerplate": False, "repair": {"encoding": False, "presentationForms": False}}


def ours(corpus: Path, folder: Path) -> tuple[World, str, dict[str, float]]:
    """Runs inspect, clean with nothing to clean, and dedup; returns the store, dedup's digest and the seconds of each phase."""
    spec = {
        "corpora": [{"name": "articles", "uri": str(corpus), "idField": "id"}],
        "sharding": {"shards": 1},
        "clean": OFF,
        "heldOut": {"documents": 0},
        "expert": {"rules": {}},
    }
    world, seconds = World(folder / "world").made(), dict[str, float]()

    def timed(world: World, units: list[Unit]) -> list[Ended]:
        began = time.monotonic()
        ended = pool.run(world, units)
        seconds[units[0].phase] = round(time.monotonic() - began, 2)
        return ended

    with pool_of(1) as pool:
        digests = run_phases(folder, manifest_of("AlignJob", "bench", spec), world, timed, until="dedup")
    return world, digests["AlignJob/bench"]["dedup"], seconds


def our_clusters(world: World, digest: str) -> Clusters:
    kept = {row["id"]: row["userId"] for row in rows(world.store, f"steps/dedup/{digest}", "documents")}
    clean = next((world.store / "steps" / "clean").iterdir()).name
    names = {row["id"]: row["userId"] for row in rows(world.store, f"steps/clean/{clean}", "documents")}
    gone = {row["id"]: row["of"] for row in rows(world.store, f"steps/dedup/{digest}", "removed")}
    return {name: kept[gone.get(identifier, identifier)] for identifier, name in names.items()}


def measured(work: Callable[[], Any], documents: int) -> tuple[Json, Any]:
    """Time and peak memory of this process' descendants while `work` runs."""
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max([peak[0], *_resident(psutil.Process())])

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    try:
        result = work()
    finally:
        seconds = time.monotonic() - began
        done.set()
        watcher.join()
    rate = round(documents / seconds, 1)
    return {"documents": documents, "seconds": round(seconds, 2), "perSecond": rate, "peakMiB": round(peak[0])}, result


def _resident(parent: psutil.Process) -> Iterator[float]:
    """Peak resident MiB of each descendant so far."""
    for process in parent.children(recursive=True):
        with contextlib.suppress(OSError):
            yield peak_mebibytes(process.pid)


def peer(script: str, corpus: Path, folder: Path, *arguments: str) -> None:
    """Runs a peer's script in its own environment; it writes the documents that it keeps under `folder`."""
    command = [PEER_PYTHON, PEERS / f"{script}.py", corpus, folder, *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{script}: {done.stderr[-2000:]}")


# Quality


def true_pairs(corpus: Path, threshold: float) -> set[tuple[str, str]]:
    """Every pair of documents whose sets of shingles have this Jaccard similarity, by an inverted index over all shingles."""
    names, texts = zip(*((record["id"], record["text"]) for record in _records(corpus)), strict=True)
    size = Fuzzy().shingle_words
    shingles, counts = run_hashes(*word_hashes(texts), size)
    owner = np.repeat(np.arange(len(texts)), counts)
    _, columns = np.unique(shingles, return_inverse=True)
    matrix = sparse.csr_array((np.ones(len(owner), np.int32), (owner, columns)))
    matrix.data[:] = 1
    common = sparse.triu(matrix @ matrix.T, k=1).tocoo()
    sizes = np.diff(matrix.indptr)
    jaccard = common.data / (sizes[common.row] + sizes[common.col] - common.data)
    near = jaccard >= threshold
    return {_pair(names[a], names[b]) for a, b in zip(common.row[near], common.col[near], strict=True)}


def found_pairs(clusters: Clusters) -> set[tuple[str, str]]:
    members = defaultdict(list)
    for name, head in clusters.items():
        members[head].append(name)
    return {_pair(a, b) for cluster in members.values() for a, b in combinations(cluster, 2)}


def _pair(first: str, second: str) -> tuple[str, str]:
    return (first, second) if first < second else (second, first)


def _records(corpus: Path) -> Iterator[Json]:
    with gzip.open(corpus) as file:
        yield from map(json.loads, file)


# The whole


def speed_of_ours(corpus: Path, documents: int, folder: Path) -> Json:
    with tempfile.TemporaryDirectory(dir=folder) as work:
        found, (_, _, seconds) = measured(lambda: ours(corpus, Path(work)), documents)
    return found | {"phases": seconds}


def speed_of(peer_arguments: list[str], corpus: Path, documents: int, folder: Path) -> Json:
    script, *arguments = peer_arguments
    with tempfile.TemporaryDirectory(dir=folder) as work:
        found, _ = measured(lambda: peer(script, corpus, Path(work), *arguments), documents)
        stages = Path(work) / "seconds.json"
        return found | ({"phases": json.loads(stages.read_text())} if stages.is_file() else {})


def qualities(corpora: list[Path], folder: Path) -> Json:
    """Of ours and of datasketch over several corpora together."""
    true, hits, pairs = 0, Counter[str](), Counter[str]()
    for corpus in corpora:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            truth, found = _found(corpus, Path(work))
        true += len(truth)
        for name, clusters in found.items():
            together = found_pairs(clusters)
            hits[name] += len(together & truth)
            pairs[name] += len(together)
    return {"corpora": len(corpora), "truePairs": true} | {
        name: {"pairs": pairs[name], "precision": round(hits[name] / pairs[name], 4), "recall": round(hits[name] / true, 4)}
        for name in pairs
    }


def _found(corpus: Path, folder: Path) -> tuple[set[tuple[str, str]], dict[str, Clusters]]:
    """The true pairs, and the clusters that each system finds; datasketch gets the same words, folded."""
    folded = folder / "folded.jsonl.gz"
    with gzip.open(folded, "wt", compresslevel=1) as file:
        for record in _records(corpus):
            file.write(json.dumps(record | {"text": " ".join(words(record["text"]))}, ensure_ascii=False) + "\n")
    truth = true_pairs(corpus, Fuzzy().similarity)
    work = folder / "datasketch"
    work.mkdir()
    peer("datasketch_lsh", folded, work)
    world, digest, _ = ours(corpus, folder)
    return truth, {"nativealign": our_clusters(world, digest), "datasketch": json.loads((work / "clusters.json").read_text())}


def of_made_up(folder: Path) -> Json:
    """Everything on made-up articles."""
    few = folder / "few.jsonl.gz"
    articles.write(few, PEER_DOCUMENTS)
    results = {" ".join(system): speed_of(system, few, PEER_DOCUMENTS, folder) for system in SYSTEMS}
    for documents in SIZES:
        corpus = folder / f"{documents}.jsonl.gz"
        articles.write(corpus, documents)
        results[f"nativealign {documents}"] = speed_of_ours(corpus, documents, folder)
        corpus.unlink()
        print(json.dumps(results), file=sys.stderr, flush=True)
    corpora = [folder / f"quality-{seed}.jsonl.gz" for seed in QUALITY_SEEDS]
    for corpus, seed in zip(corpora, QUALITY_SEEDS, strict=True):
        articles.write(corpus, QUALITY_DOCUMENTS, seed)
    return results | {"quality": qualities(corpora, folder)}


def of_newspapers(folder: Path) -> Json:
    """Speed and quality on the newspaper articles; {} where they are not."""
    if not REAL.is_file():
        return {}
    corpus = folder / "newspapers.jsonl.gz"
    records = [json.loads(line) | {"id": f"doc-{number}"} for number, line in enumerate(widened(REAL, 1))]
    with gzip.open(corpus, "wt", compresslevel=1) as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    results = {" ".join(system): speed_of(system, corpus, len(records), folder) for system in SYSTEMS}
    results["nativealign"] = speed_of_ours(corpus, len(records), folder)
    return results | {"quality": qualities([corpus], folder)}


def main() -> None:
    os.sched_setaffinity(0, {CORE})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {"madeUp": of_made_up(folder), "newspapers": of_newspapers(folder)}
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
