"""Numbers that stand for a person: phone numbers of given countries, IBANs, national identity numbers. Called by clean.

Precision first: a number is taken for one where its structure or its check digit proves it, or where words before it say so. All
functions read every row of digits, return spans (start, end), ascending and disjoint, and leave the text alone.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from nativealign_workloads.errors import UsageError
from nativealign_workloads.text.fold import fold_digits
from nativealign_workloads.text.personal import find_phones

Spans = list[tuple[int, int]]

SAID_BEFORE = 60
"""Characters before a number in which a word may say what it is."""

_IBAN = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2})\d{2}(?: ?[A-Z0-9]){11,30}")
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HN": 28, "HR": 21, "HU": 28,
    "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28,
    "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24,
    "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26,
    "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip
"""Characters of an account number by country, of the registry of ISO 13616."""

_ASCII_WORD = re.compile(r"[A-Za-z0-9]")
_IDENTITY = re.compile(
    r"(?:[اأإ]?ل?رقم|[اأإ]?لبطاق[ةه]|بطاق[ةه])\s+(?:[اأإ]?ل)?(?:قومي|وطني|مدني|شخصي[ةه]?|هوي[ةه]|[إا]قام[ةه]|تعريف|بطاق[ةه])|"
    r"(?:[اأإ]?ل)?هوي[ةه]|[اأإ]لسجل المدني|(?:[اأإ]?ل)?[إا]قام[ةه] رقم|"
    r"\b(?:national id|identity (?:card|number)|civil id|emirates id|iqama|qid|cnie?|cin|carte (?:nationale )?d.identit[ée])\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Identity:
    """How a country's identity numbers look. `proven`: whether a number shows by itself that it is one."""

    pattern: re.Pattern[str]
    proven: Callable[[str], bool] | None = None
    """Of its digits; None where only words can tell."""
    also_said: bool = False
    """Whether words must say it too, because too many other numbers pass."""


def check_countries(countries: Sequence[str]) -> None:
    """Raises UsageError UnknownCountry for one without a numbering plan."""
    import phonenumbers

    if unknown := [country for country in countries if country not in phonenumbers.SUPPORTED_REGIONS]:
        raise UsageError("UnknownCountry", f"no numbering plan for {', '.join(unknown)}", "ISO 3166-1 alpha-2, e.g. SA")


def find_valid_phones(text: str, countries: Sequence[str]) -> Spans:
    """Phone numbers that exist: international ones, and national ones of the countries (ISO 3166-1 alpha-2).

    By the numbering plans of libphonenumber.
    """
    import phonenumbers

    def exists(number: str) -> bool:
        for country in countries or ["ZZ"]:
            try:
                parsed = phonenumbers.parse(_dialled(number), country)
            except phonenumbers.NumberParseException:
                continue
            if phonenumbers.is_valid_number(parsed) or (
                phonenumbers.is_possible_number(parsed) and not number.startswith(("0", "+"))
            ):
                return True
        return False

    digits = fold_digits(text)
    return [(start, end) for start, end in find_phones(text) if exists(digits[start:end])]


def _dialled(number: str) -> str:
    """Digits alone; the code of a place goes first, and so does a + that text from right to left has put last; 00 is +."""
    local, _, place = re.sub(r"[^\d+/]", "", number).partition("/")
    if local.endswith("+"):
        local = f"+{local[:-1]}"
    return re.sub(r"^00", "+", place + local)


def find_ibans(text: str) -> Spans:
    """International bank account numbers whose check digits hold (ISO 13616, ISO 7064 mod 97-10)."""
    digits, found, at = fold_digits(text), Spans(), 0
    while match := _IBAN.search(digits, at):
        number = _first_characters(match[0], _IBAN_LENGTHS.get(match[1], 0))
        at = match.start() + max(1, len(number))
        if number and not _ASCII_WORD.match(digits, at) and _has_iban_check(number.replace(" ", "")):
            found.append((match.start(), at))
    return found


def _first_characters(text: str, count: int) -> str:
    """The text up to its so many characters that are no spaces; "" where it has fewer, or none are wanted."""
    ends = [place for place, char in enumerate(text, 1) if char != " "]
    return text[: ends[count - 1]] if 0 < count <= len(ends) else ""


def _has_iban_check(number: str) -> bool:
    return int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97 == 1


def find_national_ids(text: str, countries: Sequence[str]) -> Spans:
    """Identity numbers of the countries; those without a rule here have none."""
    digits = fold_digits(text)
    found: set[tuple[int, int]] = set()
    for rule in (_IDENTITIES[country] for country in countries if country in _IDENTITIES):
        found.update(match.span() for match in rule.pattern.finditer(digits) if _is_identity(digits, match, rule))
    return disjoint(sorted(found))


def disjoint(spans: Spans) -> Spans:
    """Spans, ascending by start, without those that overlap the one before."""
    kept: Spans = []
    for span in spans:
        if not kept or span[0] >= kept[-1][1]:
            kept.append(span)
    return kept


def _is_identity(text: str, match: re.Match[str], rule: _Identity) -> bool:
    proven = rule.proven is not None and rule.proven(re.sub(r"\D", "", match[0]))
    if proven and not rule.also_said:
        return True
    return (proven or rule.proven is None) and _IDENTITY.search(
        text, max(0, match.start() - SAID_BEFORE), match.start()
    ) is not None


def _luhn(digits: str) -> bool:
    doubled = (int(d) * (2 if place % 2 else 1) for place, d in enumerate(reversed(digits)))
    return sum(value // 10 + value % 10 for value in doubled) % 10 == 0


def _born(digits: str) -> bool:
    """Century (2: 1900s, 3: 2000s), year, month, day."""
    try:
        return date(1700 + 100 * int(digits[0]) + int(digits[1:3]), int(digits[3:5]), int(digits[5:7])) <= date.today()
    except ValueError:
        return False


def _egyptian(digits: str) -> bool:
    return _born(digits) and (1 <= int(digits[7:9]) <= 35 or digits[7:9] == "88")  # the governorate of birth, 88 abroad


def _kuwaiti(digits: str) -> bool:
    weighted = sum(int(d) * weight for d, weight in zip(digits, (2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2), strict=False))
    return _born(digits) and 11 - weighted % 11 == int(digits[11])


def _number(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9_.,/+-]){pattern}(?![A-Za-z0-9_/]|[.,]\d)")


_IDENTITIES = {
    "EG": _Identity(_number(r"[23]\d{13}"), _egyptian),
    "SA": _Identity(_number(r"[12]\d{9}"), _luhn, also_said=True),
    "AE": _Identity(_number(r"784[- ]?\d{4}[- ]?\d{7}[- ]?\d"), _luhn),
    "KW": _Identity(_number(r"[23]\d{11}"), _kuwaiti),
    "BH": _Identity(_number(r"\d{9}")),
    "DZ": _Identity(_number(r"\d{18}")),
    "IQ": _Identity(_number(r"\d{12}")),
    "JO": _Identity(_number(r"\d{10}")),
    "LY": _Identity(_number(r"[12]\d{11}")),
    "MA": _Identity(_number(r"[A-Za-z]{1,2} ?\d{5,6}")),
    "OM": _Identity(_number(r"\d{7,9}")),
    "PS": _Identity(_number(r"\d{9}")),
    "QA": _Identity(_number(r"[23]\d{10}")),
    "SD": _Identity(_number(r"\d{11}")),
    "SY": _Identity(_number(r"\d{11}")),
    "TN": _Identity(_number(r"\d{8}")),
    "YE": _Identity(_number(r"\d{11}")),
}
"""By country. Egypt: century, date of birth, governorate. Emirates: Luhn. Kuwait: date of birth, weighted check digit. Saudi
Arabia: Luhn, of residents too. The others have no check digit that is published, or none at all."""
