"""Phone numbers and e-mail addresses in running text. Called by the rules engine, the guards and advertisement detection.

Precision comes first: a date, a price or a year must never be taken for a phone number.
"""

import re

from nativealign_workloads.text.fold import fold_digits

EMAIL = re.compile(r"(?<![A-Za-z0-9_.+-])[A-Za-z0-9_.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9-])")
"""Arabic letters often follow at once, without a space."""
URL = re.compile(r"(?:https?://|www\.)[^\s<>\"'()\[\]{}«»،؛]+")

_MARKS = r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]*"
_BETWEEN = rf"{_MARKS}(?:[ ().\-\u00a0\u202f\u2010-\u2013]{_MARKS}){{0,2}}"
"""Spaces, dashes and brackets within a number, and marks of its direction."""
_CANDIDATE = re.compile(
    rf"(?<![A-Za-z0-9_.+])(?:\+|00)?(?:\((?=\d{{1,4}}\)))?\d(?:{_BETWEEN}\d){{6,14}}(?:/0\d{{1,3}}|\+)?"
    r"(?![A-Za-z0-9_])(?!/(?!\d{7}))(?![.,]\d{1,6}(?!\d))"
)
"""The code of a place may stand behind the number, as in 4976500/011; text from right to left may put a + there. Arabic letters may
be written onto it, and another number may follow a slash or a comma."""
_AFTER_ANOTHER = re.compile(r"\d{7}[,/]")
LAST_PLUS_DIGITS = 11
"""Of an international number whose + is last; shorter ones are quantities, as in 1000000+."""
_DATE = re.compile(r"\d{1,4}([-. ])\d{1,2}\1\d{1,4}")
_INTRODUCED = re.compile(
    r"(?:هاتف|الهاتف|جوال|الجوال|موبايل|تليفون|تلفون|فاكس|واتس ?اب|واتساب|للتواصل|للاتصال|اتصل|(?<!\w)ت(?=\s?[:/])|"
    r"phone|tel|mobile|whatsapp|fax|call)[^\w\n]{0,4}(?:\w{1,8}[^\w\n]{1,4}){0,2}$",
    re.IGNORECASE,
)


def find_phones(text: str) -> list[tuple[int, int]]:
    """Spans (start, end) of phone numbers, written in any row of digits.

    Taken: international numbers (+ or 00), national numbers with a leading 0, Gulf 9200/800 service numbers, and any number of at
    least 7 digits that a word such as "هاتف" introduces.
    """
    ascii_digits = fold_digits(text)
    return [m.span() for m in _CANDIDATE.finditer(ascii_digits) if _is_phone(ascii_digits, m)]


def _is_phone(text: str, match: re.Match[str]) -> bool:
    number, start = match[0], match.start()
    if _DATE.fullmatch(number) or (text[start - 1 : start] in (",", "/") and not _AFTER_ANOTHER.match(text, max(0, start - 8))):
        return False
    digits = re.sub(r"\D", "", number)
    if number.startswith("+") or digits.startswith("00"):
        return 9 <= len(digits) <= 15
    if number.endswith("+") and len(digits) >= LAST_PLUS_DIGITS:
        return True
    if digits.startswith("0") and 9 <= len(digits) <= 11:
        return True
    if re.fullmatch(r"9200\d{5}|800\d{7}", digits):
        return True
    return _INTRODUCED.search(text, max(0, match.start() - 40), match.start()) is not None


def find_emails(text: str) -> list[tuple[int, int]]:
    """Spans (start, end) of e-mail addresses."""
    return [m.span() for m in EMAIL.finditer(text)] if "@" in text else []


def find_urls(text: str) -> list[str]:
    """Web addresses in order, without the punctuation of the sentence around them."""
    if "://" not in text and "www." not in text:
        return []
    return [m[0].rstrip(".,;:!?؟…*_") for m in URL.finditer(text)]


def replace_spans(text: str, spans: list[tuple[int, int]], replacement: str) -> str:
    """The text with every span (ascending, disjoint) replaced."""
    parts, at = [], 0
    for start, end in spans:
        parts += [text[at:start], replacement]
        at = end
    return "".join([*parts, text[at:]])
