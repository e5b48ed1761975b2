"""Corpus text for people: visible control characters, direction, word-level differences. Pure; the templates escape what leaves.

Corpus text is untrusted. Characters that reorder what follows them (UAX 9: embeddings, overrides, isolates) are written out as
`⟨U+202E⟩`, so that no sample can disguise itself or its neighbours; other control characters become their pictures.
"""

import re
import unicodedata
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from nativealign_workloads.align.shown import CUT

Direction = Literal["rtl", "ltr", "auto"]
Run = tuple[bool, str]
"""Whether the other side lacks it, and the text."""

_REORDERING = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_CONTROLS = [c for c in (*range(0x20), 0x7F) if chr(c) not in "\t\n"]
_VISIBLE = {c: f"⟨U+{c:04X}⟩" for c in _REORDERING} | {c: chr(0x2421 if c == 0x7F else 0x2400 + c) for c in _CONTROLS}
_TOKEN = re.compile(r"\n|\S+[^\S\n]*|[^\S\n]+")


@dataclass(frozen=True)
class Paragraph:
    """One line of a text."""

    direction: Direction
    runs: tuple[Run, ...]


def visible(value: object) -> object:
    """Strings without characters that reorder or hide text; anything else, and finished markup, as it is."""
    return value if not isinstance(value, str) or hasattr(value, "__html__") else value.translate(_VISIBLE)


def direction(text: str, around: Direction = "auto") -> Direction:
    """That of most strong characters. Inside a right-to-left text one letter is enough, so that no address turns a line."""
    kinds = [unicodedata.bidirectional(char) for char in text]
    right, left = sum(kind in ("R", "AL") for kind in kinds), kinds.count("L")
    if not right + left:
        return around
    return "rtl" if right >= left or (right and around == "rtl") else "ltr"


def compare(before: str, after: str) -> tuple[list[Paragraph], list[Paragraph]]:
    """Both texts as paragraphs, with the words marked that the other side lacks."""
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    cut = before.endswith(CUT) or after.endswith(CUT)
    matcher = SequenceMatcher(None, _keys(old, "old" * cut), _keys(new, "new" * cut), autojunk=False)
    old_marks, new_marks = [True] * len(old), [True] * len(new)
    blocks = matcher.get_matching_blocks()
    for first, second, size in blocks:
        old_marks[first : first + size] = new_marks[second : second + size] = [False] * size
    if cut:
        for marks in (old_marks, new_marks):
            _unmark_tail(marks)
    return _paragraphs(old, old_marks, direction(before)), _paragraphs(new, new_marks, direction(after))


def _unmark_tail(marks: list[bool]) -> None:
    """Nothing can be said about the words behind the last common one of texts that were cut."""
    for place in range(len(marks) - 1, -1, -1):
        if not marks[place]:
            return
        marks[place] = False


def plain(text: str) -> list[Paragraph]:
    """A text as paragraphs without marks."""
    return compare(text, text)[0]


def _keys(tokens: list[str], end: str) -> list[str]:
    """What is compared: words without the white space after them; the mark of a cut equals nothing of the other side."""
    keys = [token.rstrip(" \t") or token for token in tokens]
    return [*keys[:-1], f"{end}{keys[-1]}"] if end and keys else keys


def _paragraphs(tokens: list[str], marks: list[bool], around: Direction) -> list[Paragraph]:
    lines: list[list[Run]] = [[]]
    for token, mark in zip(tokens, marks, strict=True):
        if token == "\n":
            lines.append([])
        elif lines[-1] and lines[-1][-1][0] == mark:
            lines[-1][-1] = (mark, lines[-1][-1][1] + token)
        else:
            lines[-1].append((mark, token))
    texts = ["".join(text for _, text in line) for line in lines]
    return [Paragraph(direction(text, around), tuple(line)) for text, line in zip(texts, lines, strict=True) if text.strip()]
