"""Documents packed into rows of one length, and the shard files that hold them.

A shard is one stream of tokens with the places where documents start. It is cut into rows of `sequence_length` when
it is read, so the files do not depend on the length; only the last row is padded, and only in memory. A document that
crosses a cut goes on in the next row as if it were a new one: its positions restart, nothing attends across the cut.

On disk, little-endian, without headers:
    NAME.bin    uint32 per token
    NAME.idx    two uint64 per document: offset of its first token, and how many of its tokens carry no loss;
                a last pair (number of tokens, 0) ends the file

A document whose tokens all carry no loss is padding. End-of-sequence tokens are the caller's: append one to every document.
`ShardWriter` is used by the tokenizing steps, `Shard` by `loop`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nativealign_workloads.errors import DataError, NoInputError

IGNORED = -100
"""Label of a position that carries no loss (the convention of torch's cross entropy)."""

TOKEN = np.dtype("<u4")
INDEX = np.dtype("<u8")


@dataclass(frozen=True)
class Sample:
    """One row; all arrays are int64 of shape (sequence_length,).

    `labels` equal `input_ids` where the position is to be predicted from the one before it, else -100: at document
    starts, in prompts and in padding. `length` counts the tokens before the padding.
    """

    input_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    length: int


class Shard:
    """Rows of one shard. `tokens` has shape (n,); `documents` (d + 1, 2) as in the .idx file.

    Arrays may be memory-mapped; a row copies only what it returns.
    """

    def __init__(self, tokens: ArrayLike, documents: ArrayLike, sequence_length: int, pad_id: int = 0) -> None:
        self._tokens = np.asanyarray(tokens)
        self._documents = np.asanyarray(documents)
        self.sequence_length, self._pad_id = sequence_length, pad_id

    @classmethod
    def open(cls, path: Path, sequence_length: int, pad_id: int = 0) -> Self:
        """Map the shard `path`.bin and `path`.idx; DataError when the two do not fit together."""
        tokens_path, index_path = _paths(path)
        for file in (tokens_path, index_path):
            if not file.is_file():
                raise NoInputError("ShardNotFound", f"{file.name} is missing", "run the tokenize step again")
        tokens, documents = _map(tokens_path, TOKEN), _map(index_path, INDEX)
        if documents.size < 2 or documents.size % 2 or documents[-2] != tokens.size:
            raise DataError("TruncatedShard", f"{path.name}: index and tokens do not fit together", "run the tokenize step again")
        return cls(tokens, documents.reshape(-1, 2), sequence_length, pad_id)

    @property
    def tokens(self) -> int:
        return len(self._tokens)

    @property
    def documents(self) -> int:
        return len(self._documents) - 1

    def __len__(self) -> int:
        return -(-len(self._tokens) // self.sequence_length)

    def sample(self, row: int) -> Sample:
        """The row with number `row`, 0 <= row < len(self)."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        begin = row * self.sequence_length
        end = min(begin + self.sequence_length, len(self._tokens))
        tokens = np.full(self.sequence_length, self._pad_id, np.int64)
        tokens[: end - begin] = self._tokens[begin:end]
        positions = np.arange(self.sequence_length, dtype=np.int64)
        labels = tokens.copy()
        length = end - begin
        for start, stop, silent, is_padding in self._documents_within(begin, end):
            positions[start:stop] = np.arange(stop - start)
            labels[start:silent] = IGNORED
            if is_padding:
                length = min(length, start)
        labels[end - begin :] = IGNORED
        positions[end - begin :] = np.arange(begin + self.sequence_length - end)
        return Sample(tokens, positions, labels, length)

    def _documents_within(self, begin: int, end: int) -> Iterable[tuple[int, int, int, bool]]:
        """(start, stop, end of its tokens without loss, is padding) of each document piece, relative to `begin`."""
        first = int(np.searchsorted(self._documents[:, 0], begin, side="right")) - 1
        last = int(np.searchsorted(self._documents[:, 0], end, side="left"))
        table = self._documents[first : last + 1].astype(np.int64)
        for (offset, silent), (following, _) in pairwise(table):
            start, stop = max(int(offset), begin), min(int(following), end)
            if start < stop:
                # the first token of a piece has nothing before it that it could be predicted from
                quiet = min(max(int(offset + silent), start + 1), stop)
                yield start - begin, stop - begin, quiet - begin, bool(offset + silent >= following)


class ShardWriter:
    """Writes `path`.bin and `path`.idx document by document; the same documents give the same bytes."""

    def __init__(self, path: Path) -> None:
        self.tokens = self.documents = 0
        tokens_path, index_path = _paths(path)
        self._bin: BinaryIO = tokens_path.open("wb")
        self._idx: BinaryIO = index_path.open("wb")

    def add(self, document: Sequence[int] | NDArray[np.uint32], silent: int = 0) -> None:
        """Append a document whose first `silent` tokens carry no loss. An empty one is ignored."""
        if len(document) == 0:
            return
        self._bin.write(np.asarray(document, TOKEN).tobytes())
        self._idx.write(np.asarray([self.tokens, silent], INDEX).tobytes())
        self.tokens += len(document)
        self.documents += 1

    def close(self) -> None:
        if not self._idx.closed:
            self._idx.write(np.asarray([self.tokens, 0], INDEX).tobytes())
            self._idx.close()
            self._bin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _paths(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".bin"), path.with_name(path.name + ".idx")


def _map(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The file as an array without reading it; an empty file cannot be mapped."""
    if path.stat().st_size < dtype.itemsize:
        return np.empty(0, dtype)
    return np.memmap(path, dtype, "r", shape=(path.stat().st_size // dtype.itemsize,))
