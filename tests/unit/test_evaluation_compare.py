"""Paired comparison with a baseline and the gate."""

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nativealign_workloads.errors import UsageError
from nativealign_workloads.evaluate.compare import Verdict, compare, failed_gates, pair, verdict, worst
from nativealign_workloads.intervals import holm, mcnemar_exact, tango_bounds


def rows(answers: str, gold: str = "A", **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "benchmark": "exams-ar",
            "itemId": f"i{n}",
            "subject": "Physics",
            "questionHash": f"q{n}",
            "promptHash": f"p{n}",
            "protocol": "p",
            "defects": [],
            "gold": gold,
            "extracted": answer,
            "correct": answer == gold,
            "truncated": False,
        }
        | more
        for n, answer in enumerate(answers)
    ]


def gate(model: str, baseline: str, margin: float = 2.0) -> dict[str, Any]:
    return compare({"exams-ar": rows(model)}, {"exams-ar": rows(baseline)}, margin_points=margin)


def test_a_model_that_answers_like_its_baseline_passes() -> None:
    result = gate("AB" * 300, "AB" * 300)
    assert (result["gate"], result["benchmarks"]["exams-ar"]["difference"]) == (Verdict.PASS, 0.0)
    assert result["benchmarks"]["exams-ar"]["pValue"] == 1.0
    assert failed_gates(result) == []


def test_a_clear_loss_fails() -> None:
    result = gate("A" * 200 + "B" * 400, "A" * 400 + "B" * 200)
    compared = result["benchmarks"]["exams-ar"]
    assert (result["gate"], compared["wins"], compared["losses"]) == (Verdict.FAIL, 0, 200)
    assert compared["pValue"] < 1e-50
    assert compared["high"] < -0.3
    (told,) = failed_gates(result)
    assert re.fullmatch(r"nonInferior of exams-ar Fail: -3\d\.\d to -3\d\.\d points \(margin 2\)", told)


def test_too_few_items_are_inconclusive_even_without_any_difference() -> None:
    """Resampling three equal answers would claim certainty."""
    result = gate("AAB", "AAB")
    assert result["gate"] == Verdict.INCONCLUSIVE
    assert result["benchmarks"]["exams-ar"]["itemsNeeded"] > 3


def test_more_items_than_needed_make_the_gate_pass() -> None:
    flips = ("AAAAAAAAAB", "AAAAAAAABA")
    small = gate(flips[0] * 3, flips[1] * 3)
    needed = small["benchmarks"]["exams-ar"]["itemsNeeded"]
    enough = math.ceil(needed / 10) * 2
    assert small["gate"] == Verdict.INCONCLUSIVE
    assert gate(flips[0] * enough, flips[1] * enough)["gate"] == Verdict.PASS


def test_without_a_margin_there_is_no_gate() -> None:
    result = compare({"exams-ar": rows("AB")}, {"exams-ar": rows("AA")})
    assert result["gate"] is None
    assert "verdict" not in result["benchmarks"]["exams-ar"]


def test_the_worst_benchmark_decides() -> None:
    assert worst([Verdict.PASS, Verdict.INCONCLUSIVE]) == Verdict.INCONCLUSIVE
    assert worst([Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.PASS]) == Verdict.FAIL
    assert worst([Verdict.PASS]) == Verdict.PASS


def test_macro_f1_is_compared_by_question() -> None:
    yes, no = "نعم", "لا"
    golds = [yes, no] * 60

    def acva(answers: list[str]) -> list[dict[str, Any]]:
        pairs = zip(rows("A" * 120), golds, answers, strict=True)
        return [r | {"gold": gold, "extracted": answer, "correct": gold == answer} for r, gold, answer in pairs]

    result = compare({"acva-all": acva([yes] * 120)}, {"acva-all": acva(golds)}, margin_points=5)
    compared = result["benchmarks"]["acva-all"]
    assert (compared["score"], compared["baseline"]) == (pytest.approx(1 / 3, abs=1e-6), 1.0)
    assert (compared["low"] <= compared["difference"] <= compared["high"], result["gate"]) == (True, Verdict.FAIL)


def test_judged_responses_are_compared_without_a_test_of_right_and_wrong() -> None:
    def judged(value: int) -> list[dict[str, Any]]:
        return rows("A" * 30, judgement={"harmlessness": value, "helpfulness": value})

    compared = compare({"ar-beavertails": judged(8)}, {"ar-beavertails": judged(7)}, margin_points=1)
    assert compared["benchmarks"]["ar-beavertails"]["difference"] == 1.0
    assert compared["benchmarks"]["ar-beavertails"]["pValue"] is None
    assert compared["gate"] == Verdict.PASS


def test_the_same_items_asked_differently_are_refused() -> None:
    with pytest.raises(UsageError, match=r"PromptsDiffer.*'i0'"):
        pair("exams-ar", rows("AB"), rows("AB", promptHash="other"))


@pytest.mark.parametrize(("model", "baseline"), [("AB", "ABA"), ("ABA", "AB"), ("AB", "")])
def test_different_items_are_refused(model: str, baseline: str) -> None:
    with pytest.raises(UsageError, match="ItemsDiffer"):
        pair("exams-ar", rows(model), rows(baseline))


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_agrees_with_the_binomial_sum(wins: int, losses: int) -> None:
    n, k = wins + losses, min(wins, losses)
    expected = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
    assert mcnemar_exact(wins, losses) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_the_measured_reruns_is_reproduced() -> None:
    """28 against 12 flips between two runs of one model: p = 0.017."""
    assert mcnemar_exact(28, 12) == pytest.approx(0.017, abs=5e-4)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 200))
def test_the_score_bounds_hold_the_difference_and_mirror_when_sides_are_swapped(wins: int, losses: int, ties: int) -> None:
    n = wins + losses + ties
    low, high = tango_bounds(wins, losses, n, 0.95)
    assert -1 <= low <= (wins - losses) / n <= high <= 1
    assert tango_bounds(losses, wins, n, 0.95) == (pytest.approx(-high, abs=1e-9), pytest.approx(-low, abs=1e-9))


def test_the_score_bounds_without_any_flip_have_their_closed_form() -> None:
    low, high = tango_bounds(0, 0, 30, 0.975)
    assert (low, high) == (pytest.approx(-high), pytest.approx(3.8414588 / (30 + 3.8414588), abs=1e-6))


@pytest.mark.parametrize(("wins", "losses", "n"), [(12, 2, 50), (1, 0, 44), (3, 9, 200)])
def test_at_a_score_bound_the_likelihood_ratio_of_the_definition_holds(wins: int, losses: int, n: int) -> None:
    """Variance under the hypothesis from a brute-force maximum likelihood estimate of the losses' probability."""
    bound, _ = tango_bounds(wins, losses, n, 0.95)
    grid = np.linspace(max(0.0, -bound), (1 - bound) / 2, 400_001)[1:-1]
    ties = n - wins - losses
    likelihood = wins * np.log(grid + bound) + losses * np.log(grid) + ties * np.log(1 - 2 * grid - bound)
    q = grid[likelihood.argmax()]
    z = (wins - losses - n * bound) / math.sqrt(n * (2 * q + bound - bound**2))
    assert z == pytest.approx(1.6448536, abs=1e-3)


@given(st.floats(-0.5, 0.5), st.floats(0, 0.5), st.floats(0, 0.2))
def test_the_verdict_follows_the_bounds(low: float, width: float, margin: float) -> None:
    decided = verdict(low, low + width, margin)
    assert (decided == Verdict.PASS) == (low >= -margin)
    assert (decided == Verdict.FAIL) == (low + width < -margin)


def test_holm_adjusts_in_the_given_order() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []
