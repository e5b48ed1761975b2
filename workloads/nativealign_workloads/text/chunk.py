"""Chunks of a document for rewriting, and their way back.

Called by annotate, train-worker and rewrite, so that seed and corpus have the same unit. A document goes in; chunks of at most
`max_tokens` come out, which join to the document byte for byte. `reassemble` puts rewritten chunks together and refuses gaps.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nativealign_workloads.errors import DataError

CountTokens = Callable[[str], int]

# Each is linear in the text: a match starts only at a newline, after a full stop, or at a run of white space
_PARAGRAPH_BREAK = re.compile(r"\n\s*\n\s*")
_SENTENCE_BREAK = re.compile(r"(?<=[.!?؟؛…۔])\s+|(?<=[.!?؟؛…۔][\"'»”’)\]])\s+|\n\s*")
_WORD_BREAK = re.compile(r"\s+")
_BREAKS = (_PARAGRAPH_BREAK, _SENTENCE_BREAK, _WORD_BREAK)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document. `separator_after` is the white space up to the next chunk and never goes to a model."""

    index: int
    text: str
    separator_after: str


@dataclass(frozen=True, slots=True)
class _Unit:
    text: str
    separator: str
    tokens: int


def chunk(text: str, max_tokens: int, count_tokens: CountTokens) -> list[Chunk]:
    """Paragraphs packed in order to at most `max_tokens` by `count_tokens`.

    A paragraph is split into sentences (. ! ? ؟ ؛ … ۔ and newline) only when it alone is longer, a sentence into words, a word into
    halves. Only a single character may exceed the limit. White space before the first word stays in the first chunk.
    """
    if max_tokens < 1:
        raise ValueError("max_tokens must be at least 1")
    body, separator = _trimmed(text)
    units = list(_units(body, separator, 0, max_tokens, count_tokens))
    return [Chunk(index, *piece) for index, piece in enumerate(_pack(units, max_tokens, count_tokens))]


def join(chunks: Sequence[Chunk]) -> str:
    """The original document."""
    return "".join(c.text + c.separator_after for c in chunks)


def reassemble(chunks: Sequence[Chunk], texts: Mapping[int, str | None]) -> str:
    """The document with each chunk's text replaced by `texts[index]`; None drops the chunk together with its separator.

    Raises DataError `ChunkMissing` when an index has no text, or when the chunks are not 0..n-1 in order.
    """
    if [c.index for c in chunks] != list(range(len(chunks))):
        raise DataError("ChunkMissing", f"chunks {[c.index for c in chunks][:8]} are not numbered 0 to {len(chunks) - 1}")
    missing = [c.index for c in chunks if c.index not in texts]
    if missing:
        raise DataError("ChunkMissing", f"no text for chunk {missing[0]} ({len(missing)} of {len(chunks)} missing)")
    kept = [(replacement, c.separator_after) for c in chunks if (replacement := texts[c.index]) is not None]
    return "".join(replacement + separator for replacement, separator in kept)


def context_of(chunks: Sequence[Chunk], index: int, max_tokens: int, count_tokens: CountTokens) -> str:
    """The last original paragraph before chunk `index`, for reading only; "" for the first chunk.

    A paragraph longer than `max_tokens` is cut from the left, at a sentence where one fits, else at a word.
    """
    if index == 0 or max_tokens < 1:
        return ""
    paragraph = list(_split(chunks[index - 1].text.strip(), _PARAGRAPH_BREAK))[-1][0]
    if count_tokens(paragraph) <= max_tokens:
        return paragraph
    return _tail(paragraph, _SENTENCE_BREAK, max_tokens, count_tokens) or _tail(paragraph, _WORD_BREAK, max_tokens, count_tokens)


def _trimmed(text: str) -> tuple[str, str]:
    """(text without trailing white space, that white space); a blank text is kept whole."""
    body = text.rstrip()
    return (body, text[len(body) :]) if body else (text, "")


def _split(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Pieces with the white space that follows each; leading white space stays with the first piece."""
    start = 0
    for match in pattern.finditer(text):
        piece = text[start : match.start()]
        body = piece.rstrip()  # spaces before a newline belong to the separator
        if body and match.end() < len(text):
            yield body, text[start + len(body) : match.end()]
            start = match.end()
    if start < len(text):
        yield text[start:], ""


def _units(text: str, separator: str, level: int, max_tokens: int, count: CountTokens) -> Iterator[_Unit]:
    """The largest pieces that fit, coarse breaks first."""
    if not text:
        return
    if level > 0 and ((tokens := count(text)) <= max_tokens or len(text) == 1):
        yield _Unit(text, separator, tokens)
        return
    pieces = list(_split(text, _BREAKS[level])) if level < len(_BREAKS) else _halves(text)
    for number, (piece, gap) in enumerate(pieces, start=1):
        yield from _units(piece, separator if number == len(pieces) else gap, min(level + 1, len(_BREAKS)), max_tokens, count)


def _halves(text: str) -> list[tuple[str, str]]:
    middle = len(text) // 2
    return [(text[:middle], ""), (text[middle:], "")]


def _pack(units: Sequence[_Unit], max_tokens: int, count: CountTokens) -> Iterator[tuple[str, str]]:
    """(text, separator) of each chunk. Token counts hardly add up exactly, so a full chunk is counted once more as a whole."""
    start = 0
    while start < len(units):
        end, tokens = start + 1, units[start].tokens
        while end < len(units) and tokens + units[end].tokens <= max_tokens:
            tokens += units[end].tokens
            end += 1
        while end - start > 1 and count(_joined(units[start:end])) > max_tokens:
            end -= 1
        yield _joined(units[start:end]), units[end - 1].separator
        start = end


def _joined(units: Sequence[_Unit]) -> str:
    return "".join(u.text + u.separator for u in units[:-1]) + units[-1].text


def _tail(paragraph: str, pattern: re.Pattern[str], max_tokens: int, count: CountTokens) -> str:
    tail = ""
    for piece, separator in reversed(list(_split(paragraph, pattern))):
        longer = piece + separator + tail
        if count(longer) > max_tokens:
            break
        tail = longer
    return tail
