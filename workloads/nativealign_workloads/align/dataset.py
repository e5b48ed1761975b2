"""An aligned corpus as a dataset: a card and Parquet files, for `datasets.load_dataset`. Called by download.

Every document is there in several views: `aligned`, the text after rewriting, `cleaned`, the text before, and `raw`, the text as it
was read. `aligned` and `cleaned` together are `hybrid`, the best of the paper's ablations (arXiv 2412.03253).
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from nativealign_workloads.commit import Json

HYBRID = ("aligned", "cleaned")
GROUP_ROWS = 1000
_GUARD = pa.struct({"guard": pa.string(), "value": pa.float64(), "limit": pa.float64(), "action": pa.string()})
_CHUNK = pa.struct({"state": pa.string(), "by": pa.string(), "tries": pa.int32(), "tokens": pa.int32(), "guards": pa.list_(_GUARD)})
COLUMNS = {
    "text": (pa.string(), "what to train on"),
    "view": (pa.string(), "`aligned`, `cleaned` or `raw`"),
    "id": (pa.string(), "the document; the same in all views"),
    "corpus": (pa.string(), "name of the corpus"),
    "key": (pa.string(), "file of the corpus"),
    "ordinal": (pa.int64(), "number of the record in its file, from 0"),
    "userId": (pa.string(), "the record's own id"),
    "license": (pa.string(), "licence of the document"),
    "url": (pa.string(), "address of the document"),
    "origin": (pa.string(), "aligned only: the text before rewriting"),
    "conduct": (pa.string(), "aligned only: hash of the code of conduct"),
    "worker": (pa.string(), "aligned only: digest of the worker's training; null where the expert rewrote"),
    "chunks": (pa.list_(_CHUNK), "aligned only: what became of each chunk, and every guard that an answer broke"),
}
SCHEMA = pa.schema([(name, kind) for name, (kind, _) in COLUMNS.items()])
_COMMON = ("id", "corpus", "key", "ordinal", "userId", "license", "url")


def views(spec: Json) -> tuple[str, ...]:
    """The views of a job; `raw` is not one where personal data is masked, which it would show."""
    return HYBRID if "personalData" in spec.get("clean", {}) else (*HYBRID, "raw")


def view_row(view: str, row: Json) -> Json:
    """A row of a view, from a document of rewrite; what it has not is null."""
    common = {"view": view, **{name: row.get(name) for name in _COMMON}}
    if view == "aligned":
        return common | {"text": row["rewritten"], **{name: row[name] for name in ("origin", "conduct", "worker", "chunks")}}
    return common | {"text": row.get("raw", row["origin"]) if view == "raw" else row["origin"]}


def view_files(views: Iterable[str], shards: int) -> list[dict[str, str]]:
    """For each shard the path of each view in the dataset."""
    every = list(views)
    return [{view: f"data/{view}-{shard:05d}-of-{shards:05d}.parquet" for view in every} for shard in range(shards)]


def write_views(rows: Iterable[Json], streams: dict[str, BinaryIO]) -> None:
    """Writes documents of rewrite as Parquet into the stream of each view. Memory holds GROUP_ROWS documents."""
    with ExitStack() as stack:
        writers = {view: stack.enter_context(pq.ParquetWriter(file, SCHEMA, compression="zstd")) for view, file in streams.items()}
        documents = iter(rows)
        while group := list(islice(documents, GROUP_ROWS)):
            for view, writer in writers.items():
                writer.write_table(pa.Table.from_pylist([view_row(view, row) for row in group], SCHEMA))


def card(name: str, spec: Json, manifests: dict[str, Json], conduct: str) -> str:
    """The dataset card, from a job's spec and manifests: what it holds, where it came from, under which licences."""
    files = {view: f"data/{view}-*.parquet" for view in views(spec)}
    first = {"default": True}
    configs = [
        {"config_name": view, "data_files": pattern} | (first if view == HYBRID[0] else {}) for view, pattern in files.items()
    ]
    head = {
        "pretty_name": name,
        "task_categories": ["text-generation"],
        "language": manifests["clean"]["parameters"]["clean"]["languages"],
        "configs": [*configs, {"config_name": "hybrid", "data_files": [files[view] for view in HYBRID]}],
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n" + "\n".join(
        _body(name, spec, manifests, conduct)
    )


def _body(name: str, spec: Json, manifests: dict[str, Json], conduct: str) -> Iterator[str]:
    rewritten = manifests["rewrite"]
    counts = ", ".join(f"{count} {state}" for state, count in rewritten["facts"]["chunks"].items())
    yield f"# {name}\n"
    yield "A corpus that nativealign cleaned, deduplicated and rewrote under a code of conduct (arXiv 2412.03253).\n"
    yield f"{rewritten['tally']['outcomes']['out']['count']} documents in each view; chunks of `aligned`: {counts}.\n"
    yield "```python\nfrom datasets import load_dataset\n\n"
    others = ", ".join(f'"{view}"' for view in (*views(spec)[1:], "hybrid"))
    yield f'aligned = load_dataset("path/of/this/folder", "aligned", split="train")  # or {others}\n```\n'
    yield "| column | |\n|---|---|"
    yield from (f"| `{column}` | {words} |" for column, (_, words) in COLUMNS.items())
    yield "\n| corpus | files | licence |\n|---|---|---|"
    yield from (f"| {corpus['name']} | `{corpus['uri']}` | {_license(corpus)} |" for corpus in spec["corpora"])
    yield f"\nCode of conduct: {conduct}. Each step's digest names all that it stands on:\n"
    yield "| step | digest |\n|---|---|"
    yield from (f"| {step} | `{manifest['digest']}` |" for step, manifest in manifests.items() if step != "inspect")
    yield ""


def _license(corpus: Json) -> str:
    own = f"each document's own, `{corpus['licenseField']}`" if "licenseField" in corpus else ""
    return ", else ".join(filter(None, (own, corpus.get("license")))) or "not stated"
