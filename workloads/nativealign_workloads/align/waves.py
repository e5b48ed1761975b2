"""Documents through an engine, many at a time. Called by annotate and rewrite.

A wave is a run of documents with enough chunks for one call of the engine. Waves overlap: while one waits for answers others are
cut and judged, and what comes out keeps the order of the documents.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

from nativealign_workloads.align.chunks import Piece
from nativealign_workloads.commit import Json
from nativealign_workloads.context import Context
from nativealign_workloads.errors import StepError, StoppedError

AT_ONCE = 4
"""Waves under way."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cut:
    """A document and its pieces."""

    row: Json
    pieces: list[Piece]


Wave = list[Cut]


def waves(documents: Iterable[Cut], pieces: int) -> Iterator[Wave]:
    """Runs of documents that have at least so many pieces together; the last may have fewer. Depends on the documents alone."""
    wave, held = Wave(), 0
    for document in documents:
        wave.append(document)
        held += len(document.pieces)
        if held >= pieces:
            yield wave
            wave, held = [], 0
    if wave:
        yield wave


def answered(
    context: Context, waves: Iterable[Wave], answer: Callable[[Wave], list[T]], interrupt: Callable[[StepError], None]
) -> Generator[T, None, None]:
    """What `answer`, which runs in several threads, makes of the waves, in their order.

    After an error, and when the process is asked to stop, nothing more begins; `interrupt` says so to the engines.
    """
    under_way: deque[Future[list[T]]] = deque()
    with ThreadPoolExecutor(AT_ONCE, "wave") as pool:
        try:
            for wave in waves:
                under_way.append(pool.submit(answer, wave))
                if len(under_way) == AT_ONCE:
                    yield from _result(context, under_way.popleft())
            while under_way:
                yield from _result(context, under_way.popleft())
        except BaseException as error:
            for future in under_way:
                future.cancel()
            interrupt(error if isinstance(error, StepError) else StoppedError("Stopped", "another part has failed"))
            raise


def _result(context: Context, future: Future[list[T]]) -> list[T]:
    while not future.done():
        context.stop_if_asked()
        wait([future], timeout=1)
    return future.result()
