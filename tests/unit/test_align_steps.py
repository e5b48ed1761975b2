"""Pure parts of the AlignJob's and PretrainJob's steps."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nativealign_api.align import AlignGates, Chunking, Clean, Rewrite
from nativealign_api.pretrain import MixEntry
from nativealign_workloads.align.annotate import summarize
from nativealign_workloads.align.assess import gates, preservation
from nativealign_workloads.align.assess import summarize as summarize_measure
from nativealign_workloads.align.chunks import counter, cut
from nativealign_workloads.align.clean import clean_text
from nativealign_workloads.align.rewrite import Rewriter, document
from nativealign_workloads.align.train_worker import identity_limit
from nativealign_workloads.conduct import BUILTIN, load_conduct
from nativealign_workloads.engines import Reply, Request
from nativealign_workloads.pretrain.tokenize import place
from nativealign_workloads.pretrain.train import mix_sources
from nativealign_workloads.training.gang import curve

CONDUCT = load_conduct(BUILTIN["ar-1"].read_bytes(), "ar-1")
TEXT = "ذهب الباحثون إلى المكتبة الوطنية صباح الأحد ووجدوا فيها مخطوطات قديمة كثيرة تعود إلى القرن الثالث."


class Scripted:
    """An engine whose answers the test gives, one list for each call."""

    def __init__(self, name: str, *answers: str) -> None:
        self.name, self._answers, self.asked = name, list(answers), list[list[Request]]()

    def generate(self, requests: list[Request]) -> list[Reply]:
        self.asked.append(list(requests))
        answer = self._answers.pop(0)
        return [Reply(request.id, answer, "Stop", 10, 10, self.name) for request in requests]

    def settle(self) -> None: ...

    def close(self) -> None: ...


def _rewrite(worker: Scripted, expert: Scripted, **settings: int) -> dict[str, object]:
    pieces = cut("d", TEXT, Chunking(), counter(None))
    (result,) = Rewriter(CONDUCT, Rewrite(**settings), worker, expert, 1.4).run(pieces)
    return document({"id": "d", "corpus": "c", "key": "k", "ordinal": 0, "text": TEXT}, [result], {})


def test_a_good_answer_stands_and_an_equal_one_is_unchanged_not_rejected() -> None:
    better = TEXT.replace("صباح", "في صباح")
    assert _rewrite(Scripted("w", better), Scripted("e"))["rewritten"] == better
    row = _rewrite(Scripted("w", TEXT), Scripted("e"))
    assert row["chunks"][0]["state"] == "Unchanged"


def test_a_text_that_says_something_else_is_rejected_and_the_original_stands() -> None:
    other = "تقول الحكاية إن السفينة أبحرت مساء نحو جزيرة بعيدة لا يسكنها أحد سوى طيور البحر البيضاء الصغيرة."
    row = _rewrite(Scripted("w", other), Scripted("e"))
    assert row["rewritten"] == TEXT
    assert row["chunks"][0]["state"] == "Original"
    assert "WordLost" in [guard["guard"] for guard in row["chunks"][0]["guards"]]


def test_an_empty_answer_is_asked_again_as_another_attempt_and_then_the_original_stands() -> None:
    worker = Scripted("w", "", TEXT)
    assert _rewrite(worker, Scripted("e"), max_retries=1)["chunks"][0]["state"] == "Unchanged"
    assert [request.attempt for call in worker.asked for request in call] == [0, 1]
    assert _rewrite(Scripted("w", ""), Scripted("e"), max_retries=0)["chunks"][0]["state"] == "Original"


def test_a_refused_chunk_goes_to_the_expert_and_is_dropped_when_that_refuses_too() -> None:
    refusal = CONDUCT.forbidden_phrases.refusal[0]
    row = _rewrite(Scripted("w", refusal), Scripted("e", TEXT.replace("صباح", "في صباح")), max_retries=0)
    assert (row["chunks"][0]["state"], row["chunks"][0]["by"]) == ("Rewritten", "e")
    row = _rewrite(Scripted("w", refusal), Scripted("e", refusal), max_retries=0)
    assert (row["chunks"][0]["state"], row["rewritten"]) == ("Dropped", "")


@given(st.integers(0, 10_000), st.floats(0, 99))
def test_identity_pairs_stay_within_their_share(changed: int, percent: float) -> None:
    allowed = identity_limit(changed, percent)
    assert allowed * 100 <= percent * (changed + allowed) + 1e-6 * (changed + allowed)


def test_pairs_are_counted_with_their_guards_and_cost() -> None:
    row = {"accepted": True, "unchanged": False, "guards": [], "requests": 1, "tokens": 5, "completionTokens": 2}
    facts = summarize([row, row | {"accepted": False, "guards": ["NumberLost"]}])
    assert facts == {
        "pairs": 2,
        "accepted": 1,
        "unchanged": 0,
        "guards": {"NumberLost": 1},
        "usage": {"requests": 2, "tokens": 10, "completionTokens": 4},
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [("قصير جدا", "TooShort"), ("this page is written in English and about nothing at all", "Language"), (TEXT, "")],
)
def test_documents_are_filtered_with_a_reason(text: str, reason: str) -> None:
    assert clean_text(text, Clean()).reason == reason


def test_no_language_is_filtered_where_none_is_named() -> None:
    assert clean_text("this page is written in English and about nothing at all", Clean(languages=[])).reason == ""


def test_menus_and_read_also_lines_go_and_the_text_stays() -> None:
    page = f"الرئيسية | أمراض | تغذية | أسرة | اسأل طبيباً\n{TEXT}\nاقرأ أيضاً في صحتي: الأكثر قراءة هذا الأسبوع"
    cleaned = clean_text(page, Clean())
    assert cleaned.text == TEXT
    assert cleaned.operations == ("RemoveBoilerplate",)


def test_a_table_row_of_long_cells_is_no_menu() -> None:
    row = "بلغ الإنتاج عشرين ألف طن في السنة الأولى | ثم ارتفع إلى ثلاثين ألف طن | وانخفض بعد ذلك | ثم استقر"
    assert clean_text(f"{TEXT}\n{row}", Clean()).text.endswith(row)


def test_gates_say_value_limit_and_verdict_and_only_those_asked_for() -> None:
    chunks = {"Original": 30, "Rewritten": 60, "Dropped": 10}
    asked = AlignGates(max_fallback_percent=25, min_number_preservation_percent=97)
    assert gates(asked, chunks, 0.98) == [
        {"gate": "maxFallbackPercent", "value": 30.0, "limit": 25.0, "passed": False},
        {"gate": "minNumberPreservationPercent", "value": 98.0, "limit": 97.0, "passed": True},
    ]


def test_numbers_that_are_lost_lower_the_preservation() -> None:
    (kept,) = preservation([{"origin": "في ٢٠٢٠ بيعت 15 نسخة", "rewritten": "في 2020 بيعت نسخ"}], CONDUCT)["numbersKept"]
    assert kept == 0.5


def test_a_measure_without_values_says_so() -> None:
    assert summarize_measure([float("nan")] * 3, 1) == {"count": 0, "missing": 3, "mean": None}


def test_an_index_of_tokenize_is_one_shard_of_one_source() -> None:
    from nativealign_api.resolved import ResolvedSource

    sources = [ResolvedSource(name=name, digest=name, input="i", shards=shards) for name, shards in (("a", 2), ("b", 3))]
    assert [(source.name, shard) for source, shard in (place(sources, n) for n in range(5))] == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("b", 1),
        ("b", 2),
    ]


def test_limits_in_tokens_become_limits_in_samples() -> None:
    entry = MixEntry(align_job="web", max_tokens=10_000, weight=2.0)
    (source,) = mix_sources([entry], {"web/Aligned": 7}, "Renormalise", 256)
    assert (source.name, source.samples, source.weight, source.max_samples) == ("web/Aligned", 7, 2.0, 39)


def test_a_curve_keeps_its_last_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": n, "loss": 1.0, "learning_rate": 0.1}) + "\n" for n in range(1, 1001)))
    points = curve(path)
    assert len(points) <= 502
    assert (points[0][0], points[-1][0]) == (1, 1000)
