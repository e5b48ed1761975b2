"""Scripts, languages, boilerplate, personal data and repairs: what is recognised, and what must be left alone."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nativealign_api.align import Script
from nativealign_workloads.text.boilerplate import is_advertisement, is_furniture, strip_advertisements, strip_boilerplate
from nativealign_workloads.text.language import CODES, identifier, language
from nativealign_workloads.text.personal import find_emails, find_phones, find_urls
from nativealign_workloads.text.repair import repair_mojibake, repair_presentation_forms
from nativealign_workloads.text.script import NAMES, arabic_share, script_profile, share_of

ARABIC = "أعلنت الجامعة فتح باب القبول للطلاب في كلية الطب"


def test_shares_count_letters_only() -> None:
    assert arabic_share("سلام 1234 !!! ـــ") == 1.0
    assert arabic_share("1234 ...") == 0.0
    assert script_profile("سلام abcd αβ") == {"Arabic": 0.4, "Latin": 0.4, "Greek": 0.2}
    assert share_of("سلام abcd αβ", "Grek") == 0.2


def test_every_script_of_the_spec_is_told_by_the_names_of_its_letters() -> None:
    assert set(NAMES) == set(get_args(Script))
    found = {script for first in range(0, 0x10000, 64) for script in script_profile("".join(map(chr, range(first, first + 64))))}
    assert set(NAMES.values()) <= found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ARABIC, "ar"),
        ("كِتَابٌ", "ar"),
        ("The quick brown fox jumps over the lazy dog and runs to the river", "en"),
        ("Le chat est sur la table et il dort dans le salon avec les enfants", "fr"),
        ("این یک متن فارسی است که در آن از چهار حرف گچپژ استفاده می‌شود", "fa"),
        ("یہ اردو زبان کا ایک چھوٹا سا جملہ ہے اور اس میں ٹ اور ڈ ہیں", "ur"),
        ("الجو حار قوي النهارده والناس كلها رايحة البحر", "ar"),
        ("واش راك خويا لباس عليك كيداير اليوم", "ar"),
        ("Привет, как дела у вас сегодня", "ru"),
        ("12345 !!!", "zxx"),
        ("", "zxx"),
    ],
)
def test_languages_are_told_apart(text: str, expected: str) -> None:
    assert language(text) == expected


def test_codes_are_what_the_model_knows_but_for_dialects() -> None:
    assert set(identifier().labels) - CODES == {"arz", "ary"}
    assert set(identifier().labels) >= CODES


def test_furniture_lines_go_and_text_lines_stay() -> None:
    rights, said = "جميع الحقوق محفوظة © 2024 صحيفة المدينة", "قال المتحدث إن جميع الحقوق محفوظة للمواطنين"
    kept, removed = strip_boilerplate(f"الصفحة الرئيسية\n{ARABIC}\nشَارِك الخَبر\n{rights}\n\n{said}")
    assert kept == f"{ARABIC}\n\n{said}"
    assert removed == ["الصفحة الرئيسية", "شَارِك الخَبر", rights]


@pytest.mark.parametrize(
    "line",
    [
        "Copyright © 2020 The Daily",
        "حقوق النشر © 2019 الجريدة",
        "حقوق النشر محفوظة",
        "آخر تحديث: 12/3/2020 10:30",
        "آخر تحديث الأحد 3 مايو",
        "تابعونا على فيسبوك",
        "عدد المشاهدات : 1520",
        "شارك هذا الخبر مع أصدقائك",
        "اقرأ أيضا: الأمطار تعود",
    ],
)
def test_furniture_is_recognised_by_how_it_goes_on(line: str) -> None:
    assert is_furniture(line)


@pytest.mark.parametrize(
    "line",
    [
        "حقوق النشر في القانون المصري تحمي المؤلف خمسين سنة بعد وفاته",
        "Copyright law in Egypt protects the author",
        "آخر تحديث للدستور المغربي كان سنة 2011 بعد استفتاء",
        "تابعنا على مدى ثلاثة أيام محاكمة الوزير",
        "عدد القراءات المسجلة للكتاب في المكتبة كبير",
        "شارك هذا الخبر في نشر الذعر بين الناس",
    ],
)
def test_prose_that_begins_like_furniture_stays(line: str) -> None:
    assert not is_furniture(line)


@given(st.text())
def test_boilerplate_loses_no_line(text: str) -> None:
    kept, removed = strip_boilerplate(text)
    assert sorted(kept.split("\n") + removed) == sorted(text.split("\n")) or (removed and not kept)


@pytest.mark.parametrize(
    "line",
    [
        "للحجز والاستفسار اتصل على 0501234567",
        "خصم يصل إلى 50% على جميع المنتجات",
        "اطلب الآن والتوصيل مجاني",
        "Call now +966 50 123 4567",
        "خصومات تصل إلى 70% على الأجهزة",
        "Shoes 50% off",
        "عرض خاص www.example.com",
        "للاستفسار info@example.com",
    ],
)
def test_advertisements_are_recognised(line: str) -> None:
    assert is_advertisement(line)
    assert not is_furniture(line)


@pytest.mark.parametrize(
    "line",
    [
        ARABIC,
        "وفر المصنع خصومات لموظفيه في العام الماضي",
        "رقم البلاغ 0501234567",
        "خصم الفريق قوي",
        "أعلن محمد الجدعان عن خصومات ضريبية بنسبة 10% هذا العام",
        "ارتفع عدد مستخدمي واتساب في المنطقة بنسبة 12%",
        "The central bank kept the discount rate at 5%.",
        "أعلنت واتساب الميزة على https://blog.example.com",
        "أكبر موقع للتواصل الاجتماعي https://example.com",
    ],
)
def test_plain_text_is_no_advertisement(line: str) -> None:
    assert not is_advertisement(line)


def test_advertisements_and_furniture_leave_together() -> None:
    assert strip_advertisements(f"{ARABIC}\nللطلب واتساب 0501234567\nطباعة") == (ARABIC, ["للطلب واتساب 0501234567", "طباعة"])


@pytest.mark.parametrize("number", ["0501234567", "+966 50 123 4567", "00966501234567", "٠٥٠١٢٣٤٥٦٧", "920012345", "050-123-4567"])
def test_phone_numbers_are_found_in_any_digits(number: str) -> None:
    text = f"أو على {number}، شكرا"
    assert [text[a:b] for a, b in find_phones(text)] == [number]


@pytest.mark.parametrize(
    "text", ["عام 2015-07-21", "01/02/2015", "بلغ 7821000 نسمة", "1443", "12.345.678", "3.14159265", "01-02-2015"]
)
def test_dates_and_quantities_are_no_phone_numbers(text: str) -> None:
    assert find_phones(text) == []


def test_a_short_number_is_a_phone_number_when_a_word_says_so() -> None:
    assert find_phones("هاتف: 2464444") == [(6, 13)]
    assert find_phones("سكن 2464444") == []


def test_addresses_are_found_without_the_punctuation_around_them() -> None:
    assert find_urls("انظر (https://a.example/x?y=1) و www.b.example، ثم.") == ["https://a.example/x?y=1", "www.b.example"]
    text = "راسل info@example.com."
    assert [text[a:b] for a, b in find_emails(text)] == ["info@example.com"]
    text = "راسلوا:info@uni.edu.saللتواصل"
    assert [text[a:b] for a, b in find_emails(text)] == ["info@uni.edu.sa"]


def as_browsers_read(text: str, encoding: str) -> str:
    return "".join(bytes([b]).decode(encoding, "ignore") or chr(b) for b in text.encode("utf-8"))


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1256"])
@pytest.mark.parametrize("text", [ARABIC, "قال: «نعم»، 1443 ABC", "فم ف"])
def test_misread_utf8_is_read_right(encoding: str, text: str) -> None:
    assert repair_mojibake(as_browsers_read(text, encoding)) == (text, True)


@given(st.text(alphabet=ARABIC + "ظط٪»«ÙØ§é§\u00a0abc \n"))
def test_text_that_is_not_surely_misread_stays(text: str) -> None:
    repaired, changed = repair_mojibake(text)
    assert changed == (repaired != text)
    for before, after in zip(text.split("\n"), repaired.split("\n"), strict=True):
        if before != after:
            assert arabic_share(after) > arabic_share(before) or arabic_share(after) >= 0.5
            assert len(after) < len(before)


@given(st.text(alphabet="ابتثجحخدذرزسشصضطظعغفقكلمنهويأإآةىئءؤ،؛ .0123456789٠١٢ًٌٍَُِّْ"))
def test_good_arabic_is_never_taken_for_misread(text: str) -> None:
    assert repair_mojibake(text) == (text, False)


def test_only_the_damaged_line_is_repaired() -> None:
    damaged = as_browsers_read(ARABIC, "cp1252")
    assert repair_mojibake(f"كِتابٌ أصيل\n{damaged}\ncafé") == (f"كِتابٌ أصيل\n{ARABIC}\ncafé", True)


def test_presentation_forms_become_letters_and_nothing_else_changes() -> None:
    assert repair_presentation_forms("ﺍﻻﺳﺘﺮﺍﺗﻴﺠﻲ") == ("الاستراتيجي", True)
    assert repair_presentation_forms("ك\ufe77ت") == ("كَت", True)
    kept = "مُحمّد ﷺ على مدى الرؤية ـ ½ ﴾آية﴿"
    assert repair_presentation_forms(kept) == (kept, False)
