"""The offline expert: a deterministic polish by rules, without a model.

Called by annotate and rewrite. It honours the code of conduct in small ways: advertisements and page furniture go, personal data is
masked where the code asks for it, spacing and Arabic punctuation are set right. Numbers, names and addresses stay. Idempotent.
"""

import re
from collections.abc import Sequence

from nativealign_workloads.conduct.model import Conduct
from nativealign_workloads.engines.protocol import Reply, Request
from nativealign_workloads.errors import StepError
from nativealign_workloads.text.boilerplate import strip_advertisements
from nativealign_workloads.text.fold import TATWEEL
from nativealign_workloads.text.personal import EMAIL, URL, find_emails, find_phones, replace_spans
from nativealign_workloads.text.repair import repair_presentation_forms, strip_invisible

MODEL = "rules-1"

_LETTER = "\u0621-\u063a\u0641-\u064a\u066e-\u06d3\u06fa-\u06ff"
_MARK = "\u064b-\u065f\u0670"

_INNER_TATWEEL = re.compile(f"(?<=[{_LETTER}{_MARK}]){TATWEEL}+(?=[{_LETTER}{_MARK}])")
_FINAL_TATWEEL = re.compile(f"(?<=[{_LETTER}{_MARK}]){TATWEEL}{{2,}}")

_BLANKS = re.compile(r"[^\S\n]+")
_LINE_EDGES = re.compile(r" ?\n ?")
_EMPTY_LINES = re.compile(r"\n{3,}")
_BEFORE_MARK = re.compile(r" +(?=[،؛؟!:.]+(?:\s|$))")
_REPEATED_MARK = re.compile(r"([!؟?،؛,;])\1+")
_MANY_DOTS = re.compile(r"\.{4,}")
_AFTER_COMMA = re.compile(f"(?<=[{_LETTER}{_MARK}])([،؛؟])(?=[{_LETTER}])")
_PROTECTED = re.compile(f"({URL.pattern}|{EMAIL.pattern})")
_ARABIC_FOR = {",": "،", ";": "؛", "?": "؟"}
_LATIN_MARK = re.compile(
    f'(?<=[{_LETTER}{_MARK}»”"])[,;?](?=[{_LETTER}»”"]|\\s|$)|(?<=[{_LETTER}{_MARK}]) [,;?](?=[{_LETTER}]|\\s|$)'
)
_HAS_ARABIC = re.compile(f"[{_LETTER}]")


class RulesEngine:
    """The rules under one code of conduct. Prompts are ignored; only `Request.text` is read."""

    def __init__(self, conduct: Conduct) -> None:
        self._conduct = conduct

    @property
    def name(self) -> str:
        return f"rules:{MODEL}"

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        return [Reply(r.id, polish(r.text, self._conduct), "Stop", 0, 0, MODEL) for r in requests]

    @property
    def wave(self) -> int:
        return 256

    def interrupt(self, error: StepError) -> None:
        """It never takes long."""

    def close(self) -> None:
        pass


def polish(text: str, conduct: Conduct) -> str:
    """The polished text; "" when all of it was advertisement or furniture."""
    text = _clean_characters(text)
    if conduct.remove_advertisements:
        text, _ = strip_advertisements(text)
    text = _masked(text, conduct)
    parts = _PROTECTED.split(text) if "://" in text or "www." in text or "@" in text else [text]
    text = "".join(part if number % 2 else _punctuate(part) for number, part in enumerate(parts))
    return _EMPTY_LINES.sub("\n\n", text).strip()


def _clean_characters(text: str) -> str:
    text, _ = repair_presentation_forms(text.replace("\r\n", "\n"))
    text = strip_invisible(text)
    if TATWEEL in text:
        # One tatweel at the end of a word has a use: the Hijri year (1446هـ), the article before a number (الـ15)
        text = _FINAL_TATWEEL.sub(TATWEEL, _INNER_TATWEEL.sub("", text))
    return _LINE_EDGES.sub("\n", _BLANKS.sub(" ", text))


def _masked(text: str, conduct: Conduct) -> str:
    if conduct.masks.email:
        text = replace_spans(text, find_emails(text), conduct.masks.email)
    if conduct.masks.phone_number:
        text = replace_spans(text, find_phones(text), conduct.masks.phone_number)
    return text


def _punctuate(text: str) -> str:
    text = _REPEATED_MARK.sub(r"\1", text)
    if _HAS_ARABIC.search(text):
        text = _LATIN_MARK.sub(lambda mark: _ARABIC_FOR[mark[0][-1]], text)
        text = _AFTER_COMMA.sub(r"\1 ", text)
    text = _BEFORE_MARK.sub("", text)
    return _MANY_DOTS.sub("...", _REPEATED_MARK.sub(r"\1", text))  # marks that only a space kept apart
