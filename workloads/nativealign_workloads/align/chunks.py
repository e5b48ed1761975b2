"""The unit of rewriting: how a document becomes requests and comes back. Used by annotate, train-worker and rewrite alike.

Because all three come through here, the worker is trained on the very prompts that it will meet.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from nativealign_api.align import Chunking
from nativealign_workloads.conduct import Conduct, load_conduct
from nativealign_workloads.conduct.prompt import render_messages
from nativealign_workloads.context import Context
from nativealign_workloads.engines import Request
from nativealign_workloads.errors import ConfigError
from nativealign_workloads.text.chunk import Chunk, chunk, context_of

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Piece:
    """A chunk of a document with all that a prompt needs."""

    document: str
    """Id of the document."""
    chunk: Chunk
    context: str
    """The original text before it, for reading only."""
    tokens: int

    @property
    def id(self) -> str:
        return f"{self.document}:{self.chunk.index}"


def cut(document: str, text: str, settings: Chunking, count: CountTokens) -> list[Piece]:
    """The pieces of a document, in order."""
    chunks = chunk(text, settings.max_tokens, count)
    contexts = [context_of(chunks, c.index, settings.context_tokens, count) if settings.context_tokens else "" for c in chunks]
    return [Piece(document, c, context, count(c.text)) for c, context in zip(chunks, contexts, strict=True)]


def request(conduct: Conduct, piece: Piece, reader: Literal["expert", "worker"], ratio: float, attempt: int = 0) -> Request:
    """What an engine is asked: the one prompt, and an answer of at most `ratio` times the chunk's tokens, plus 64."""
    messages = render_messages(conduct, piece.chunk.text, piece.context, reader)
    return Request(piece.id, messages, piece.chunk.text, int(piece.tokens * ratio) + 64, attempt)


def counter(tokenizer: Path | None) -> CountTokens:
    """Counts tokens with a tokenizer.json; without one, words. Needs no torch."""
    if tokenizer is None:
        return lambda text: len(text.split())
    from tokenizers import Tokenizer

    if not tokenizer.is_file():
        raise ConfigError("TokenizerMissing", f"{tokenizer.name} is missing from the model's folder", "save it as a fast tokenizer")
    loaded = Tokenizer.from_file(str(tokenizer))

    @lru_cache(maxsize=1024)  # a chunk is counted when it is cut, when it is asked for, and where it is the context of the next
    def count(text: str) -> int:
        return len(loaded.encode_batch_fast([text], add_special_tokens=False)[0])

    return count


def pinned_conduct(context: Context) -> tuple[Conduct, str]:
    """The code of conduct as it was pinned, and its hash."""
    prefix = context.job.inputs["conduct"]
    return load_conduct(context.store.read(f"{prefix}/conduct.yaml"), "code of conduct"), prefix.rpartition("/")[2]
