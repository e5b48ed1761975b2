"""Language by script and stop-words. Called by clean.

Thin on purpose: it tells Arabic, English and French running text apart from everything else, without a model and without
dialects. Arabic is judged by its letters alone, English and French by their stop-words; Latin text with too few is `other`.
"""

from nativealign_workloads.text.fold import fold, words
from nativealign_workloads.text.script import script_profile

_STOP_WORDS = {
    "en": "the of and to in is that for it as was with be by on are this from at or an have not which his you they",
    "fr": "le la les de des du et en un une est que qui dans pour pas sur au avec ce il elle par plus ne se sont aux",
}
_STOP_WORD_SETS = {language: frozenset(fold(listed).split()) for language, listed in _STOP_WORDS.items()}

# Letters of Persian, Urdu, Kurdish and their neighbours that Arabic words do not have
_NOT_ARABIC = frozenset("پچژگٹڈڑںےڤۆێڵ")

MIN_SCRIPT_SHARE = 0.6
MIN_STOP_WORD_SHARE = 0.08
MAX_FOREIGN_LETTER_SHARE = 0.02


def language(text: str) -> str:
    """`ar`, `en`, `fr` or `other`."""
    profile = script_profile(text)
    if profile.get("Arabic", 0.0) >= MIN_SCRIPT_SHARE:
        return "ar" if _foreign_letter_share(text) <= MAX_FOREIGN_LETTER_SHARE else "other"
    if profile.get("Latin", 0.0) >= MIN_SCRIPT_SHARE:
        return _latin_language(words(text))
    return "other"


def _foreign_letter_share(text: str) -> float:
    return sum(text.count(letter) for letter in _NOT_ARABIC) / max(1, len(text))


def _latin_language(tokens: list[str]) -> str:
    if not tokens:
        return "other"
    shares = {name: sum(t in _STOP_WORD_SETS[name] for t in tokens) / len(tokens) for name in ("en", "fr")}
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] >= MIN_STOP_WORD_SHARE else "other"
