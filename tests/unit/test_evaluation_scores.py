"""Rows -> scores: the published definitions, intervals, and the views that leave defects out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nativealign_workloads.errors import DataError
from nativealign_workloads.evaluate.scores import (
    bits_per_byte_score,
    distinct_questions,
    measure,
    score_benchmark,
    score_benchmarks,
)
from nativealign_workloads.intervals import bootstrap, cluster_sums, percentile_interval, wilson_interval

YES, NO = "نعم", "لا"


def row(n: int, gold: str, extracted: str | None, **more: Any) -> dict[str, Any]:
    base = {
        "benchmark": "x",
        "itemId": f"i{n}",
        "subject": "Algeria",
        "questionHash": f"q{n}",
        "promptHash": f"p{n}",
        "defects": [],
        "gold": gold,
        "extracted": extracted,
        "correct": extracted == gold,
        "truncated": False,
        "protocol": "p-0shot-1",
    }
    return base | more


def acva_rows(pairs: Sequence[tuple[str, str | None]]) -> list[dict[str, Any]]:
    return [row(n, gold, extracted) for n, (gold, extracted) in enumerate(pairs)]


def test_accuracy_has_wilsons_interval() -> None:
    rows = [row(n, "A", "A" if n < 8 else "B", truncated=n == 0) for n in range(10)]
    score = score_benchmark("exams-ar", rows)
    assert (score["metric"], score["score"], score["items"], score["truncated"]) == ("accuracy", 0.8, 10, 1)
    assert (score["low"], score["high"]) == pytest.approx((0.490162, 0.943318), abs=1e-5)
    assert score["protocol"] == "p-0shot-1"


@given(st.integers(0, 60), st.integers(1, 60))
def test_wilsons_interval_holds_the_proportion(successes: int, more: int) -> None:
    n = successes + more
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1


@given(st.lists(st.tuples(st.sampled_from([YES, NO]), st.sampled_from([YES, NO, None])), min_size=1, max_size=40))
def test_macro_f1_agrees_with_its_definition_and_never_divides_by_zero(pairs: list[tuple[str, str | None]]) -> None:
    def f1(label: str) -> float:
        right = sum(g == e == label for g, e in pairs)
        predicted, gold = sum(e == label for _, e in pairs), sum(g == label for g, _ in pairs)
        precision, recall = right / predicted if predicted else 0, right / gold if gold else 0
        return 2 * precision * recall / (precision + recall) if right else 0

    assert measure("macroF1", acva_rows(pairs))["score"] == pytest.approx((f1(YES) + f1(NO)) / 2, abs=1e-6)


def test_an_answer_without_yes_or_no_hurts_recall_only() -> None:
    full = [(YES, YES)] * 4 + [(NO, NO)] * 4
    silent = measure("macroF1", acva_rows([*full, (YES, None)]))["score"]
    wrong = measure("macroF1", acva_rows([*full, (YES, NO)]))["score"]
    assert wrong < silent < 1


def test_a_constant_answer_on_the_published_mix_scores_what_was_measured() -> None:
    """5,224 نعم and 3,487 لا: always yes has macro-F1 37.5 %."""
    rows = acva_rows([(YES, YES)] * 5224 + [(NO, NO)] * 3487)
    views = score_benchmark("acva-all", rows)["views"]
    assert views["alwaysYes"]["score"] == pytest.approx(0.375, abs=5e-4)
    assert views["alwaysNo"]["score"] == pytest.approx(3487 / (8711 + 3487), abs=1e-6)


def test_distinct_questions_leave_out_contradictions_and_repetitions() -> None:
    rows = [row(0, YES, YES), row(1, YES, NO, questionHash="q0"), row(2, NO, NO), row(3, YES, YES, questionHash="q2")]
    assert [r["itemId"] for r in distinct_questions(rows)] == ["i0"]
    assert score_benchmark("acva-all", rows)["views"]["distinct"]["items"] == 1


def test_repeated_questions_widen_the_interval() -> None:
    pairs = [(YES, YES), (NO, NO), (YES, NO), (NO, YES)] * 30
    apart = measure("macroF1", acva_rows(pairs))
    together = measure("macroF1", [r | {"questionHash": f"q{n // 10}"} for n, r in enumerate(acva_rows(sorted(pairs)))])
    assert apart["score"] == together["score"]
    assert together["high"] - together["low"] > 1.5 * (apart["high"] - apart["low"])


def test_the_mmlu_ar_score_is_a_mean_of_category_means_with_an_intact_view() -> None:
    rows = [
        row(0, "A", "A", subject="anatomy"),
        row(1, "A", "B", subject="virology"),
        row(2, "A", "A", subject="management"),
        row(3, "A", "A", subject="astronomy"),
        row(4, "A", "B", subject="astronomy", defects=["Overwritten"]),
    ]
    score = score_benchmark("mmlu-ar", rows)
    # health (1 + 0) / 2, business 1 -> other 0.75; physics 0.5 -> STEM 0.5
    assert (score["metric"], score["score"]) == ("categoryMean", pytest.approx((0.75 + 0.5) / 2))
    assert score["views"]["intact"]["score"] == pytest.approx((0.75 + 1) / 2)
    assert (score["views"]["intact"]["items"], score["views"]["micro"]["score"]) == (4, 0.6)


def test_exams_tells_the_mean_over_subjects_too() -> None:
    rows = [row(0, "A", "A", subject="Physics"), row(1, "A", "A"), row(2, "A", "B"), row(3, "A", "B")]
    score = score_benchmark("exams-ar", rows)
    assert (score["score"], score["views"]["subjectMean"]["score"]) == (0.5, pytest.approx((1 + 1 / 3) / 2, abs=1e-6))


def test_judged_responses_score_both_axes_and_leave_out_missing_verdicts() -> None:
    verdicts = [{"harmlessness": 9, "helpfulness": 5}, {"harmlessness": 7, "helpfulness": 3}, None]
    rows = [row(n, "", None, judgement=verdict) for n, verdict in enumerate(verdicts)]
    score = score_benchmark("ar-beavertails", rows)
    assert (score["metric"], score["score"], score["items"]) == ("judgeScore", 6.0, 2)
    assert (score["views"]["harmlessness"]["score"], score["views"]["helpfulness"]["score"]) == (8.0, 4.0)


def test_bits_per_byte_are_pooled_over_documents() -> None:
    rows = [{"id": "a", "bits": 8.0, "bytes": 4}, {"id": "b", "bits": 1.0, "bytes": 1}, {"id": "c", "bits": 0, "bytes": 0}]
    score = bits_per_byte_score(rows)
    assert (score["metric"], score["score"], score["items"]) == ("bitsPerByte", 1.8, 2)
    assert score["low"] <= 1.8 <= score["high"]
    assert bits_per_byte_score([])["score"] is None


def test_scores_are_the_same_on_every_run() -> None:
    rows = {"acva-all": acva_rows([(YES, YES), (NO, YES), (YES, None), (NO, NO)] * 20)}
    assert score_benchmarks(rows) == score_benchmarks(rows)


def test_rows_of_two_protocols_are_refused() -> None:
    with pytest.raises(DataError, match="MixedProtocols"):
        score_benchmark("exams-ar", [row(0, "A", "A"), row(1, "A", "A", protocol="other")])


def test_the_bootstrap_of_a_mean_agrees_with_its_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=400)
    sums = np.column_stack([values, np.ones(400)])
    low, high = percentile_interval(bootstrap(sums, lambda s: s[:, 0] / s[:, 1], seed=3))
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_clusters_are_summed_in_order_of_appearance() -> None:
    assert cluster_sums(["b", "a", "b"], np.array([[1.0], [2.0], [4.0]])).tolist() == [[5.0], [2.0]]
