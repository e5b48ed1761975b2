"""What two writers of one shard ask an endpoint is billed once, whatever of it stood when the shard was committed."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nativealign_workloads.align.asking import add_late_usage
from nativealign_workloads.engines.billing import billed_together, usage
from nativealign_workloads.engines.counted import is_counted, late_usage
from nativealign_workloads.store import LocalStore, ObjectInfo

Json = dict[str, Any]
WRITERS = ("w-1", "w-2")


def entries(drawn: list[tuple[int, bool]]) -> list[tuple[str, Json]]:
    """(name, object) of a journal, in the order of writing. Each has an intent, and may settle the oldest one of its writer."""
    found, open_intents = list[tuple[str, Json]](), dict[str, list[str]]({writer: [] for writer in WRITERS})
    for number, (who, settles) in enumerate(drawn):
        writer, entry = WRITERS[who], Json(intents=[{"id": f"{WRITERS[who]}-{number}", "tokens": 100 + number}], settled=[])
        if settles and open_intents[writer]:
            identifier = open_intents[writer].pop(0)
            intent = {"id": identifier, "key": ["r", 0], "tokens": 100 + int(identifier.rpartition("-")[2])}
            entry["settled"] = [{"intent": intent, "requests": 1, "tokens": number, "completionTokens": 1, "reply": None}]
        open_intents[writer].append(f"{writer}-{number}")
        found.append((f"{writer}-{number:06d}.json", entry))
    return found


def billed(objects: list[tuple[str, Json]]) -> Json:
    settled = {row["intent"]["id"]: row for _, entry in objects for row in entry["settled"]}
    lost = [row["tokens"] for _, entry in objects for row in entry["intents"] if row["id"] not in settled]
    return billed_together(settled.values()) | {"unsettledRequests": len(lost), "unsettledTokens": sum(lost)}


def record(objects: list[tuple[str, Json]]) -> Json:
    """The facts of a shard's record that has seen these objects."""
    settled = {row["intent"]["id"] for _, entry in objects for row in entry["settled"]}
    runs: dict[str, list[list[int]]] = {writer: [] for writer in WRITERS}
    for name, _ in objects:
        writer, _, number = name.removesuffix(".json").rpartition("-")
        runs[writer].append([int(number), int(number)])
    ids = [row["id"] for _, entry in objects for row in entry["intents"]]
    return {"usage": billed(objects), "counted": {"objects": runs, "open": [name for name in ids if name not in settled]}}


@given(st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=30), st.integers(0, 30))
def test_the_record_and_what_came_late_are_the_whole_bill(drawn: list[tuple[int, bool]], stood: int) -> None:
    every = entries(drawn)
    facts = record(every[:stood])
    late = [(name, entry) for name, entry in every if not is_counted(facts, name)]
    assert late == every[stood:]
    assert usage([facts["usage"], late_usage(facts, [entry for _, entry in late])]) == usage([billed(every)])


class StaleStore(LocalStore):
    """Its first listing lacks what was written last."""

    listings = 0

    def list(self, prefix: str, *, with_etag: bool = False) -> Iterator[ObjectInfo]:
        self.listings += 1
        every = sorted(super().list(prefix, with_etag=with_etag), key=lambda info: info.key)
        return iter(every[:-1] if self.listings == 1 else every)


def test_what_a_stale_listing_leaves_out_is_in_the_bill_too(tmp_path: Path) -> None:
    every = entries([(0, False), (1, False), (1, True)])
    records = [{"facts": record(every[:1])}]
    store = StaleStore(tmp_path)
    for name, entry in every:
        store.create(f"step/rewrite/answers/00000/expert/{name}", json.dumps(entry).encode())
    add_late_usage(SimpleNamespace(store=store, prefix="step"), "rewrite", records)  # type: ignore[arg-type]
    assert records[0]["facts"]["usage"] == usage([billed(every)])
