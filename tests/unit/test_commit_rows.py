"""Rows of parts by their place, over all shards of a step."""

import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from nativealign_workloads.commit import FRAME_ROWS, Json, PartWriter, rows_between, run_of
from nativealign_workloads.store.local import LocalStore

SIZES = st.integers(0, 3) | st.sampled_from([FRAME_ROWS - 1, FRAME_ROWS, FRAME_ROWS + 1, 3 * FRAME_ROWS])


def write_shard(store: LocalStore, folder: Path, numbers: range, *, with_frames: bool = True) -> Json:
    """A shard's record with one part, or with none where there are no rows."""
    writer = PartWriter(folder / "documents")
    for number in numbers:
        writer.add({"n": number})
    writer.close()
    store.upload(key := f"documents-{numbers.start}", writer.path)
    frames = {"frames": writer.frames} if with_frames else {}
    return {"parts": {"documents.jsonl.zst": {"key": key, "rows": writer.rows} | frames} if numbers else {}}


@settings(deadline=None, max_examples=40)
@given(st.lists(SIZES, min_size=1, max_size=4), st.integers(1, 9), st.booleans())
def test_runs_of_rows_are_the_whole_part_in_order(sizes: list[int], shards: int, with_frames: bool):
    with tempfile.TemporaryDirectory() as name:
        store, ends = LocalStore(Path(name) / "store"), [sum(sizes[:n]) for n in range(len(sizes) + 1)]
        records = [write_shard(store, Path(name), range(*pair), with_frames=with_frames) for pair in pairwise(ends)]
        runs = [run_of(records, "documents", shard, shards) for shard in range(shards)]
        found = [[row["n"] for row in rows_between(store, records, "documents", *run)] for run in runs]
    assert [n for part in found for n in part] == list(range(sum(sizes)))
    assert [list(range(*run)) for run in runs] == found
    assert max(map(len, found)) - min(map(len, found)) <= 1
