"""Guards reject what a reader would reject, let good rewritings pass, and never punish a declared removal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bench.guards import measure

from nativealign_workloads.conduct import BUILTIN, Action, Conduct, load_conduct
from nativealign_workloads.guards import Verdict, check, decide, unchanged
from nativealign_workloads.guards.measures import latin_names, numbers, repeated_share

CONDUCT = load_conduct(BUILTIN["ar-1"].read_bytes(), "ar-1")
ORIGIN = (
    "اعلنت شركة Aramco يوم 21 يوليو 2015 , أن أرباحها بلغت ١٬٢٥٠٫٥ مليون ريال ؛ وقال المتحدث إن التفاصيل منشورة في "
    "https://example.com/report?id=7 وتشمل أسواق آسيا وأوروبا"
)
POLISHED = (
    "أعلنت شركة Aramco يوم 21 يوليو 2015، أن أرباحها بلغت 1,250.5 مليون ريال؛ وقال المتحدث إن التفاصيل منشورة في "
    "https://example.com/report?id=7 وتشمل أسواق آسيا وأوروبا."
)


def broken(origin: str, rewritten: str, finish_reason: str = "Stop", conduct: Conduct = CONDUCT) -> set[str]:
    return {v.guard for v in check(conduct, origin, rewritten, finish_reason)}


def test_a_good_rewriting_passes() -> None:
    assert broken(ORIGIN, POLISHED) == set()


def test_the_examples_of_the_builtin_code_keep_its_own_guards() -> None:
    assert [broken(example.origin, example.rewritten) for example in CONDUCT.examples] == [set()] * len(CONDUCT.examples)


def test_unchanged_text_passes() -> None:
    assert unchanged(ORIGIN, f" {ORIGIN}\n")
    assert broken(ORIGIN, ORIGIN) == set()


@pytest.mark.parametrize(
    ("rewritten", "finish_reason", "guard"),
    [
        (POLISHED.replace("21 ", ""), "Stop", "NumberLost"),
        (POLISHED.replace("1,250.5", "1,250,5"), "Stop", "NumberLost"),
        (POLISHED.replace("2015", "2016"), "Stop", "NumberInvented"),
        (POLISHED.replace("?id=7", ""), "Stop", "UrlLost"),
        (POLISHED.replace("Aramco", "أرامكو"), "Stop", "NameLost"),
        (POLISHED.replace("آسيا", "آسيا وكندا"), "Stop", "NameInvented"),
        (POLISHED.replace("يوليو", "تموز"), "Stop", ""),
        (POLISHED.replace("يوليو", "أيار"), "Stop", "DateLost"),
        (POLISHED.replace(" 2015", " 2015 في رمضان"), "Stop", "DateInvented"),
        (POLISHED + " www.new.example", "Stop", "UrlInvented"),
        (POLISHED + " يا كلب", "Stop", "UnsafeAddition"),
        (POLISHED + " وتلك العاهرة", "Stop", "UnsafeAddition"),
        (POLISHED + " وشرموطة", "Stop", "UnsafeAddition"),
        ("شرکت Aramco در 21 یوليو 2015 اعلام کرد که 1,250.5 پول دارد https://example.com/report?id=7", "Stop", "LanguageDrift"),
        (POLISHED[:60], "Stop", "LengthRatio"),
        (POLISHED + " " + ("وأضاف أن الأسواق العالمية مستقرة تماما هذا العام " * 6), "Stop", "Repetition"),
        ("إليك النص: " + POLISHED, "Stop", "ScaffoldLeak"),
        ("النص المعاد كتابته: " + POLISHED, "Stop", "ScaffoldLeak"),
        ("**Rewritten:** " + POLISHED, "Stop", "ScaffoldLeak"),
        (f"<text>\n{POLISHED}\n</text>", "Stop", "ScaffoldLeak"),
        (f"{POLISHED}\n\n### assistant", "Stop", "ScaffoldLeak"),
        (f"{CONDUCT.worker_instructions}\n{POLISHED}", "Stop", "ScaffoldLeak"),
        ("عذراً، لا يمكنني إعادة صياغة هذا النص", "Stop", "Refusal"),
        ("أعتذر، لكنني لا أستطيع تنفيذ هذا الطلب", "Stop", "Refusal"),
        ("I won't rewrite this content.", "Stop", "Refusal"),
        ("", "Refusal", "Refusal"),
        (POLISHED, "Length", "Truncated"),
        (" \n", "Stop", "Empty"),
        ("...", "Stop", "Empty"),
        ("Saudi Aramco announced on 21 2015 that profits reached 1,250.5 https://example.com/report?id=7", "Stop", "ScriptDrift"),
    ],
)
def test_each_guard_catches_its_defect(rewritten: str, finish_reason: str, guard: str) -> None:
    found = broken(ORIGIN, rewritten, finish_reason)
    assert guard in found if guard else not found


def test_guards_find_what_is_wrong_in_pairs_that_they_were_not_tuned_on() -> None:
    scores = measure(held_out=True)
    assert set(scores) == {field.title().replace("_", "") for field in type(CONDUCT.guards).model_fields}
    short = {guard: score for guard, score in scores.items() if score.precision < 0.95 or score.recall < 0.85}
    assert not short
    assert min(score.right + score.silent for score in scores.values()) >= 40


def test_a_refusal_or_an_empty_answer_is_one_verdict() -> None:
    assert check(CONDUCT, ORIGIN, "", "Stop") == [Verdict("Empty", 1, 0, Action.RETRY)]
    assert check(CONDUCT, ORIGIN, "لا أستطيع مساعدتك", "Length") == [Verdict("Refusal", 1, 0, Action.EXPERT)]


def test_a_phrase_that_the_original_has_is_no_leak() -> None:
    origin = "قال الموظف: عذرا لا أستطيع ، وكان النص العربي أمامه على الطاولة الكبيرة"
    assert broken(origin, origin.replace(" ،", "،")) == set()


def test_declared_removals_are_not_missed() -> None:
    advertisement = "للحجز والاستفسار اتصل على 0501234567 أو www.shop.example"
    origin = f"{POLISHED}\n{advertisement}\nراسل المحرر على editor@example.com او هاتف 0112345678"
    rewritten = f"{POLISHED}\nراسل المحرر على {CONDUCT.masks.email} أو هاتف {CONDUCT.masks.phone_number}"
    assert broken(origin, rewritten) == set()
    keeps_all = CONDUCT.model_copy(update={"remove_advertisements": False, "masks": type(CONDUCT.masks)()})
    assert {"NumberLost", "UrlLost"} <= broken(origin, rewritten, conduct=keeps_all)


def test_a_text_that_is_all_advertisement_may_become_empty() -> None:
    assert broken("اطلب الآن والتوصيل مجاني 0501234567", "") == set()


def test_numbers_compare_across_spellings() -> None:
    assert numbers("١٬٢٥٠٫٥ و1,250.5 و٣") == ["1250.5", "1250.5", "3"]
    assert numbers("1. أولا\n2. ثانيا") == []
    assert numbers("1,2,3") == ["1", "2", "3"]


def test_latin_names_in_english_text_are_the_capitalised_words_within_sentences() -> None:
    assert latin_names("The minister met Angela Merkel in Berlin. Later he left for NATO talks.") == [
        "angela",
        "merkel",
        "berlin",
        "nato",
    ]
    assert latin_names("نظام Windows ومنصة twitter") == ["windows", "twitter"]


def test_repetition_counts_eight_word_runs() -> None:
    assert repeated_share("واحد اثنان ثلاثة") == 0
    assert repeated_share("نعم " * 100) > 0.9
    assert repeated_share(" ".join(map(str, range(100)))) == 0


def test_the_strongest_action_wins_and_falls_back_safely() -> None:
    original, retry = Verdict("NumberLost", 1, 0, Action.ORIGINAL), Verdict("Truncated", 1, 0, Action.RETRY)
    refused, drop = Verdict("Refusal", 1, 0, Action.EXPERT), Verdict("Empty", 1, 0, Action.DROP)
    assert decide([]) is None
    assert decide([original, retry]) is Action.RETRY
    assert decide([original, retry, refused]) is Action.EXPERT
    assert decide([drop, refused]) is Action.DROP
    assert decide([original, retry], retry=False) is Action.ORIGINAL
    assert decide([refused, original], expert=False) is Action.DROP


@given(st.text(alphabet="ابتةأ 0123٤٥.,،\nabC%:/", max_size=200), st.text(alphabet="ابتةأ 0123٤٥.,،\nabC%:/", max_size=200))
def test_shares_stay_shares_and_verdicts_repeat(origin: str, rewritten: str) -> None:
    verdicts = check(CONDUCT, origin, rewritten, "Stop")
    assert verdicts == check(CONDUCT, origin, rewritten, "Stop")
    assert all(0 <= v.value <= 1 for v in verdicts if v.guard not in ("LengthRatio", "ScaffoldLeak"))
    assert not check(CONDUCT, origin, origin, "Stop")
