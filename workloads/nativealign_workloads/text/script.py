"""Which scripts a text is written in. Called by clean, the guards, language() and repair."""

import unicodedata
from collections import Counter
from functools import lru_cache

NAMES = {
    "Arab": "Arabic", "Armn": "Armenian", "Beng": "Bengali", "Cyrl": "Cyrillic", "Deva": "Devanagari", "Ethi": "Ethiopic",
    "Geor": "Georgian", "Grek": "Greek", "Gujr": "Gujarati", "Guru": "Gurmukhi", "Hang": "Hangul", "Hani": "Cjk", "Hebr": "Hebrew",
    "Hira": "Hiragana", "Kana": "Katakana", "Khmr": "Khmer", "Knda": "Kannada", "Laoo": "Lao", "Latn": "Latin", "Mlym": "Malayalam",
    "Mymr": "Myanmar", "Nkoo": "Nko", "Sinh": "Sinhala", "Syrc": "Syriac", "Taml": "Tamil", "Telu": "Telugu", "Tfng": "Tifinagh",
    "Thaa": "Thaana", "Thai": "Thai", "Tibt": "Tibetan",
}  # fmt: skip
"""First word of the Unicode names of a script's letters, by its code (ISO 15924)."""


def share_of(text: str, code: str) -> float:
    """Letters of a script (ISO 15924) over all letters, 0..1; 0 for a text without letters. Marks, tatweel, digits do not count."""
    return script_profile(text).get(NAMES[code], 0.0)


def arabic_share(text: str) -> float:
    """As `share_of`, of Arabic letters."""
    return share_of(text, "Arab")


def script_profile(text: str) -> dict[str, float]:
    """Share of each script among the letters, largest first; empty for a text without letters."""
    counts = _letter_counts(text)
    total = sum(counts.values())
    return {script: n / total for script, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def letters(text: str) -> int:
    """Number of letters of any script, without marks and tatweel."""
    return sum(_letter_counts(text).values())


@lru_cache(maxsize=4)  # the guards ask several questions about the same two texts
def _letter_counts(text: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for char, count in Counter(text).items():
        if script := _script(char):
            counts[script] = counts.get(script, 0) + count
    return counts


@lru_cache(maxsize=65536)
def _script(char: str) -> str:
    """Script of a letter, the first word of its Unicode name; "" for everything that is no letter."""
    if not char.isalpha() or char == "\u0640":
        return ""
    return unicodedata.name(char, "Unknown").split(" ", 1)[0].split("-", 1)[0].capitalize()
