"""Benchmarks are kept out of a corpus, as it is read and as it is rewritten. Real phases, the quickstart's benchmark files."""

import json
import shutil
from pathlib import Path

import pytest
from tests.workloads.desk import ALIGN, DOCUMENTS, jsonl, texts
from tests.workloads.pipeline import QUICKSTART, rows, run_job_here, tally

from nativealign_workloads.errors import DataError, NoInputError

QUESTION = "ما اسم العالم العربي الذي ألف كتاب المناظر ووصف فيه طريقة عمل العين وانكسار الضوء في الماء والزجاج"
ADVERTISEMENT = "اتصل الآن 0501234567"


def put_corpus(folder: Path, *documents: str) -> None:
    (folder / "corpus").mkdir()
    (folder / "corpus" / "a.jsonl").write_bytes(jsonl([*documents, *texts(seed=2)]))


def test_a_question_is_removed_before_the_expert_sees_it_and_where_a_rewriting_brings_it_back(tmp_path: Path) -> None:
    """In the second document an advertisement stands inside of the question, which the rules take out."""
    vocalised = QUESTION.replace("العالم", "العَالِم")
    words = QUESTION.split()
    parted = f"{texts()[0]}\n{' '.join(words[:9])}\n{ADVERTISEMENT}\n{' '.join(words[9:])}"
    put_corpus(tmp_path, f"{texts()[1]} {vocalised}؟", parted)
    suite = shutil.copytree(QUICKSTART / "benchmarks", tmp_path / "suite")
    items = suite / "EXAMS_Arabic" / "exam_test.jsonl"
    first, *others = items.read_text().splitlines()
    asked = json.loads(first) | {"question": QUESTION}
    items.write_text("\n".join([json.dumps(asked, ensure_ascii=False), *others]) + "\n")
    spec = ALIGN | {"decontamination": {"benchmarks": ["exams-ar"], "data": {"uri": "suite"}}}
    store, outputs = run_job_here(tmp_path, spec)
    told = {"in": DOCUMENTS + 2, "out": DOCUMENTS + 1, "filtered": 1, "reasons": {"filtered/Contaminated": 1}}
    assert tally(store, outputs["clean"]) == told
    assert tally(store, outputs["rewrite"])["reasons"] == {"filtered/Contaminated": 1}
    for step, ordinal in (("clean", 0), ("rewrite", 1)):
        (removed,) = rows(store, outputs[step], "removed")
        assert (removed["reason"], removed["detail"]) == ("Contaminated", f"exams-ar/{asked['id']}")
        assert (removed["key"], removed["ordinal"]) == ("a.jsonl", ordinal)

    (suite / "EXAMS_Arabic" / "exam_dev.jsonl").unlink()
    told_of = r"BenchmarkFileMissing: benchmark exams-ar: no file exam_dev\.jsonl in .*/EXAMS_Arabic"
    with pytest.raises(NoInputError, match=told_of):
        run_job_here(tmp_path, spec)


def test_questions_of_your_own_are_kept_out_too(tmp_path: Path) -> None:
    put_corpus(tmp_path, f"{texts()[1]} {QUESTION}؟")
    asked = json.dumps({"number": "physics-7", "question": QUESTION}, ensure_ascii=False).encode() + b"\n"
    questions = tmp_path / "exams" / "one.jsonl"
    questions.parent.mkdir()
    questions.write_bytes(asked)
    items = {"name": "exams", "uri": "exams/", "textField": "question", "idField": "number"}
    spec = ALIGN | {"decontamination": {"items": [items]}}
    store, outputs = run_job_here(tmp_path, spec, until="clean")
    (removed,) = rows(store, outputs["clean"], "removed")
    assert (removed["reason"], removed["detail"]) == ("Contaminated", "exams/physics-7")

    questions.write_bytes(asked + b'{"number": 8}\n')
    with pytest.raises(DataError, match=r"ItemUnreadable: decontamination\.items exams, one\.jsonl: line 2"):
        run_job_here(tmp_path, spec)
