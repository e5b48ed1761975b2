"""Work inside a shard in durable pieces. Used by annotate and rewrite, whose answers cost money or hours.

A segment holds the answers for a fixed number of documents, so its content does not depend on where an earlier attempt was killed.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from nativealign_workloads.align.chunks import kept_answers
from nativealign_workloads.commit import Json, Segments, ShardCommit
from nativealign_workloads.context import Context
from nativealign_workloads.engines.billing import usage
from nativealign_workloads.records import read_rows
from nativealign_workloads.store import NotFound

Work = Callable[[list[Json]], list[Json]]
Prepare = Callable[[Json], None]


def work_in_segments(shard: ShardCommit, documents: Iterator[Json], size: int, work: Work, prepare: Prepare) -> Path | None:
    """Runs `work` on each `size` documents that no segment holds yet, and joins all segments into one part in scratch.

    `prepare` is called once before the first call of `work`, with the usage that the adopted segments have paid for; it is not
    called where nothing is left, so that no model is loaded to find that out. None where another writer has meanwhile committed
    the shard and removed its segments.
    """
    try:
        return _work(shard.context, documents, size, work, prepare)
    except NotFound:
        if not shard.committed():
            raise
        clear_progress(shard.context)  # what this writer has added since
        return None


def _work(context: Context, documents: Iterator[Json], size: int, work: Work, prepare: Prepare) -> Path:
    segments = Segments(context)
    done, number, prepared = len(segments), 0, False
    while batch := list(islice(documents, size)):
        context.check_stop()
        if number >= done:
            if not prepared:
                prepare(usage(segments.rows(done)))
                prepared = True
            segments.add(number, work(batch))
        number += 1
        context.progress.advance(len(batch))
    path = context.scratch / "part.jsonl.zst"
    segments.assemble(number, path)
    return path


def clear_progress(context: Context) -> None:
    """Removes what led to a shard's record, once that stands: segments, and answers that were kept."""
    Segments(context).clear()
    kept_answers(context).clear()


def part_rows(path: Path) -> Iterator[Json]:
    """The rows of a part in scratch."""
    with path.open("rb") as stream:
        yield from read_rows(stream, path.name)
