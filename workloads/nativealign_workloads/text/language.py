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
_CODES = """
    ace af am an ar as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo fr fuv fy ga gcf gcr gd
    gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab kik kk km kn ko ku ky la lb lg lij ln lo lt ltg
    lv mg mk ml mn mr ms mt my ne nl nn no nso oc om or pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl sn so sq sr st sv sw
    ta te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue zh zu zxx
"""
CODES = frozenset(_CODES.split())
"""What `language` may answer. Written down, so that a look at a spec need not load the model."""


def language(text: str) -> str:
    """ISO 639-1 code, or of three letters where it has none; `zxx` for a text without letters. All Arabic is `ar`, dialects too."""
    if not letters(text[:HEAD]):
        return "zxx"
    found = str(identifier().classify(text[:HEAD])[0])
    return _MEMBERS.get(found, found)


def check_languages(codes: Sequence[str]) -> None:
    """Raises UsageError UnknownLanguage for a code that no text can have."""
    if unknown := [code for code in codes if code not in CODES]:
        raise UsageError("UnknownLanguage", f"{', '.join(unknown)} cannot be told from others", "ISO 639-1, e.g. ar")


@lru_cache(maxsize=1)
def identifier() -> langid.LanguageIdentifier:
    """The model: a second, and 20 MB."""
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
