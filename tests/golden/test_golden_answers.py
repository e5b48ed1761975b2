"""The extraction rules against answers of our own (always) and published ones (where they are at hand)."""

import gzip
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from nativealign_workloads.evaluate import subjects
from nativealign_workloads.evaluate.benchmarks import BenchmarkRequest
from nativealign_workloads.evaluate.protocols import extract_letters, extract_yes_no
from nativealign_workloads.evaluate.scores import category_mean
from nativealign_workloads.evaluate.tasks import plan

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared" / "data"
RULES = {"letters": extract_letters, "yesNo": extract_yes_no}
OURS = [json.loads(line) for line in (HERE / "answers.jsonl").read_text(encoding="utf-8").split("\n") if line]
PUBLISHED = sorted((SHARED / "golden").glob("*.jsonl.gz"))


def shared(folder: str) -> Path:
    if not (SHARED / folder).is_dir():
        pytest.skip("no shared data")
    return SHARED / folder


def published_rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("row", OURS, ids=[f"{row['rule']}-{n}" for n, row in enumerate(OURS)])
def test_every_answer_of_our_own_is_read_as_expected(row: dict[str, str]) -> None:
    assert RULES[row["rule"]](row["response"]) == row["extracted"]


def test_our_own_answers_are_some_hundred() -> None:
    assert len(OURS) >= 150


def test_every_published_answer_is_extracted_to_the_letter() -> None:
    shared("golden")
    assert PUBLISHED
    for path in PUBLISHED:
        wrong = [row for row in published_rows(path) if extract_letters(row["response"]) != row["extracted"]]
        assert not wrong, f"{path.name}: {wrong[:3]}"


def test_published_averages_come_out_to_the_digit() -> None:
    """Accuracy of every subject at hand, and the averages of groups that are wholly at hand."""
    shared("golden")
    for path in PUBLISHED:
        right: dict[str, list[bool]] = defaultdict(list)
        for row in published_rows(path):
            right[row["subject"]].append(extract_letters(row["response"]) == row["gold"])
        expected = json.loads(path.with_name(path.name.replace(".jsonl.gz", ".metrics.json")).read_text())
        for category in expected.values():
            for name, group in category.items():
                for subject in set(group) - {"average", "overall"}:
                    assert subject not in right or np.mean(right[subject]) == group[subject]["Accuracy"]
                members = subjects.MMLU_GROUPS[name]
                if all(member in right for member in members):
                    assert np.mean([np.mean(right[m]) for m in members]) == group["average"]["Accuracy"]


def test_the_published_category_mean_comes_out() -> None:
    """Our category mean over the published subject accuracies equals the mean of the published group averages."""
    shared("golden")
    for path in PUBLISHED:
        expected = json.loads(path.with_name(path.name.replace(".jsonl.gz", ".metrics.json")).read_text())
        groups = {name: group for category in expected.values() for name, group in category.items()}
        accuracy = {s: groups[g][s]["Accuracy"] for g, members in subjects.MMLU_GROUPS.items() for s in members}
        names = sorted(accuracy)
        sums = np.array([[value for name in names for value in (accuracy[name], 1.0)]])
        means = [fmean(group["average"]["Accuracy"] for group in category.values()) for category in expected.values()]
        assert category_mean(sums, names)[0] == pytest.approx(fmean(means), abs=1e-15)
        if path.name.startswith("AceGPT_13B_base"):
            assert round(100 * category_mean(sums, names)[0], 2) == 40.45, "printed in the model card"


@pytest.mark.parametrize(("name", "items", "damaged"), [("exams-ar", 537, 0), ("acva-all", 8711, 0), ("mmlu-ar", 14042, 1587)])
def test_a_published_benchmark_is_read_and_asked_in_full(name: str, items: int, damaged: int) -> None:
    planned = plan(BenchmarkRequest(name), shared("benchmarks"))
    assert len(planned.questions) == items
    assert len({question.item.id for question in planned.questions}) == items
    assert sum(bool(question.item.defects) for question in planned.questions) == damaged


def test_a_published_model_guesses_at_the_overwritten_questions_only() -> None:
    """AceGPT-13B is at chance there; were intact questions among them, or the reverse, the two would draw together."""
    items = {q.item.id: q.item for q in plan(BenchmarkRequest("mmlu-ar"), shared("benchmarks")).questions}
    right: dict[bool, list[bool]] = defaultdict(list)
    for row in published_rows(shared("golden") / "AceGPT_13B_base.jsonl.gz"):
        item = items[f"{row['subject']}-{row['query_id']}"]
        assert item.gold == row["gold"]
        right[bool(item.defects)].append(extract_letters(row["response"]) == row["gold"])
    assert np.mean(right[True]) == pytest.approx(0.25, abs=0.03)
    assert np.mean(right[False]) > 0.4
