"""Benchmarks are kept out of a corpus, as it is read and as it is rewritten. Real phases, the quickstart's benchmark files."""

import json
import shutil
from pathlib import Path

from tests.workloads.desk import ALIGN, DOCUMENTS, Desk, jsonl, texts
from tests.workloads.pipeline import QUICKSTART, rows

from nativealign_api.vocabulary import ExitCode

QUESTION = "ما اسم العالم العربي الذي ألف كتاب المناظر ووصف فيه طريقة عمل العين وانكسار الضوء في الماء والزجاج"
ADVERTISEMENT = "اتصل الآن 0501234567"


def test_a_question_is_removed_before_the_expert_sees_it_and_where_a_rewriting_brings_it_back(tmp_path: Path) -> None:
    """In the second document an advertisement stands inside of the question, which the rules take out."""
    desk = Desk(tmp_path, tmp_path / "store")
    vocalised = QUESTION.replace("العالم", "العَالِم")
    words = QUESTION.split()
    parted = f"{texts()[0]}\n{' '.join(words[:9])}\n{ADVERTISEMENT}\n{' '.join(words[9:])}"
    desk.put("corpus/a.jsonl", jsonl([f"{texts()[1]} {vocalised}؟", parted, *texts(seed=2)]))
    suite = shutil.copytree(QUICKSTART / "benchmarks", desk.folder / "suite")
    items = suite / "EXAMS_Arabic" / "exam_test.jsonl"
    first, *others = items.read_text().splitlines()
    asked = json.loads(first) | {"question": QUESTION}
    items.write_text("\n".join([json.dumps(asked, ensure_ascii=False), *others]) + "\n")
    spec = ALIGN | {"decontamination": {"benchmarks": ["exams-ar"], "data": {"uri": "suite"}}}
    desk.job(spec)
    status = desk.goes_on()
    assert desk.tally() == {"in": DOCUMENTS + 2, "out": DOCUMENTS + 1, "filtered": 1, "reasons": {"filtered/Contaminated": 1}}
    assert desk.tally("rewrite")["reasons"] == {"filtered/Contaminated": 1}
    for step, place in (("clean", "web/a.jsonl:0"), ("rewrite", "web/a.jsonl:1")):
        (removed,) = rows(desk.store, status.outputs[step], "removed")
        assert (removed["reason"], removed["detail"]) == ("Contaminated", f"exams-ar/{asked['id']}")
        told = desk.command("explain", "web", place, "--store", desk.store).stdout
        assert f"{step}: filtered, Contaminated: exams-ar/{asked['id']}" in told

    (suite / "EXAMS_Arabic" / "exam_dev.jsonl").unlink()
    desk.job(spec, name="again")
    desk.fails(ExitCode.NO_INPUT, "BenchmarkFileMissing", "benchmark exams-ar: no file exam_dev.jsonl in suite/EXAMS_Arabic")


def test_questions_of_your_own_are_kept_out_too(tmp_path: Path) -> None:
    desk = Desk(tmp_path, tmp_path / "store")
    desk.put("corpus/a.jsonl", jsonl([f"{texts()[1]} {QUESTION}؟", *texts(seed=2)]))
    asked = json.dumps({"number": "physics-7", "question": QUESTION}, ensure_ascii=False).encode() + b"\n"
    desk.put("exams/one.jsonl", asked)
    items = {"name": "exams", "uri": "exams/", "textField": "question", "idField": "number"}
    desk.job(ALIGN | {"decontamination": {"items": [items]}})
    status = desk.goes_on()
    (removed,) = rows(desk.store, status.outputs["clean"], "removed")
    assert (removed["reason"], removed["detail"]) == ("Contaminated", "exams/physics-7")

    desk.put("exams/one.jsonl", asked + b'{"number": 8}\n')
    desk.job(ALIGN | {"decontamination": {"items": [items]}}, name="again")
    desk.fails(ExitCode.DATA, "ItemUnreadable", "decontamination.items exams, one.jsonl: line 2")
