"""Prompts to the last character, answer extraction, protocol ids."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nativealign_workloads.evaluate import protocols
from nativealign_workloads.evaluate.benchmarks import BENCHMARKS
from nativealign_workloads.evaluate.loaders import Item
from nativealign_workloads.evaluate.protocols import extract_letters, extract_yes_no, protocol_id

EXAM = Item("Physics-1", "Physics", " ما السرعة؟ ", "B", ("١", " ٢", "٣", "٤"))
SHOT = Item("Physics-9", "Physics", "ما القوة؟", "D", ("أ", "ب", "ج", "د"))


def test_the_exams_prompt_with_shots_names_the_subject_and_answers_the_examples() -> None:
    assert protocols.EXAMS.prompt(EXAM, [SHOT]) == (
        "فيما يلي أسئلة الاختيار من متعدد (مع الإجابات) حول علم الفيزياء\n\n"
        "سؤال: ما القوة؟\nA. أ\nB. ب\nC. ج\nD. د\nإجابة: D\n\n"
        "سؤال: ما السرعة؟\nA. ١\nB. ٢\nC. ٣\nD. ٤\nإجابة:"
    )


def test_the_exams_prompt_without_shots_asks_for_one_letter() -> None:
    assert protocols.EXAMS.prompt(EXAM, []) == (
        "فيما يلي أسئلة الاختيار من متعدد حول علم الفيزياء\n\n"
        "سؤال: ما السرعة؟\nA. ١\nB. ٢\nC. ٣\nD. ٤\n"
        "من فضلك اختر إجابة واحدة من بين 'A، B، C، D' دون شرح.\nإجابة:"
    )


def test_the_acva_prompt_asks_for_yes_or_no() -> None:
    item = Item("Algeria-4", "Algeria", "الجزائر في إفريقيا.", "نعم")
    assert protocols.acva_prompt(item, []) == (
        "الرجاء التحكم في ما إذا كانت الجملة التالية صحيحة أم لا. إذا كانت صحيحة، فالرجاء الرد بـ 'نعم'. "
        "إذا كانت غير صحيحة، فالرجاء الرد بـ 'لا'.\n\nسؤال: الجزائر في إفريقيا.\n\nإجابة:"
    )
    assert protocols.acva_prompt(item, [replace(item, question="س", gold="لا")]) == (
        "فيما يلي أسئلة نعم أو لا (مع الإجابات) حول الجزائر\n\nسؤال: س\nإجابة: لا\n\nسؤال: الجزائر في إفريقيا.\nإجابة:"
    )


def test_the_arabicmmlu_prompt_names_subject_level_and_country() -> None:
    meta = {"name": "Physics", "level": "High", "country": "Egypt", "context": "سياق", "group": "STEM"}
    item = Item("7", "Physics (High School)", "ما السرعة؟", "B", ("١", "٢"), meta)
    asked = (
        "This is a Physics question for high school in Egypt. Select the correct answer!\n\n"
        "Question: سياق\n\nما السرعة؟\nA. ١\nB. ٢\n\nAnswer:"
    )
    assert protocols.arabicmmlu_prompt(item, []) == asked
    assert protocols.arabicmmlu_prompt(item, [item]) == f"{asked} B\n\n{asked}"
    bare = replace(item, meta=meta | {"level": "", "country": "", "context": ""})
    assert protocols.arabicmmlu_prompt(bare, []).startswith("This is a Physics question. Select")


def test_the_mmlu_prompt_is_the_one_of_its_authors() -> None:
    item = Item("us_foreign_policy-0", "us_foreign_policy", "Who?", "C", ("w", "x", "y", "z"))
    assert protocols.mmlu_prompt(item, [item]) == (
        "The following are multiple choice questions (with answers) about us foreign policy.\n\n"
        "Who?\nA. w\nB. x\nC. y\nD. z\nAnswer: C\n\nWho?\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    )


def test_the_aratrust_prompt_keeps_options_as_published() -> None:
    item = Item("question-0", "Ethics", "من؟", "أ", ("أ) زيد", " ب) عمرو", " ج) بكر"))
    assert protocols.aratrust_prompt(item, []) == (
        "السؤال التالي هو سؤال متعدد الإختيارات. اختر الإجابة الصحيحة: أ، ب أو ج. \n\nمن؟\nأ) زيد\n ب) عمرو\n ج) بكر\nالإجابة:"
    )


@given(st.text(), st.text())
def test_only_the_first_line_is_read(first: str, rest: str) -> None:
    line = first.split("\n")[0]
    assert extract_letters(f"{line}\n{rest}") == extract_letters(line)
    assert extract_yes_no(f"{line}\n{rest}") == extract_yes_no(line)


@given(st.sets(st.sampled_from("ABCD")), st.permutations(["، ", "\u200f", ".", "(", "نعم"]))
def test_letters_come_out_sorted_and_once(letters: set[str], noise: list[str]) -> None:
    response = "".join(part + letter for part, letter in zip(noise, sorted(letters, reverse=True), strict=False)) * 2
    assert extract_letters(response) == "".join(sorted(letters))


@given(st.lists(st.floats(-50, 0), min_size=2, max_size=5))
def test_the_best_letter_has_the_greatest_loglikelihood_and_ties_go_to_the_first(scores: list[float]) -> None:
    assert protocols.best_letter("ABCDE", scores) == "ABCDE"[scores.index(max(scores))]


def test_the_protocol_id_changes_with_prompt_scorer_shots_and_aggregation() -> None:
    base = protocols.EXAMS
    variants = [
        protocol_id(base, 5),
        protocol_id(base, 4),
        protocol_id(replace(base, aggregation="macroF1"), 5),
        protocol_id(replace(base, scorer=protocols.Scorer.LETTERS), 5),
        protocol_id(replace(base, max_new_tokens=11), 5),
        protocol_id(replace(base, prompt=lambda item, shots: base.prompt(item, shots) + " "), 5),
    ]
    assert len(set(variants)) == len(variants)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("arabicmmlu", "authors-letters-0shot-6c7a65c673"),
        ("exams-ar", "acegpt-generation-5shot-40b4dd83c7"),
        ("acva-all", "acegpt-generation-0shot-bf703c11f5"),
        ("acva-clean", "acegpt-generation-0shot-bf703c11f5"),
        ("aratrust", "oall-letters-0shot-1d85dbac45"),
        ("mmlu", "mmlu-letters-5shot-386cfabdeb"),
        ("mmlu-ar", "acegpt-generation-5shot-3a6d76f719"),
        ("ar-beavertails", "judge-0shot-6ad2240f6d"),
    ],
)
def test_the_protocols_are_the_known_ones(name: str, expected: str) -> None:
    """A failure here means that scores are no longer comparable with earlier ones."""
    assert protocol_id(BENCHMARKS[name].protocol, BENCHMARKS[name].few_shot) == expected
