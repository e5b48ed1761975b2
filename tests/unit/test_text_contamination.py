"""Questions of benchmarks inside of texts."""

from hypothesis import given
from hypothesis import strategies as st

from nativealign_workloads.text.contamination import PHRASE_QUESTIONS, Questions
from nativealign_workloads.text.fold import words

WORDS = st.lists(st.sampled_from(["علم", "عِلْم", "نور", "بيت", "قمر", "بحر", "أمر", "امر", "five", "٥", "5"]), max_size=24)
RUN, SHORTEST = 6, 5


def runs(tokens: list[str], size: int) -> set[tuple[str, ...]]:
    return {tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)}


def holds(text: str, question: str) -> bool:
    """As the definition says it."""
    asked = words(question)
    return len(asked) >= SHORTEST and bool(runs(words(text), size := min(RUN, len(asked))) & runs(asked, size))


@given(st.lists(WORDS, min_size=1, max_size=PHRASE_QUESTIONS), WORDS)
def test_a_question_is_found_when_a_run_of_it_stands_in_the_text(given: list[list[str]], tokens: list[str]) -> None:
    questions, text = [" ".join(question) for question in given], "، ".join(tokens)
    found = Questions([str(number) for number in range(len(questions))], questions, RUN, SHORTEST).held_by(text)
    holding = [str(number) for number, question in enumerate(questions) if holds(text, question)]
    assert (found in holding) if holding else found == ""


def test_what_more_than_ten_questions_say_is_a_phrase() -> None:
    phrase = "أي من العبارات التالية صحيحة"
    for count in (PHRASE_QUESTIONS, PHRASE_QUESTIONS + 1):
        asked = [f"{phrase} عن المدينة رقم {number} كما ورد في الدرس" for number in range(count)]
        questions = Questions([str(number) for number in range(count)], asked, SHORTEST, SHORTEST)
        assert questions.held_by(f"يسأل المعلم {phrase} في الفصل") == ("0" if count <= PHRASE_QUESTIONS else "")
        assert questions.held_by("كتب عن المدينة رقم 3 كما ورد") == "3"


def test_a_question_says_itself_twice_and_is_one_question() -> None:
    again = " ".join(["كيف حال مدينة القاهرة اليوم"] * (PHRASE_QUESTIONS + 1))
    assert Questions(["one"], [again], SHORTEST, SHORTEST).held_by(f"سألني: {again[:40]} كما قال") == "one"
