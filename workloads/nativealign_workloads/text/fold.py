"""Arabic-aware folding of text into keys.

Called by dedup, decontamination, boilerplate and the guards. Text goes in, a key comes out: two spellings of one text
that a reader would not tell apart get one key. Training text is never folded.
"""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Units = NDArray[np.uint16]
"""UTF-16 units of a text, shape (units,)."""

_ALEF, _YA, _HA, _KAF, _WAW = "\u0627", "\u064a", "\u0647", "\u0643", "\u0648"

ARABIC_MARKS = frozenset(
    chr(code)
    for first, last in (
        (0x0610, 0x061A),  # honorifics and small high signs
        (0x064B, 0x065F),  # tashkeel, madda and hamza as marks
        (0x0670, 0x0670),  # superscript alef
        (0x06D6, 0x06DC),  # Quranic signs
        (0x06DF, 0x06E4),
        (0x06E7, 0x06E8),
        (0x06EA, 0x06ED),
        (0x0898, 0x089F),
        (0x08CA, 0x08E1),
        (0x08E3, 0x08FF),
    )
    for code in range(first, last + 1)
)
"""Combining marks of the Arabic script, vocalisation and Quranic annotation alike."""

TATWEEL = "\u0640"

INVISIBLE = frozenset(
    "\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)
"""Soft hyphen, zero-width characters, bidi controls and the byte order mark."""

_LETTERS = {
    _ALEF: "آأإٱٲٳٵ",
    _YA: "ىیئېۍێ",
    _HA: "ةۃۀەہھۂ",
    _KAF: "کڪڬ",
    _WAW: "ؤۆۇۈۋ",
}

DIGITS = {
    chr(first + value): str(value)
    for first in (0x0660, 0x06F0)  # Arabic-Indic, Extended Arabic-Indic
    for value in range(10)
}
"""Both rows of Arabic digits to ASCII, one character to one."""

_TABLE = (
    dict.fromkeys([*ARABIC_MARKS, *INVISIBLE, TATWEEL], "")
    | {seat: letter for letter, seats in _LETTERS.items() for seat in seats}
    | DIGITS
)

# NFKC turns the isolated form of a mark into SPACE + mark, which would cut the word in two
_ISOLATED_MARK_FORMS = re.compile("[\ufe70-\ufe72\ufe74\ufe76-\ufe7f\ufc5e-\ufc63\ufcf2-\ufcf4]")

_NOT_WORD = re.compile(r"\W")
_ARABIC_DIGIT = re.compile("[\u0660-\u0669\u06f0-\u06f9]")
_DIGIT_TABLE = str.maketrans(DIGITS)


def fold(text: str) -> str:
    """Key of a text: NFKC, no marks, tatweel or invisible characters, one letter per family, ASCII digits, casefolded.

    Families: alef with and without hamza; ya, alef maqsura and Farsi ya; ta marbuta and ha; the kafs; a hamza goes to its seat.
    Idempotent. Never use the result as text.
    """
    if text.isascii():
        return text.lower()
    return _text(fold_units(text))


def fold_units(text: str) -> Units:
    """The folded text as UTF-16 units."""
    units = _utf16(text)
    if not _SPECIAL[units].any():
        return _kept(units)
    folded = _fold_once(text)
    # letters that compose once what stood between them is gone; some that casefold takes apart compose again and again
    while not unicodedata.is_normalized("NFKC", folded) and (again := _fold_once(folded)) != folded:
        folded = again
    return _utf16(folded)


def fold_digits(text: str) -> str:
    """The text with both rows of Arabic digits in ASCII; offsets stay the same."""
    return text.translate(_DIGIT_TABLE) if _ARABIC_DIGIT.search(text) else text


def words(text: str) -> list[str]:
    r"""The words (`\w+`) of the folded text, in order."""
    return _text(_word_units(fold_units(text))).split()


def word_units(texts: Sequence[str]) -> tuple[Units, NDArray[np.int64]]:
    r"""The folded words of many texts as UTF-16 units, and the place of the space that ends each text.

    A space stands at the beginning, after each text, and for everything in a text that is no part of a word (`\w`).
    """
    raw = [_utf16(text) for text in texts]
    units = _FOLDED_WORDS[np.concatenate([_SPACES, *(part for text in raw for part in (text, _SPACES))])]
    ends = np.cumsum([len(text) + 1 for text in raw], dtype=np.int64)
    unsure = np.unique(np.searchsorted(ends, np.flatnonzero(units == _UNSURE)))
    kept = units != _DELETED
    return _replaced(units[kept], np.cumsum(kept)[ends] - 1, {n: _word_units(fold_units(texts[n])) for n in unsure.tolist()})


def _replaced(units: Units, ends: NDArray[np.int64], others: dict[int, Units]) -> tuple[Units, NDArray[np.int64]]:
    """Puts other units in the place of some texts'; arguments and result as those of word_units."""
    if not others:
        return units, ends
    bounds = np.concatenate([[0], ends])
    parts, at = [], 0
    for number, other in others.items():
        parts += [units[at : bounds[number] + 1], other]
        at = bounds[number + 1]
    lengths = np.diff(bounds)
    lengths[list(others)] = [len(other) + 1 for other in others.values()]
    return np.concatenate([*parts, units[at:]]), np.cumsum(lengths)


def _word_units(folded: Units) -> Units:
    if ((folded >= _SURROGATE[0]) & (folded < _SURROGATE[1])).any():
        folded = _utf16(_NOT_WORD.sub(" ", _text(folded)))
    return np.where(_IN_WORD[folded], folded, _SPACE)


def key(text: str) -> str:
    """The folded words joined by one space: equal for texts that differ in spelling, spacing and punctuation only."""
    return " ".join(words(text))


def _fold_once(text: str) -> str:
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", _ISOLATED_MARK_FORMS.sub("", text))
    units = _utf16(text)
    if _NEEDS_CASEFOLD[units].any():
        units = _utf16(text.casefold())
    return _text(_kept(units))


def _kept(units: Units) -> Units:
    folded = _FOLDED[units]
    kept: Units = folded[folded != _DELETED]
    return kept


def _utf16(text: str) -> Units:
    return np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype="<u2")


def _text(units: Units) -> str:
    return units.tobytes().decode("utf-16-le", "surrogatepass")


def _composing() -> set[str]:
    """Characters that may become one with the character before them (UAX #15: second in a canonical composition)."""
    decompositions = (unicodedata.decomposition(chr(code)).split() for code in range(0x10000))
    seconds = {chr(int(parts[1], 16)) for parts in decompositions if len(parts) == 2 and parts[0][0] != "<"}
    return seconds | set(map(chr, [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]))  # vowels and finals of Hangul


def _lookup_tables() -> tuple[Units, NDArray[np.bool_], NDArray[np.bool_]]:
    """By UTF-16 unit: (the folded unit or _DELETED, whether str.casefold() has to do it, whether it may need more than this table).

    Several times faster than translate(). More is needed for what becomes several characters or one with another.
    """
    folded = np.arange(0x10000, dtype="<u2")
    needs_casefold = np.zeros(0x10000, dtype=bool)
    special = np.zeros(0x10000, dtype=bool)
    composing = _composing()
    for code in range(0x10000):
        char = chr(code)
        base = unicodedata.normalize("NFKC", char)
        lowered, settled = _folded_character(char), _folded_character(base) if len(base) == 1 else base
        moves = unicodedata.combining(char) and char not in ARABIC_MARKS
        needs_casefold[code] = len(lowered) > 1 or _SURROGATE[0] <= code < _SURROGATE[1]
        several = len(settled) > 1 or settled > "\uffff"
        special[code] = needs_casefold[code] or several or moves or char in composing or base in composing
        if not special[code]:
            folded[code] = ord(settled) if settled else _DELETED
        elif not needs_casefold[code]:
            folded[code] = ord(lowered) if lowered else _DELETED
    return folded, needs_casefold, special


def _folded_character(char: str) -> str:
    return _TABLE.get(char, char.casefold())


_SPACE = np.uint16(ord(" "))
_SURROGATE = (0xD800, 0xE000)

_IN_WORD = np.array([char == "_" or char.isalnum() for char in map(chr, range(0x10000))])
_IN_WORD[_SURROGATE[0] : _SURROGATE[1]] = True  # word_units has looked
r"""By UTF-16 unit: whether `\w` is this character. Several times faster than the expression."""

_DELETED = 0xFFFF  # a noncharacter: its own fold is nothing
_UNSURE = 0xFFFE  # another one
_FOLDED, _NEEDS_CASEFOLD, _SPECIAL = _lookup_tables()
_SPACES = np.array([_SPACE])
_FOLDED_WORDS = np.where((_FOLDED == _DELETED) | _IN_WORD[_FOLDED], _FOLDED, _SPACE)
_FOLDED_WORDS[_SPECIAL] = _UNSURE
"""By UTF-16 unit: the folded unit, a space for what is no part of a word, _DELETED, or _UNSURE."""
