"""Repairs of broken text: chosen by the user, applied per document, recorded by the caller. Called by clean and the rules engine.

Only what is sure. Vocalisation, hamza, alef maqsura and ta marbuta stay as the author wrote them.
"""

import re
import unicodedata

from nativealign_workloads.text.fold import INVISIBLE
from nativealign_workloads.text.script import arabic_share


def _byte_of(encoding: str) -> dict[str, int]:
    """Character to byte as browsers read the code page: bytes that it leaves undefined become the control of the same number."""
    table = {}
    for value in range(256):
        try:
            table[bytes([value]).decode(encoding)] = value
        except UnicodeDecodeError:
            table[chr(value)] = value
    return table


_CODE_PAGES = (_byte_of("cp1252"), _byte_of("latin-1"), _byte_of("cp1256"))
_LEADS = re.compile("[ØÙظط]")  # how the lead bytes D8 and D9 of Arabic letters look in these code pages
MIN_REPAIRED_LETTERS = 3

# Letter shapes only: word ligatures such as U+FDFA, the ornate parentheses and the byte order mark are characters of their own
_SHAPES = re.compile("[\ufb50-\ufbb1\ufbd3-\ufd3d\ufd50-\ufdc7\ufe70-\ufefc]")

# A bidi mark inside a number orders its halves ("04.\u200f5" reads 5.04) and stays
_INVISIBLE = f"[{''.join(sorted(INVISIBLE))}]"
_STRAY = re.compile(f"{_INVISIBLE}+(?!\\d)|(?<![\\d.,/:-]){_INVISIBLE}+")


def repair_mojibake(text: str) -> tuple[str, bool]:
    """(text, changed): undoes UTF-8 that was read as cp1252, latin-1 or cp1256, line by line.

    A line changes only when all of it turns back into strictly valid UTF-8 and the result is Arabic that it was not before (for
    cp1256, whose misreading is itself Arabic letters: Arabic at all, which valid UTF-8 of a real Arabic line never is).
    """
    if not _LEADS.search(text):
        return text, False
    lines = [_repaired_line(line) for line in text.split("\n")]
    repaired = "\n".join(lines)
    return repaired, repaired != text


def repair_presentation_forms(text: str) -> tuple[str, bool]:
    """(text, changed): shaped letters of Arabic Presentation Forms-A and -B to base letters, in the order in which they stand."""
    repaired = _SHAPES.sub(lambda shape: _base(shape[0]), text)
    return repaired, repaired != text


def strip_invisible(text: str) -> str:
    """The text without zero-width characters, soft hyphens and bidi controls, except between the halves of a number."""
    return _STRAY.sub("", text)


def _repaired_line(line: str) -> str:
    if not _LEADS.search(line):
        return line
    for table in _CODE_PAGES:
        decoded = _decoded(line, table)
        if decoded is not None and _surely_better(line, decoded, cp1256=table is _CODE_PAGES[2]):
            return decoded
    return line


def _decoded(line: str, table: dict[str, int]) -> str | None:
    try:
        return bytes(table[char] for char in line).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return None


def _surely_better(before: str, after: str, cp1256: bool) -> bool:
    arabic = sum("\u0621" <= char <= "\u064a" for char in after)
    if arabic < MIN_REPAIRED_LETTERS:
        return False
    return arabic_share(after) >= 0.5 if cp1256 else arabic_share(after) > arabic_share(before)


def _base(shape: str) -> str:
    """NFKC without the space or tatweel that carries a mark which stands alone."""
    base = unicodedata.normalize("NFKC", shape)
    return base[1:] if len(base) > 1 and base[0] in " \u0640" else base
