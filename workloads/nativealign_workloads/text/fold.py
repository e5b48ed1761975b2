"""Arabic-aware folding of text into keys.

Called by dedup, decontamination, boilerplate and the guards. Text goes in, a key comes out: two spellings of one text
that a reader would not tell apart get one key. Training text is never folded.
"""

import re
import unicodedata

import numpy as np

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

_WORD = re.compile(r"\w+")
_ARABIC_DIGIT = re.compile("[\u0660-\u0669\u06f0-\u06f9]")
_DIGIT_TABLE = str.maketrans(DIGITS)


def fold(text: str) -> str:
    """Key of a text: NFKC, no marks, tatweel or invisible characters, one letter per family, ASCII digits, casefolded.

    Families: alef with and without hamza; ya, alef maqsura and Farsi ya; ta marbuta and ha; the kafs; a hamza goes to its seat.
    Idempotent. Never use the result as text.
    """
    if text.isascii():
        return text.lower()
    folded = _fold_once(text)
    while (again := _fold_once(folded)) != folded:  # letters that compose once what stood between them is gone
        folded = again
    return folded


def fold_digits(text: str) -> str:
    """The text with both rows of Arabic digits in ASCII; offsets stay the same."""
    return text.translate(_DIGIT_TABLE) if _ARABIC_DIGIT.search(text) else text


def words(text: str) -> list[str]:
    r"""The words (`\w+`) of the folded text, in order."""
    return _WORD.findall(fold(text))


def key(text: str) -> str:
    """The folded words joined by one space: equal for texts that differ in spelling, spacing and punctuation only."""
    return " ".join(words(text))


def _fold_once(text: str) -> str:
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", _ISOLATED_MARK_FORMS.sub("", text))
    units = _utf16(text)
    if _NEEDS_CASEFOLD[units].any():
        units = _utf16(text.casefold())
    folded = _FOLDED[units]
    kept: bytes = folded[folded != _DELETED].tobytes()
    return kept.decode("utf-16-le", "surrogatepass")


def _utf16(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype="<u2")


def _lookup_tables() -> tuple[np.ndarray, np.ndarray]:
    """By UTF-16 unit: (the folded unit or _DELETED, whether str.casefold() has to do it). Several times faster than translate()."""
    folded = np.arange(0x10000, dtype="<u2")
    needs_casefold = np.zeros(0x10000, dtype=bool)
    for code in range(0x10000):
        char = chr(code)
        lowered = _TABLE.get(char, char.casefold())
        if len(lowered) > 1 or 0xD800 <= code < 0xE000:  # several characters, or outside the basic plane
            needs_casefold[code] = True
        else:
            folded[code] = ord(lowered) if lowered else _DELETED
    return folded, needs_casefold


_DELETED = 0xFFFF  # a noncharacter: its own fold is nothing
_FOLDED, _NEEDS_CASEFOLD = _lookup_tables()
