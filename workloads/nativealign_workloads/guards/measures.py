"""What the guards measure. Called by `guards.check` and by assess for its statistics. Pure functions of one or two texts."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from functools import lru_cache

from nativealign_workloads.conduct.model import Conduct
from nativealign_workloads.text.boilerplate import strip_advertisements
from nativealign_workloads.text.fold import fold_digits, key, words
from nativealign_workloads.text.names import bare_forms, persons, places, word_forms
from nativealign_workloads.text.personal import EMAIL, URL, find_emails, find_phones, replace_spans
from nativealign_workloads.text.repair import strip_invisible
from nativealign_workloads.text.script import arabic_share, letters

NGRAM = 8
MIN_LETTERS = 20
"""Shorter texts have no meaningful length ratio and script share: one word more is no defect."""

MIN_CONTENT_WORDS = 3
"""Texts of fewer content words are not compared word by word."""
CONTENT_WORD_LENGTH = 4
"""Shorter Arabic words are mostly particles."""

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_LIST_MARKER = re.compile(r"^[ \t]*\d{1,2}[.)\-][ \t]", re.MULTILINE)
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ɏ][A-Za-zÀ-ɏ0-9]+")
_MARKS = (
    re.compile(r"</?(?:text|context)(?:-\d+)?>"),
    re.compile(r"^### ?(?:system|user|assistant)\b", re.MULTILINE),
    re.compile(r"\A\W*(?:rewritten|polished|revised|output)(?: \w+)?\W{0,2}:", re.IGNORECASE),
)
"""Of the prompt (conduct/prompt.py), and a heading of the answer."""
_SENTENCE_START = re.compile(r"(?:^|[.!?:…\n\"“«(])\W*$")


@lru_cache(maxsize=4)  # several guards ask for the words of the same two texts
def folded_words(text: str) -> tuple[str, ...]:
    """`fold.words`, as a tuple."""
    return tuple(words(text))


def without_declared(conduct: Conduct, text: str) -> str:
    """The text without what the code of conduct removes or masks; its placeholders go as well."""
    if conduct.remove_advertisements:
        text, _ = strip_advertisements(text)
    for placeholder, find in ((conduct.masks.email, find_emails), (conduct.masks.phone_number, find_phones)):
        if placeholder:
            text = replace_spans(text, find(text), " ").replace(placeholder, " ")
    return text


def numbers(text: str) -> list[str]:
    """Numbers in order of the text, comparable across spellings: ASCII digits, no thousands separators, "." for decimals.

    Numbers of a list ("1. ") do not count, nor those inside web addresses.
    """
    plain = _LIST_MARKER.sub("", fold_digits(strip_invisible(_without_addresses(text))).replace("٫", ".").replace("٬", ","))
    return [part for match in _NUMBER.finditer(plain) for part in _canonical(match[0])]


def latin_words(text: str) -> list[str]:
    """Words in Latin letters, casefolded, without those of addresses."""
    return [m[0].casefold() for m in _LATIN_WORD.finditer(_without_addresses(text))]


def latin_names(text: str) -> list[str]:
    """Words in Latin letters that are probably names, casefolded.

    In text that is partly Arabic all of them are; in Latin text those with several capitals, or with one that does not begin a
    sentence.
    """
    return latin_words(text) if arabic_share(text) >= 0.3 else _written_as_names(text)


def _written_as_names(text: str) -> list[str]:
    plain = _without_addresses(text)
    return [m[0].casefold() for m in _LATIN_WORD.finditer(plain) if _is_name(plain, m)]


def lost_names(before: str, after: str) -> float:
    """Share of the names before, by all three ways to know one, that the text after has not."""
    return _missing_names(before, after, latin_names(before))


def invented_names(before: str, after: str) -> float:
    """Share of the names after that the text before has not; of words in Latin letters those that are written as names."""
    return _missing_names(after, before, _written_as_names(after))


def names_found(text: str, other: str) -> list[bool]:
    """For each name of the text, whether the other text has it."""
    return _found_names(text, other, latin_names(text))


def _missing_names(text: str, other: str, latin: Sequence[str]) -> float:
    found = _found_names(text, other, latin)
    return found.count(False) / len(found) if found else 0.0


def _found_names(text: str, other: str, latin: Sequence[str]) -> list[bool]:
    there = places(other)
    found = [name in there for name in places(text)]
    forms = {form for word in folded_words(other) for form in word_forms(word)}
    found += [not forms.isdisjoint(word_forms(name)) for name in persons(text)]
    words = set(latin_words(other))
    return found + [name in words for name in latin]


def content_words(text: str) -> list[str]:
    """Distinct folded words of at least 4 characters, in order; [] where there are fewer than MIN_CONTENT_WORDS to tell."""
    found = list(dict.fromkeys(word for word in folded_words(text) if len(word) >= CONTENT_WORD_LENGTH))
    return found if len(found) >= MIN_CONTENT_WORDS else []


def lost_share(before: Sequence[str], after: Sequence[str]) -> float:
    """Share of the items before, counted with repetition, that are missing after."""
    return (Counter(before) - Counter(after)).total() / len(before) if before else 0.0


def new_share(items: Sequence[str], known: Collection[str]) -> float:
    """Share of the items that do not occur among the known ones; repetition is no novelty."""
    known = set(known)
    return sum(item not in known for item in items) / len(items) if items else 0.0


def missing_share(parts: Sequence[str], text: str) -> float:
    """Share of the parts that are not found in the text."""
    return sum(part not in text for part in parts) / len(parts) if parts else 0.0


def repeated_share(text: str) -> float:
    """Share of 8-grams of words that occurred before in the text; 0 under 8 words."""
    tokens = folded_words(text)
    grams = [tokens[i : i + NGRAM] for i in range(len(tokens) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def length_ratio(before: str, after: str) -> float:
    """Letters after over letters before (marks and tatweel do not count); 1 when both are too short to tell."""
    old, new = letters(before), letters(after)
    return 1.0 if max(old, new) < MIN_LETTERS else new / max(1, old)


def script_drift(before: str, after: str) -> float:
    """Absolute change of the share of Arabic letters, addresses left out; 0 when a side is too short to tell."""
    old, new = _without_addresses(before), _without_addresses(after)
    if min(letters(old), letters(new)) < MIN_LETTERS:
        return 0.0
    return abs(arabic_share(old) - arabic_share(new))


def new_phrases(phrases: Sequence[str], origin: str, rewritten: str) -> int:
    """How many of the phrases the rewriting has and the original has not, by folded words."""
    found, known = (f" {' '.join(folded_words(text))} " for text in (rewritten, origin))
    return sum(f" {phrase} " in found and f" {phrase} " not in known for phrase in map(_phrase_key, phrases))


def new_words(phrases: Sequence[str], origin: str, rewritten: str) -> int:
    """As new_phrases; a phrase is found too where a conjunction, a preposition or the article is written onto its first word."""
    found = _phrases_in(rewritten, tuple(phrases))
    return len(found - _phrases_in(origin, tuple(phrases))) if found else 0


def _phrases_in(text: str, phrases: tuple[str, ...]) -> set[tuple[str, ...]]:
    tokens, wanted = folded_words(text), _by_first_word(phrases)
    return {
        (form, *rest)
        for after, token in enumerate(tokens, 1)
        for form in bare_forms(token)
        for rest in wanted.get(form, ())
        if tokens[after : after + len(rest)] == rest
    }


@lru_cache(maxsize=8)
def _by_first_word(phrases: tuple[str, ...]) -> dict[str, list[tuple[str, ...]]]:
    """First folded word of a phrase -> the words after it, of each phrase that begins so."""
    found = defaultdict(list)
    for phrase in phrases:
        first, *rest = key(phrase).split()
        found[first].append(tuple(rest))
    return dict(found)


def new_marks(origin: str, rewritten: str) -> int:
    """How many kinds of marks that belong around a text the rewriting has and the original has not."""
    return sum(mark.search(rewritten) is not None and mark.search(origin) is None for mark in _MARKS)


_phrase_key = lru_cache(maxsize=1024)(key)


def _canonical(number: str) -> list[str]:
    if _THOUSANDS.fullmatch(number):
        return [number.replace(",", "")]
    return number.split(",")  # no thousands: a list without spaces


def _without_addresses(text: str) -> str:
    if "@" in text:
        text = EMAIL.sub(" ", text)
    return URL.sub(" ", text) if "://" in text or "www." in text else text


def _is_name(text: str, match: re.Match[str]) -> bool:
    word = match[0]
    if sum(char.isupper() for char in word) > 1:
        return True
    return word[0].isupper() and not _SENTENCE_START.search(text, max(0, match.start() - 20), match.start())
