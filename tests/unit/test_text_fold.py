"""Keys of texts: every way of spelling the same Arabic gives the same key, and nothing else does."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nativealign_workloads.text.fold import fold, fold_digits, key, words

TEXT = (
    "أعلنت الهيئة العامة للإحصاء في الرياض أن عدد سكان المدينة بلغ 7821000 نسمة عام 1443، وأن نسبة النمو على مدى السنوات الأخيرة "
    "كانت كبيرة. وقال المتحدث إن النتائج تؤكد أهمية التخطيط لبناء مدارس ومستشفيات جديدة في كل حي، ولا سيما الأحياء التي يسكنها "
    "الشباب. آمل أن تكون هذه الأرقام إشارة إلى مستقبل أفضل، على حد تعبيره، لمن يهتم بالبيئة والمياه."
)
ARABIC = "".join(map(chr, range(0x0600, 0x0700))) + "\u200c\u200d\u200f\ufeff ab\n.،0"
SHAPED = {
    "ا": "\ufe8e",
    "ل": "\ufee0",
    "م": "\ufee4",
    "ي": "\ufef4",
    "ن": "\ufee7",
    "ه": "\ufeea",
    "ت": "\ufe97",
    "ة": "\ufe94",
    "أ": "\ufe84",
}


def tashkeel(text: str, rng: random.Random) -> str:
    return "".join(c + rng.choice("ًٌٍَُِّْ") if c.isalpha() and rng.random() < 0.3 else c for c in text)


def tatweel(text: str, rng: random.Random) -> str:
    return " ".join(w[:2] + "ـــ" + w[2:] if len(w) > 3 and rng.random() < 0.2 else w for w in text.split(" "))


def final_ya(text: str) -> str:
    return " ".join(w[:-1] + "ى" if w.endswith("ي") else w for w in text.split(" "))


def before_words(mark: str, text: str, rng: random.Random) -> str:
    return " ".join(mark + w if rng.random() < 0.3 else w for w in text.split(" "))


CHANGES = {
    "random tashkeel": lambda t, r: tashkeel(t, r),
    "tatweel": lambda t, r: tatweel(t, r),
    "hamza-alef to alef": lambda t, r: t.translate(str.maketrans("أإآ", "ااا")),
    "final ya to alef maqsura": lambda t, r: final_ya(t),
    "ta marbuta to ha": lambda t, r: t.replace("ة", "ه"),
    "presentation forms": lambda t, r: t.translate(str.maketrans(SHAPED)),
    "right-to-left marks": lambda t, r: before_words("\u200f", t, r),
    "Arabic-Indic digits": lambda t, r: t.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")),
    "extended digits": lambda t, r: t.translate(str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")),
    "Farsi ya and kaf": lambda t, r: t.translate(str.maketrans("يك", "یک")),
    "zero-width non-joiner": lambda t, r: before_words("\u200c", t, r),
}


def jaccard(a: str, b: str, n: int = 5) -> float:
    first, second = ({tuple(w[i : i + n]) for i in range(len(w) - n + 1)} for w in (words(a), words(b)))
    return len(first & second) / len(first | second)


@pytest.mark.parametrize("change", [*CHANGES, "all together"])
def test_a_surface_change_leaves_the_shingles_as_they_were(change: str) -> None:
    rng = random.Random(7)
    changed = TEXT
    for name, apply in CHANGES.items():
        if change in (name, "all together"):
            changed = apply(changed, rng)
    assert changed != TEXT
    assert jaccard(TEXT, changed) == 1.0


def test_different_words_keep_different_keys() -> None:
    assert key("علم") != key("عمل")
    assert key("café") != key("cafe")
    assert key("سماء") != key("سما")


def test_a_presentation_form_of_a_mark_does_not_cut_its_word() -> None:
    assert words("ك\ufe76ت\ufe76ب") == ["كتب"]


def test_case_and_full_width_letters_are_folded() -> None:
    assert key("ＡＢＣ Straße") == key("abc STRASSE")


def test_digit_folding_keeps_offsets() -> None:
    assert fold_digits("عام ١٤٤٣ و۲۰۲۲") == "عام 1443 و2022"


@given(st.one_of(st.text(), st.text(alphabet=ARABIC)))
def test_folding_twice_changes_nothing_more(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text(alphabet=ARABIC, max_size=60))
def test_no_mark_survives_anywhere(text: str) -> None:
    assert not set(fold(text)) & set("ًٌٍَُِّْـٰ\u200f\u200c\u200d\ufeff٠۹أىةک")
