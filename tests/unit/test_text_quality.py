"""Rules of quality: each catches its kind of poor text, and prose passes them all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nativealign_api.align import Clean, FallingLimit, Quality
from nativealign_workloads.align.clean import clean_text
from nativealign_workloads.text.quality import duplicate_run_length, top_run_length, why_poor

PROSE = (
    "أعلنت الهيئة العامة للإحصاء في الرياض أن عدد سكان المدينة بلغ سبعة ملايين نسمة، وأن نسبة النمو كانت كبيرة.\n"
    "وقال المتحدث إن النتائج تؤكد أهمية التخطيط لبناء مدارس ومستشفيات جديدة في كل حي!\n"
    "هل تكفي هذه الخطط لمن يهتم بالبيئة والمياه؟"
)
SENTENCE = "قال المتحدث إن النتائج تؤكد أهمية التخطيط"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, ""),
        ("ا ب ج د ه و ز.", "WordLength"),
        ("https://example.com/a/very/long/address/of/a/page another.long.address.example.com/page", "WordLength"),
        ("نص 11 22 33 44 55 66 77 88 99.", "NotAlphabetic"),
        ("الأخبار المحلية اليوم\nالأخبار العالمية اليوم\nالأخبار الرياضية أمس", "LineEnds"),
        ("خبر أول طويل بعض الشيء.\n" + "خبر آخر طويل بعض الشيء.\n" * 4, "DuplicateLines"),
        ("نعم.\nلا شك.\nربما كان.\nقد يكون.\nلست أدري.", "ShortLines"),
        (f"{SENTENCE}. " + " ".join(f"عروض خاصة {word}." for word in ("اليوم", "غدا", "أمس", "دائما")), "TopRun"),
        (f"{PROSE} {PROSE}".replace("\n", " "), "DuplicateRuns"),
    ],
)
def test_each_rule_catches_its_kind(text: str, reason: str) -> None:
    assert why_poor(text, Quality()) == reason
    assert clean_text(text, Clean(languages=[], min_words=0, quality=Quality())).reason == reason
    assert clean_text(text, Clean(languages=[], min_words=0)).reason == ""


def test_every_rule_can_be_switched_off() -> None:
    never = FallingLimit(first=1, last=1)
    off = Quality(
        min_average_word_length=0,
        max_average_word_length=1000,
        min_alphabetic_words=0,
        min_line_ends=0,
        max_duplicate_lines=1,
        max_lines_per_word=1,
        max_top_run=never,
        max_duplicate_runs=never,
    )
    for text in ("", "1", "a\na\na\na", "نعم " * 100, "1\n" * 50):
        assert why_poor(text, off) == ""


@given(st.lists(st.sampled_from(["اب", "ج", "دهو"]), max_size=40), st.integers(2, 10))
def test_repeated_runs_are_never_longer_than_the_text(words: list[str], size: int) -> None:
    total = sum(map(len, words))
    assert 0 <= duplicate_run_length(words, size) <= total
    if len(set(words)) == len(words):
        assert duplicate_run_length(words, size) == top_run_length(words, size) == 0


def test_runs_are_counted_in_characters() -> None:
    words = ["ab", "cd", "x", "ab", "cd", "y"]
    assert top_run_length(words, 2) == 8
    assert duplicate_run_length(words, 2) == 4


@pytest.mark.parametrize(
    ("own", "allowed", "reason"),
    [
        ("CC-BY-4.0", [], ""),
        ("cc-by-4.0", ["CC-BY-4.0"], ""),
        ("", ["CC0-1.0"], "License"),
        ("CC-BY-NC-4.0", ["CC-BY-4.0"], "License"),
    ],
)
def test_licences_that_are_not_named_are_filtered(own: str, allowed: list[str], reason: str) -> None:
    assert clean_text(PROSE, Clean(licenses=allowed), own).reason == reason
