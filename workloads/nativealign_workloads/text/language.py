"""Which language a text is in, by py3langid's model of byte n-grams. Called by clean and the guards."""

from collections.abc import Sequence
from functools import lru_cache

import py3langid.langid as langid

from nativealign_workloads.errors import UsageError
from nativealign_workloads.text.script import letters

HEAD = 1000
"""Characters that are looked at: more of them change no answer, and cost time."""
_MEMBERS = {"arz": "ar", "ary": "ar"}
"""Varieties that the model knows, by their macrolanguage (ISO 639-3)."""


def language(text: str) -> str:
    """ISO 639-1 code, or of three letters where it has none; `zxx` for a text without letters. All Arabic is `ar`, dialects too."""
    if not letters(text[:HEAD]):
        return "zxx"
    found = str(_identifier().classify(text[:HEAD])[0])
    return _MEMBERS.get(found, found)


def check_languages(codes: Sequence[str]) -> None:
    """Raises UsageError UnknownLanguage for a code that no text can have."""
    if unknown := [code for code in codes if code in _MEMBERS or code not in _identifier().labels]:
        raise UsageError("UnknownLanguage", f"{', '.join(unknown)} cannot be told from others", "ISO 639-1, e.g. ar")


@lru_cache(maxsize=1)
def _identifier() -> langid.LanguageIdentifier:
    """The model takes half a second and 20 MB."""
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
