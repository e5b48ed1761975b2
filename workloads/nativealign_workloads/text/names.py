"""Places, persons and dates in Arabic text, as far as lists and cues know them. Called by the guards.

Countries and months are CLDR's (through Babel), cities, given names and the Hijri calendar our own short lists; persons are given
names with a family name in the article, and the words beside a title or a patronymic. Everything is compared as folded words, with
the particles that Arabic writes onto a word taken off.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from babel import Locale

from nativealign_workloads.text.fold import words

Entry = list[tuple[tuple[str, ...], str]]
Entries = dict[str, Entry]
"""First word -> (the words after it, what the whole means), the longest first."""

KNOWN_WORDS = 1 << 16
"""Words of which it is remembered what they may be: a text has few that others have not."""

_COMMON_WORDS = {"مالي", "بنين", "سارك", "اب"}
"""Names that are more often something else."""

_OTHER_NAMES = {
    "SA": "السعودية|المملكة السعودية",
    "AE": "الإمارات|دولة الإمارات",
    "US": "أمريكا|أميركا|الولايات المتحدة الأمريكية|الولايات المتحدة الأميركية",
    "GB": "بريطانيا|إنجلترا",
    "PS": "فلسطين",
    "IL": "إسرائيل",
    "KR": "كوريا",
    "BA": "البوسنة",
    "CD": "الكونغو",
    "KM": "القمر المتحدة",
    "SY": "سورية",
}
_CITIES = """
مكة|مكة المكرمة=مكة|المدينة المنورة|الرياض|جدة|الدمام|الطائف|تبوك|أبها|حائل|نجران|جازان|دبي|أبوظبي|الشارقة|عجمان|الدوحة|المنامة
مسقط|صنعاء|عدن|تعز|بغداد|البصرة|الموصل|أربيل|النجف|كربلاء|دمشق|حلب|حمص|اللاذقية|بيروت|صيدا|القدس|غزة|نابلس|الخليل|رام الله|حيفا
يافا|القاهرة|الإسكندرية|الجيزة|أسوان|الأقصر|بورسعيد|السويس|طنطا|المنصورة|الخرطوم|أم درمان|طرابلس|بنغازي|صفاقس|القيروان|وهران
قسنطينة|عنابة|الرباط|الدار البيضاء|فاس|مراكش|طنجة|أغادير|مكناس|نواكشوط|مقديشو|لندن|باريس|برلين|روما|مدريد|لشبونة|بروكسل|أمستردام
فيينا|جنيف|زيورخ|موسكو|كييف|أنقرة|إسطنبول|طهران|كابول|إسلام آباد|كراتشي|نيودلهي|مومباي|بكين|شنغهاي|طوكيو|سيول|بانكوك|جاكرتا
سيدني|نيويورك|واشنطن|شيكاغو|لوس أنجلوس|تورنتو|أوتاوا|المكسيك|ساو باولو|بوينس آيرس|نيروبي|أديس أبابا|لاغوس|داكار|جوهانسبرغ|أثينا
وارسو|براغ|بودابست|ستوكهولم|أوسلو
"""
_HIJRI = (
    "ربيع الأول",
    "ربيع الآخر|ربيع الثاني",
    "جمادى الأولى",
    "جمادى الآخرة|جمادى الثانية",
    "رجب",
    "شعبان",
    "رمضان",
    "شوال",
    "ذو القعدة|ذي القعدة",
    "ذو الحجة|ذي الحجة",
)
_MONTH_LOCALES = ("ar", "ar_SY", "ar_DZ", "ar_MA", "ar_MR")
_TITLES = frozenset(
    words(
        "السيد السيدة الدكتور الدكتورة المهندس المهندسة الأستاذ الأستاذة الشيخ الإمام الأمير الأميرة الملك الملكة "
        "العقيد العميد اللواء"
    )
)
_GIVEN_NAMES = frozenset(
    words(
        "محمد أحمد محمود مصطفى خالد عثمان يوسف إبراهيم إسماعيل حسين حسان ياسين يعقوب عيسى موسى هارون سليمان داود زكريا يحيى أيوب "
        "إدريس عبدالله عبدالرحمن عبدالعزيز فهد تركي بندر سلطان طلال مشعل نايف ماجد وليد طارق زياد باسم هيثم أيمن تامر شريف "
        "هشام وائل "
        "رامي سامي فادي مروان غسان بشار أسامة حمزة بلال جعفر قاسم رشيد فيصل جاسم مبارك راشد سيف منصور ناصر فاطمة عائشة خديجة مريم "
        "زينب ليلى سلمى سارة هند منى رنا دينا لمى ريم هيفاء نادية سميرة سعاد رقية أسماء حنان نوال لطيفة شيماء ياسمين رانيا "
        "داليا غادة"
    )
)
_NOT_FAMILY_NAMES = frozenset(words("الذي التي الذين اليوم الآن إلى الا الأول الثاني الى"))
_PATRONYMIC = "بن"
_CUES = _TITLES | {_PATRONYMIC, *words("عبد أبو")}
MIN_NAME_LETTERS = 3


@lru_cache(maxsize=8)  # the guards ask about the same texts from both sides
def places(text: str) -> tuple[str, ...]:
    """Countries and cities of the text, each under one name, in order."""
    return _find(_places_from, words(text))


@lru_cache(maxsize=8)
def dates(text: str) -> tuple[str, ...]:
    """Months and weekdays of the text by number: month-1 is January in every Arab country's words, hijri-9 Ramadan."""
    return _find(_dates_from, words(text))


@lru_cache(maxsize=8)
def persons(text: str) -> tuple[str, ...]:
    """Folded words that are names of persons by what they are or stand beside: a given name, a title, a patronymic."""
    tokens = words(text)
    marked = {index + 1 for index, token in enumerate(tokens) if token in _CUES}
    marked |= {index - 1 for index, token in enumerate(tokens) if token == _PATRONYMIC}
    given = {index for index, token in enumerate(tokens) if _is_given_name(token)}
    marked |= given | {index + 1 for index in given if _may_be_family_name(tokens, index + 1)}
    found = (tokens[index] for index in sorted(marked) if 0 <= index < len(tokens))
    return tuple(token for token in found if len(token) >= MIN_NAME_LETTERS and token not in _CUES)


def _may_be_family_name(tokens: Sequence[str], index: int) -> bool:
    return index < len(tokens) and tokens[index].startswith("ال") and tokens[index] not in _NOT_FAMILY_NAMES


@lru_cache(maxsize=KNOWN_WORDS)
def word_forms(token: str) -> tuple[str, ...]:
    """A folded word as it is, and without the conjunction and the preposition that may be written onto it."""
    bare = token[1:] if token[0] in "وف" and len(token) > MIN_NAME_LETTERS else ""
    forms = [token, bare] if bare else [token]
    for form in tuple(forms):
        if form.startswith("لل"):
            forms.append(f"ال{form[2:]}")
        elif form[0] in "بلك" and len(form) > MIN_NAME_LETTERS:
            forms.append(form[1:])
    return tuple(forms)


@lru_cache(maxsize=KNOWN_WORDS)
def bare_forms(token: str) -> frozenset[str]:
    """`word_forms`, and each without its article."""
    forms = word_forms(token)
    return frozenset(forms) | {form[2:] for form in forms if form.startswith("ال") and len(form) > MIN_NAME_LETTERS + 1}


@lru_cache(maxsize=KNOWN_WORDS)
def _is_given_name(token: str) -> bool:
    return not _GIVEN_NAMES.isdisjoint(word_forms(token))


@lru_cache(maxsize=KNOWN_WORDS)
def _places_from(token: str) -> Entry:
    return _entries_from(_places(), token)


@lru_cache(maxsize=KNOWN_WORDS)
def _dates_from(token: str) -> Entry:
    return _entries_from(_dates(), token)


def _entries_from(entries: Entries, token: str) -> Entry:
    """All that may begin with a word."""
    return [entry for form in word_forms(token) for entry in entries.get(form, ())]


def _find(entries_from: Callable[[str], Entry], tokens: Sequence[str]) -> tuple[str, ...]:
    found, index = [], 0
    while index < len(tokens):
        length = 0
        for rest, name in entries_from(tokens[index]):
            if tuple(tokens[index + 1 : index + 1 + len(rest)]) == rest:
                found.append(name)
                length = len(rest)
                break
        index += 1 + length
    return tuple(found)


def _entries(named: Iterable[tuple[str, str]]) -> Entries:
    """From (words, what they mean)."""
    entries: Entries = {}
    for text, name in named:
        first, *rest = words(text)
        if rest or first not in _COMMON_WORDS:
            entries.setdefault(first, []).append((tuple(rest), name))
    return {first: sorted(others, key=lambda item: -len(item[0])) for first, others in entries.items()}


@lru_cache(maxsize=1)
def _places() -> Entries:
    territories = {code: name for code, name in Locale.parse("ar").territories.items() if len(code) == 2}
    named = [(name, code) for code, name in territories.items()]
    named += [(name, code) for code, names in _OTHER_NAMES.items() for name in names.split("|")]
    cities = [item.partition("=") for line in _CITIES.split("\n") for item in line.split("|") if item]
    return _entries(named + [(name, same or name) for name, _, same in cities])


@lru_cache(maxsize=1)
def _dates() -> Entries:
    months = [
        (name, f"month-{n}") for locale in _MONTH_LOCALES for n, name in Locale.parse(locale).months["format"]["wide"].items()
    ]
    days = [(name, f"day-{n}") for n, name in Locale.parse("ar").days["format"]["wide"].items()]
    hijri = [(name, f"hijri-{n}") for n, names in enumerate(_HIJRI, 3) for name in names.split("|")]
    return _entries(months + days + hijri)
