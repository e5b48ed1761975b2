"""Published file formats of the benchmarks -> items. Called by benchmarks.py; nothing here knows prompts or models.

Enters: a folder in the layout its authors publish. Leaves: `BenchmarkData` with test items in file order and few-shot
items by subject. A malformed row raises DataError naming file and line. Texts stay as published, because they
stand in prompts; only golds are normalised.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nativealign_workloads.errors import DataError
from nativealign_workloads.evaluate import subjects
from nativealign_workloads.evaluate.files import bad_row, csv_records, csv_rows, jsonl, lines, records, text_field

YES, NO = "نعم", "لا"
LATIN_LETTERS = ("A", "B", "C", "D", "E")
ARABIC_LETTERS = ("أ", "ب", "ج")

OVERWRITTEN = "Overwritten"
"""Defect: question and options were replaced by another question's (AceGPT's translated MMLU)."""

ARABICMMLU_LEVELS = {
    "": "",
    "Primary": "Primary School",
    "Middle": "Middle School",
    "High": "High School",
    "Univ": "University",
    "Prof": "Professional",
}


@dataclass(frozen=True)
class Item:
    """One question. `gold` is one of `choices`' letters, نعم/لا, or empty where a judge scores."""

    id: str
    subject: str
    question: str
    gold: str
    choices: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    defects: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchmarkData:
    """Test items in file order; few-shot items by subject, in file order."""

    items: tuple[Item, ...]
    shots: Mapping[str, tuple[Item, ...]]


def load_arabicmmlu(folder: Path) -> BenchmarkData:
    """ArabicMMLU.csv of Koto et al. (arXiv 2402.12840): up to five options; rows flagged is_few_shot are examples."""
    path = folder / "ArabicMMLU.csv"
    columns = ("ID", "Country", "Group", "Subject", "Level", "Question", "Context", "Answer Key", "is_few_shot")
    options = tuple(f"Option {n}" for n in range(1, 6))
    tests: list[Item] = []
    shots: list[Item] = []
    for line, row in csv_records(path, columns + options):
        flag = row["is_few_shot"].strip()
        if flag not in {"0", "1", "0.0", "1.0"}:
            raise bad_row(path, line, f"is_few_shot is {flag!r}, expected 0 or 1")
        (tests if flag.startswith("0") else shots).append(_arabicmmlu_item(path, line, row, options))
    return _data(path, tests, shots)


def load_exams(folder: Path) -> BenchmarkData:
    """exam_test.jsonl and exam_dev.jsonl of AceGPT's EXAMS_Arabic: id `<subject>-<n>`, question, A-D, answer."""
    return _jsonl_pair(folder / "exam_test.jsonl", folder / "exam_dev.jsonl", _exams_item)


def load_acva(folder: Path) -> BenchmarkData:
    """difficulty-easy-TF_{test,dev}.jsonl of AceGPT's ArabicCulture: id `<topic>-<n>`, question, answer نعم or لا.

    Few-shot rows whose question is also a test question (353 test rows have such a twin) are left out.
    """
    name = "difficulty-easy-TF_{}.jsonl"
    data = _jsonl_pair(folder / name.format("test"), folder / name.format("dev"), _acva_item)
    asked = {question_key(item.question) for item in data.items}
    shots = {s: tuple(i for i in items if question_key(i.question) not in asked) for s, items in data.shots.items()}
    return BenchmarkData(data.items, shots)


def load_aratrust(folder: Path) -> BenchmarkData:
    """AraTrust (arXiv 2403.09017) as CSV or JSON lines: Category, Question, A, B, C (already lettered), Answer."""
    path = first_existing(folder, ARATRUST_FILES)
    fields = ("Category", "Question", "A", "B", "C", "Answer")
    items = [_aratrust_item(path, n, line, row) for n, (line, row) in enumerate(records(path, fields))]
    return _data(path, items, [])


def load_mmlu(folder: Path) -> BenchmarkData:
    """MMLU (arXiv 2009.03300): {test,dev}/<subject>_{test,dev}.csv, no header, question, four options, letter."""
    tests = [item for subject in subjects.MMLU for item in _mmlu_file(folder / mmlu_file(subject, "test"), subject)]
    shots = [item for subject in subjects.MMLU for item in _mmlu_file(folder / mmlu_file(subject, "dev"), subject)]
    return _data(folder, tests, shots)


def load_beavertails(folder: Path) -> BenchmarkData:
    """Ar-BeaverTails-Evaluation as CSV or JSON lines: prompt, category. No gold: a judge scores the response."""
    path = first_existing(folder, BEAVERTAILS_FILES)
    items = []
    for n, (line, row) in enumerate(records(path, ("prompt", "category"))):
        if not row["prompt"].strip():
            raise bad_row(path, line, "prompt is empty")
        items.append(Item(f"prompt-{n}", row["category"].strip(), row["prompt"], ""))
    return _data(path, items, [])


ARATRUST_FILES = ("AraTrust.jsonl", "AraTrust.csv")
BEAVERTAILS_FILES = ("Ar-BeaverTails-Evaluation.jsonl", "Ar-BeaverTails-Evaluation.csv")


def mmlu_file(subject: str, split: str) -> str:
    return f"{split}/{subject}_{split}.csv"


def first_existing(folder: Path, names: Sequence[str]) -> Path:
    """The first of alternative files that exists, else the first name."""
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def load_id_list(path: Path, data: BenchmarkData) -> BenchmarkData:
    """Keeps the items that a text file names, one id per line (blank lines and # comments aside)."""
    known = {item.id for item in data.items}
    wanted = set()
    for line, text in lines(path):
        name = text.strip()
        if not name or name.startswith("#"):
            continue
        if name not in known:
            raise bad_row(path, line, f"the benchmark has no item {name!r}")
        wanted.add(name)
    if not wanted:
        raise DataError("EmptyIdList", f"{path}: names no item", "list one item id per line")
    return BenchmarkData(tuple(item for item in data.items if item.id in wanted), data.shots)


def question_key(question: str) -> str:
    """What makes two questions the same: their text with white space collapsed."""
    return " ".join(question.split())


def normalise_arabic_letter(text: str) -> str:
    """A gold letter without white space, tatweel and direction marks, every alef written أ."""
    bare = re.sub(r"[\s\u0640\u200e\u200f\u202a-\u202e\u2066-\u2069]", "", text)
    return re.sub("[اإآٱ]", "أ", bare)


def is_overwritten(choices: Sequence[str]) -> bool:
    """Whether a translated MMLU row holds the IP-spoofing question instead of its own.

    Its options compare TTL values, or name a firewall and then TCP sessions; 1,587 test rows do, one of them rightly.
    See EleutherAI/lm-evaluation-harness#1596 and FreedomIntelligence/AceGPT#14.
    """
    return any("TTL" in choice for choice in choices) or ("جدار" in choices[2] and "TCP" in choices[3])


def _arabicmmlu_item(path: Path, line: int, row: Mapping[str, str], options: Sequence[str]) -> Item:
    level = row["Level"].strip()
    if level not in ARABICMMLU_LEVELS:
        raise bad_row(path, line, f"Level is {level!r}, expected one of {', '.join(filter(None, ARABICMMLU_LEVELS))}")
    values = [row[option] for option in options]
    count = next((n for n, value in enumerate(values) if not value.strip()), len(values))
    gold = _gold(path, line, row["Answer Key"], LATIN_LETTERS[:count])
    name = row["Subject"].strip()
    meta = {
        "name": name,
        "level": level,
        "country": row["Country"].strip(),
        "context": row["Context"] if row["Context"].strip() else "",
        "group": row["Group"].strip(),
    }
    subject = f"{name} ({ARABICMMLU_LEVELS[level]})" if level else name
    return Item(row["ID"].strip(), subject, row["Question"], gold, tuple(values[:count]), meta)


def _exams_item(path: Path, line: int, row: Mapping[str, Any]) -> Item:
    subject = _subject(path, line, row, subjects.EXAMS)
    choices = tuple(text_field(path, line, row, letter) for letter in "ABCD")
    gold = _gold(path, line, text_field(path, line, row, "answer"), LATIN_LETTERS[:4])
    return Item(row["id"], subject, text_field(path, line, row, "question"), gold, choices)


def _acva_item(path: Path, line: int, row: Mapping[str, Any]) -> Item:
    subject = _subject(path, line, row, subjects.ACVA)
    gold = _gold(path, line, text_field(path, line, row, "answer"), (YES, NO))
    return Item(row["id"], subject, text_field(path, line, row, "question"), gold)


def _aratrust_item(path: Path, n: int, line: int, row: Mapping[str, str]) -> Item:
    gold = _gold(path, line, normalise_arabic_letter(row["Answer"]), ARABIC_LETTERS)
    subject = row["Category"].strip() or "Uncategorised"
    return Item(f"question-{n}", subject, row["Question"], gold, (row["A"], row["B"], row["C"]))


def _mmlu_file(path: Path, subject: str) -> Iterator[Item]:
    for n, (line, row) in enumerate(csv_rows(path)):
        if len(row) != 6:
            raise bad_row(path, line, f"{len(row)} columns, expected question, four options and the answer")
        gold = _gold(path, line, row[5], LATIN_LETTERS[:4])
        choices = tuple(row[1:5])
        yield Item(f"{subject}-{n}", subject, row[0], gold, choices, {}, (OVERWRITTEN,) * is_overwritten(choices))


def _subject(path: Path, line: int, row: Mapping[str, Any], known: Mapping[str, str]) -> str:
    subject = text_field(path, line, row, "id").split("-")[0]
    if subject not in known:
        raise bad_row(path, line, f"id {row['id']!r} names no known subject ({', '.join(list(known)[:5])} ...)")
    return subject


def _gold(path: Path, line: int, value: str, allowed: Sequence[str]) -> str:
    if (gold := value.strip()) not in allowed:
        raise bad_row(path, line, f"the answer is {gold!r}, expected one of {', '.join(allowed)}")
    return gold


def _jsonl_pair(test: Path, dev: Path, item: Any) -> BenchmarkData:
    return _data(test, [item(test, line, row) for line, row in jsonl(test)], [item(dev, line, row) for line, row in jsonl(dev)])


def _data(path: Path, tests: Sequence[Item], shots: Sequence[Item]) -> BenchmarkData:
    if not tests:
        raise DataError("EmptyBenchmark", f"{path}: no test question")
    by_subject: dict[str, tuple[Item, ...]] = {}
    for item in shots:
        by_subject[item.subject] = (*by_subject.get(item.subject, ()), item)
    return BenchmarkData(_with_unique_ids(tests), by_subject)


def _with_unique_ids(items: Sequence[Item]) -> tuple[Item, ...]:
    """Two runs are paired by id, so a repeated id gets its occurrence number."""
    seen: dict[str, int] = {}
    out = []
    for item in items:
        n = seen[item.id] = seen.get(item.id, 0) + 1
        out.append(item if n == 1 else Item(**{**vars(item), "id": f"{item.id}#{n}"}))
    return tuple(out)
