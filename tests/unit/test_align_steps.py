"""Pure parts of the AlignJob's and PretrainJob's steps."""

import json
from collections import Counter
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nativealign_api.align import AlignGates, Chunking, Clean, Rewrite, Script
from nativealign_api.pretrain import MixEntry
from nativealign_workloads.align.annotate import counted, summarize
from nativealign_workloads.align.asking import unless_overtaken
from nativealign_workloads.align.assess import gates, kept_items, preservation
from nativealign_workloads.align.chunks import counter, cut
from nativealign_workloads.align.clean import clean_text
from nativealign_workloads.align.rejected import KEPT, Worst
from nativealign_workloads.align.rewrite import Rewriter, document_row, rejected_answers
from nativealign_workloads.align.statistics import agreement, effect, share
from nativealign_workloads.align.statistics import summarize as summarize_measure
from nativealign_workloads.align.train_worker import documents_to_hold_out, identity_limit
from nativealign_workloads.conduct import BUILTIN, load_conduct
from nativealign_workloads.engines import Reply, Request
from nativealign_workloads.errors import StepError
from nativealign_workloads.pretrain.tokenize import place
from nativealign_workloads.pretrain.train import mix_sources
from nativealign_workloads.store import LocalStore, NotFound
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

    wave = 1

    def interrupt(self, error: StepError) -> None: ...

    def close(self) -> None: ...


def _rewrite(worker: Scripted, expert: Scripted, **settings: int) -> dict[str, object]:
    pieces = cut("d", TEXT, Chunking(), counter(None))
    (result,) = Rewriter(CONDUCT, Rewrite(**settings), worker, expert, 1.4).run(pieces)
    return document_row({"id": "d", "corpus": "c", "key": "k", "ordinal": 0, "text": TEXT}, [result], {})


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


def test_a_rejected_answer_is_kept_with_each_guard_that_it_broke() -> None:
    pieces = cut("d", TEXT, Chunking(), counter(None))
    worker = Scripted("w", "", TEXT[: len(TEXT) // 3])
    found = Rewriter(CONDUCT, Rewrite(max_retries=1), worker, Scripted("e"), 1.4).run(pieces)
    answers = list(rejected_answers({"id": "d", "corpus": "c", "key": "k"}, found))
    assert next((answer["guard"], answer["try"], answer["rewritten"]) for answer in answers) == ("Empty", 0, "")
    assert {(answer["guard"], answer["try"]) for answer in answers} >= {("LengthRatio", 1), ("WordLost", 1)}
    assert {answer["origin"] for answer in answers} == {TEXT}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1), st.integers(0, 9)), max_size=30), st.randoms())
def test_the_worst_answers_of_a_guard_are_kept_in_whatever_order_they_come(
    given_answers: list[tuple[str, float, int]], shuffled: Random
) -> None:
    answers = [
        {"guard": guard, "value": value, "limit": 0.5, "id": f"{number}", "chunk": n, "try": 0}
        for n, (guard, value, number) in enumerate(given_answers)
    ]
    one, another = Worst(), Worst()
    for answer in answers:
        one.add(answer)
    for answer in shuffled.sample(answers, len(answers)):
        another.add(answer)
    assert one.answers() == another.answers()
    for guard in "ab":
        kept = [abs(answer["value"] - 0.5) for answer in one.answers() if answer["guard"] == guard]
        assert kept == sorted((abs(a["value"] - 0.5) for a in answers if a["guard"] == guard), reverse=True)[:KEPT]


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


@pytest.mark.parametrize(
    "answer", ["", "تقول الحكاية إن السفينة أبحرت مساء نحو جزيرة بعيدة لا يسكنها أحد سوى طيور البحر البيضاء الصغيرة."]
)
def test_the_original_of_a_refused_chunk_never_stands_whatever_the_expert_says(answer: str) -> None:
    refusal = CONDUCT.forbidden_phrases.refusal[0]
    row = _rewrite(Scripted("w", refusal), Scripted("e", answer), max_retries=0)
    assert (row["chunks"][0]["state"], row["rewritten"]) == ("Dropped", "")


@given(st.integers(0, 10_000), st.floats(0, 99))
def test_identity_pairs_stay_within_their_share(changed: int, percent: float) -> None:
    allowed = identity_limit(changed, percent)
    assert allowed * 100 <= percent * (changed + allowed) + 1e-6 * (changed + allowed)


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.integers(1, 9), max_size=30), st.integers(0, 40), st.integers(0, 3))
def test_whole_documents_are_held_out_about_as_many_as_are_wanted(pairs: dict[str, int], wanted: int, seed: int) -> None:
    held = documents_to_hold_out(pairs, wanted, seed)
    total = sum(pairs[document] for document in held)
    assert total <= sum(pairs.values()) / 2
    assert total < wanted + max([*pairs.values(), 1])
    assert held == documents_to_hold_out(dict(reversed(pairs.items())), wanted, seed)


class Racing:
    """A shard; after `looks` looks another writer has committed it."""

    def __init__(self, folder: Path, looks: int) -> None:
        store, job = LocalStore(folder), SimpleNamespace(phase="rewrite")
        store.create("step/rewrite/shards/00000.json", b'{"facts": {}}')
        self.context = SimpleNamespace(store=store, job=job, prefix="step", phase_prefix="step/rewrite", index=0)
        self._looks = looks

    def committed(self) -> bool:
        self._looks -= 1
        return self._looks < 0


def test_a_writer_that_is_overtaken_while_it_reads_the_journal_ends_well(tmp_path: Path) -> None:
    def work() -> dict[str, object]:
        raise NotFound("step/rewrite/answers/00000/expert/w-000000.json", "the store")

    assert unless_overtaken(Racing(tmp_path, 1), work) == {"skipped": True}  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        unless_overtaken(Racing(tmp_path, 2), work)  # type: ignore[arg-type]


def test_pairs_are_counted_with_their_guards() -> None:
    row = {"accepted": True, "unchanged": False, "guards": []}
    facts = summarize(Counter(counted(row) + counted(row | {"accepted": False, "guards": ["NumberLost"]})))
    assert facts == {
        "pairs": 2,
        "accepted": 1,
        "unchanged": 0,
        "guards": {"NumberLost": 1},
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [("قصير جدا", "TooShort"), ("this page is written in English and about nothing at all", "Language"), (TEXT, "")],
)
def test_documents_are_filtered_with_a_reason(text: str, reason: str) -> None:
    assert clean_text(text, Clean()).reason == reason


@pytest.mark.parametrize(
    ("scripts", "text", "reason"),
    [
        (["Arab"], TEXT, ""),
        (["Cyrl", "Latn"], TEXT, "Script"),
        (["Arab"], f"{TEXT} and a few words more", ""),
        (["Arab"], "one two three four five ستة", "Script"),
        (["Latn", "Arab"], "one two three four five ستة", ""),
        (["Latn"], "1 2 3 4 5 6", "Script"),
    ],
)
def test_documents_of_other_scripts_are_filtered(scripts: list[Script], text: str, reason: str) -> None:
    assert clean_text(text, Clean(languages=[], scripts=scripts)).reason == reason


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
    asked = AlignGates(
        max_fallback_percent=25,
        min_number_preservation_percent=97,
        min_name_preservation_percent=99,
        max_toxicity_percent=5,
        min_judge_score=7,
    )
    facts = {
        "keptOfAll": {"numbers": {"mean": 0.98, "low": 0.96, "high": 0.99}, "names": None},
        "measures": {"toxicityAfter": {"mean": 0.06, "low": 0.05, "high": 0.07}},
        "judgeScore": {"mean": 7.5, "low": 7.25, "high": 7.75},
    }
    assert gates(asked, chunks, facts) == [
        {"gate": "maxFallbackPercent", "value": 30.0, "limit": 25.0, "passed": False},
        {"gate": "minNumberPreservationPercent", "value": 98.0, "low": 96.0, "high": 99.0, "limit": 97.0, "passed": True},
        {"gate": "minNamePreservationPercent", "value": 100.0, "limit": 99.0, "passed": True},
        {"gate": "maxToxicityPercent", "value": 6.0, "low": 5.0, "high": pytest.approx(7.0), "limit": 5.0, "passed": False},
        {"gate": "minJudgeScore", "value": 7.5, "low": 7.25, "high": 7.75, "limit": 7.0, "passed": True},
    ]


def test_a_gate_on_what_nobody_could_measure_does_not_pass() -> None:
    facts = {"keptOfAll": {"numbers": None, "names": None}, "measures": {}, "judgeScore": {"count": 0, "mean": None}}
    (verdict,) = gates(AlignGates(min_judge_score=1), {}, facts)
    assert verdict == {"gate": "minJudgeScore", "value": None, "limit": 1.0, "passed": False}


def test_numbers_that_are_lost_lower_the_preservation() -> None:
    rows = [{"origin": "في ٢٠٢٠ بيعت 15 نسخة", "rewritten": "في 2020 بيعت نسخ"}]
    (kept,) = preservation(rows, kept_items(rows, CONDUCT))["numbersKept"]
    assert kept == 0.5


def test_names_that_are_lost_lower_the_preservation() -> None:
    row = {"origin": "زار الوفد القاهرة ثم بغداد والتقى Google هناك", "rewritten": "زار الوفد القاهرة والتقى Google هناك"}
    assert preservation([row], kept_items([row], CONDUCT))["namesKept"] == [pytest.approx(2 / 3)]


def test_a_share_of_all_is_that_of_the_sums_with_an_interval_over_documents() -> None:
    found = share([(1, 1), (0, 3), (5, 6), (0, 0)], 1)
    assert found
    assert found["mean"] == 0.6
    assert 0 <= found["low"] < 0.6 < found["high"] <= 1
    assert share([(2, 2), (7, 7)], 1) == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert share([(0, 0)], 1) is None
    assert share([], 1) is None


def test_an_effect_is_that_of_pairs() -> None:
    before, after = [1.0, 2.0, 3.0, 4.0, float("nan")], [0.5, 1.0, 2.5, 5.0, 1.0]
    found = effect(before, after, 1)
    assert found
    differences = [-0.5, -1.0, -0.5, 1.0]
    assert found["pairs"] == 4
    assert found["difference"]["mean"] == pytest.approx(fmean(differences))
    assert found["difference"]["low"] <= found["difference"]["mean"] <= found["difference"]["high"]
    assert found["d"]["value"] == pytest.approx(fmean(differences) / stdev(differences))
    assert (found["lower"], found["higher"]) == (0.75, 0.25)


def test_an_effect_of_equal_differences_has_no_size() -> None:
    found = effect([1.0, 2.0], [2.0, 3.0], 1)
    assert found
    assert (found["difference"]["mean"], found["d"]["value"]) == (1.0, None)
    assert effect([1.0], [2.0], 1) is None


@given(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), min_size=2, max_size=30))
def test_a_judges_agreement_with_itself_is_the_weighted_kappa(pairs: list[tuple[int, int]]) -> None:
    """Against the textbook form: weighted observed over weighted expected frequencies."""
    first, second = ([float(score) for score in side] for side in zip(*pairs, strict=True))
    observed = sum((a - b) ** 2 for a, b in pairs) / len(pairs)
    expected = sum((a - b) ** 2 for a in first for b in second) / len(pairs) ** 2
    found = agreement(first, second, 1)
    assert found
    assert found["kappa"]["value"] == (pytest.approx(1 - observed / expected) if expected else None)
    assert found["within1"] == sum(abs(a - b) <= 1 for a, b in pairs) / len(pairs)


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
