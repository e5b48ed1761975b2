"""Benchmark files -> items: what is accepted, what is refused and how the refusal reads."""

import json
from pathlib import Path

import pytest

from nativealign_workloads.errors import DataError, NoInputError, UsageError
from nativealign_workloads.evaluate import loaders, subjects
from nativealign_workloads.evaluate.benchmarks import BENCHMARKS, BenchmarkRequest, check_data, load, shots_of

ARABICMMLU_HEADER = (
    "ID,Source,Country,Group,Subject,Level,Question,Context,Answer Key,Option 1,Option 2,Option 3,Option 4,Option 5,is_few_shot\n"
)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def jsonl(path: Path, *rows: object) -> Path:
    return write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def acva(folder: Path, tests: list[tuple[str, str, str]], dev: list[tuple[str, str, str]]) -> Path:
    for split, rows in (("test", tests), ("dev", dev)):
        named = [{"id": i, "question": q, "answer": a} for i, q, a in rows]
        jsonl(folder / f"difficulty-easy-TF_{split}.jsonl", *named)
    return folder


def test_arabicmmlu_separates_few_shot_rows_and_counts_options(tmp_path: Path) -> None:
    rows = (
        '0,u,Egypt,STEM,Physics,High,"سطر\nسطر",,B,واحد,اثنان,,,,0\n'
        "1,u,,Other,Driving Test,,سؤال,سياق,E,أ,ب,ج,د,هـ,0\n"
        "2,u,,STEM,Physics,High,مثال,,A,س,ص,ع,ل,,1\n"
    )
    write(tmp_path / "ArabicMMLU.csv", ARABICMMLU_HEADER + rows)
    data = loaders.load_arabicmmlu(tmp_path)
    assert [(i.id, i.subject, i.gold, len(i.choices)) for i in data.items] == [
        ("0", "Physics (High School)", "B", 2),
        ("1", "Driving Test", "E", 5),
    ]
    assert [i.id for i in data.shots["Physics (High School)"]] == ["2"]


@pytest.mark.parametrize(
    ("row", "line", "problem"),
    [
        ("1,u,,STEM,Physics,High,س,,C,واحد,اثنان,,,,0\n", 3, "the answer is 'C', expected one of A, B"),
        ("1,u,,STEM,Physics,Highest,س,,A,واحد,اثنان,,,,0\n", 3, "Level is 'Highest'"),
        ("1,u,,STEM,Physics,High,س,,A,واحد,اثنان,,,,\n", 3, "is_few_shot is ''"),
        ("1,u,,STEM\n", 3, "4 columns, the header has 15"),
    ],
)
def test_a_malformed_arabicmmlu_row_is_named_by_file_and_line(tmp_path: Path, row: str, line: int, problem: str) -> None:
    good = "0,u,,STEM,Physics,High,س,,A,واحد,اثنان,,,,0\n"
    path = write(tmp_path / "ArabicMMLU.csv", ARABICMMLU_HEADER + good + row)
    with pytest.raises(DataError, match="BadBenchmarkRow") as refused:
        loaders.load_arabicmmlu(tmp_path)
    assert f"{path}:{line}: {problem}" in refused.value.message


def test_a_csv_without_its_columns_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "ArabicMMLU.csv", "ID,Question\n1,س\n")
    with pytest.raises(DataError, match="the header lacks Country, Group"):
        loaders.load_arabicmmlu(tmp_path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": "Physics-1"', "no JSON"),
        ('{"id": "Chess-1", "question": "س", "answer": "A"}', "names no known subject"),
        ('{"id": "Physics-1", "question": "س", "A": "1", "B": "2", "C": "3", "answer": "A"}', "field 'D' is missing"),
        ('["Physics-1"]', "no JSON object"),
    ],
)
def test_a_malformed_exams_row_is_named_by_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    good = {"id": "Physics-0", "question": "س", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "A"}
    path = jsonl(tmp_path / "exam_test.jsonl", good)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    jsonl(tmp_path / "exam_dev.jsonl", good)
    with pytest.raises(DataError) as refused:
        loaders.load_exams(tmp_path)
    assert f"{path}:2:" in refused.value.message
    assert problem in refused.value.message


def test_text_that_is_not_utf_8_is_named_by_line(tmp_path: Path) -> None:
    path = acva(tmp_path, [("Algeria-0", "س", "نعم")], []) / "difficulty-easy-TF_test.jsonl"
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n")
    with pytest.raises(DataError, match=r"TF_test\.jsonl:2: not UTF-8"):
        loaders.load_acva(tmp_path)


def test_a_line_separator_inside_a_question_does_not_split_it(tmp_path: Path) -> None:
    acva(tmp_path, [("Algeria-0", "أول\u2028ثان", "نعم")], [])
    assert [i.question for i in loaders.load_acva(tmp_path).items] == ["أول\u2028ثان"]


def test_acva_examples_that_are_also_asked_are_left_out(tmp_path: Path) -> None:
    acva(
        tmp_path,
        [("Algeria-0", "الجزائر  في آسيا.", "لا")],
        [("Algeria-9", "الجزائر في آسيا.", "لا"), ("Algeria-8", "الجزائر في إفريقيا.", "نعم")],
    )
    assert [i.id for i in loaders.load_acva(tmp_path).shots["Algeria"]] == ["Algeria-8"]


@pytest.mark.parametrize(("written", "gold"), [("ا", "أ"), ("إ", "أ"), ("أ ", "أ"), (" ب\u200f", "ب"), ("ج", "ج")])
def test_aratrust_golds_are_read_in_every_spelling(tmp_path: Path, written: str, gold: str) -> None:
    row = {"Category": "", "Question": "س\n", "A": "أ) ١", "B": " ب) ٢", "C": " ج) ٣", "Answer": written}
    jsonl(tmp_path / "AraTrust.jsonl", row)
    (item,) = loaders.load_aratrust(tmp_path).items
    assert (item.gold, item.subject, item.choices) == (gold, "Uncategorised", ("أ) ١", " ب) ٢", " ج) ٣"))


def test_aratrust_may_be_csv(tmp_path: Path) -> None:
    write(tmp_path / "AraTrust.csv", "Category,Question,A,B,C,Answer\nEthics,س,أ) ١,ب) ٢,ج) ٣,ب\n")
    assert [i.gold for i in loaders.load_aratrust(tmp_path).items] == ["ب"]


def test_the_overwritten_question_is_known_by_its_options() -> None:
    assert loaders.is_overwritten(["نظام IDS", "مقارنة قيم TTL", "تنفيذ جدار حماية", "جلسات TCP"])
    assert loaders.is_overwritten(["نظام كشف", "مقارنة قيم العمر", "تنفيذ جدار ناري", "تحديد جلسات TCP"])
    assert not loaders.is_overwritten(["مسح SYN", "اتصال TCP", "مسح XMAS", "مسح ACK"])


def test_repeated_ids_stay_apart(tmp_path: Path) -> None:
    acva(tmp_path, [("Algeria-0", "س", "نعم"), ("Algeria-0", "ص", "لا")], [])
    assert [i.id for i in loaders.load_acva(tmp_path).items] == ["Algeria-0", "Algeria-0#2"]


def test_the_id_list_keeps_what_it_names_and_refuses_what_does_not_exist(tmp_path: Path) -> None:
    acva(tmp_path / "ArabicCulture", [("Algeria-0", "س", "نعم"), ("Egypt modern-1", "ص", "لا")], [("Qatar-1", "ع", "لا")])
    ids = write(tmp_path / "ids.txt", "# verified\n\nEgypt modern-1\n")
    kept = load(BenchmarkRequest("acva-clean", id_list=ids), tmp_path)
    assert [i.id for i in kept.items] == ["Egypt modern-1"]
    ids.write_text("Egypt modern-1\nEgypt modern-7\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"ids\.txt:2: the benchmark has no item 'Egypt modern-7'"):
        load(BenchmarkRequest("acva-clean", id_list=ids), tmp_path)


def test_acva_clean_asks_for_its_id_list(tmp_path: Path) -> None:
    acva(tmp_path / "ArabicCulture", [("Algeria-0", "س", "نعم")], [("Algeria-1", "ص", "لا")])
    with pytest.raises(UsageError, match="IdListRequired"):
        load(BenchmarkRequest("acva-clean"), tmp_path)


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_an_empty_data_folder_is_refused_naming_the_first_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(NoInputError, match="BenchmarkFileMissing") as refused:
        check_data(BenchmarkRequest(name), tmp_path)
    assert BENCHMARKS[name].files[0][0] in refused.value.message


def test_a_missing_mmlu_subject_is_refused(tmp_path: Path) -> None:
    for split in ("test", "dev"):
        for subject in subjects.MMLU:
            write(tmp_path / "MMLU" / loaders.mmlu_file(subject, split), "Q,1,2,3,4,A\n")
    assert len(load(BenchmarkRequest("mmlu"), tmp_path).items) == 57
    (tmp_path / "MMLU" / "dev" / "virology_dev.csv").unlink()
    with pytest.raises(NoInputError, match="virology_dev"):
        check_data(BenchmarkRequest("mmlu"), tmp_path)


def test_a_benchmarks_own_folder_may_be_given_directly(tmp_path: Path) -> None:
    acva(tmp_path, [("Algeria-0", "س", "نعم")], [("Algeria-1", "ص", "لا")])
    assert len(load(BenchmarkRequest("acva-all", data_dir=tmp_path), tmp_path / "elsewhere").items) == 1


@pytest.mark.parametrize(("name", "shots"), [("exams-ar", 6), ("aratrust", 1), ("exams-ar", -1), ("arabicmmlu", 4)])
def test_shots_that_the_protocol_does_not_have_are_refused(name: str, shots: int) -> None:
    with pytest.raises(UsageError, match="TooManyShots"):
        shots_of(BenchmarkRequest(name, few_shot=shots))


def test_an_unknown_benchmark_is_refused_with_the_known_names() -> None:
    with pytest.raises(UsageError, match="one of arabicmmlu, exams-ar"):
        shots_of(BenchmarkRequest("exams"))
