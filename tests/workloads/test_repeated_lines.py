"""Lines that are repeated over a site go, wherever its documents lie. Real phases."""

import json
from pathlib import Path

import pytest
from tests.workloads.desk import ALIGN, Desk, texts
from tests.workloads.pipeline import rows

MENU, SIGNED = "تابع آخر الأخبار على مدار الساعة", "كتب المحرر هذا الخبر"
HERE, THERE = "https://news.example/a", "https://other.example/a"


@pytest.mark.parametrize("shards", [1, 3])
def test_a_line_of_many_documents_of_a_site_goes_and_stays_elsewhere(tmp_path: Path, shards: int) -> None:
    """Spelled with and without marks, in five files; the line of few documents, and of another site, stays."""
    desk = Desk(tmp_path, tmp_path / "store")
    for number, text in enumerate(texts(12)):
        menu = MENU.replace("الأخبار", "الأَخْبَار") if number % 2 else MENU
        signed = f"\n{SIGNED}" if number < 3 else ""
        desk.put(
            f"corpus/{number % 5}.jsonl", _appended(desk, number, {"text": f"{menu}\n{text}{signed}", "url": f"{HERE}/{number}"})
        )
    others = [{"text": f"{MENU}\n{text}", "url": THERE} for text in texts(3, seed=2)]
    desk.put("corpus/others.jsonl", "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in others))
    corpora = [{"name": "web", "uri": "corpus/", "urlField": "url"}]
    desk.job(ALIGN | {"corpora": corpora, "clean": {"repeatedLines": {"minDocuments": 12}}, "sharding": {"shards": shards}})
    status = desk.goes_on()
    assert desk.tally()["reasons"] == {"operation/RemoveRepeatedLines": 12}
    kept = {row["text"]: row["url"] for row in rows(desk.store, status.outputs["clean"], "documents")}
    assert sorted(kept) == sorted([f"{text}\n{SIGNED}" for text in texts(3)] + texts(12)[3:] + [row["text"] for row in others])
    assert {url for text, url in kept.items() if MENU in text} == {THERE}
    assert "clean: kept; RemoveRepeatedLines" in desk.command("explain", "web", "web/0.jsonl:0", "--store", desk.store).stdout


def test_an_article_that_a_site_has_many_times_keeps_its_lines(tmp_path: Path) -> None:
    """Its copies differ in a line; one of them is left by dedup."""
    desk = Desk(tmp_path, tmp_path / "store")
    article = "\n".join(texts(3, seed=3))
    records = [{"text": f"{article}\nعدد القراء {number}", "url": f"{HERE}/{number}"} for number in range(12)]
    desk.put("corpus/0.jsonl", "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in records))
    corpora = [{"name": "web", "uri": "corpus/", "urlField": "url"}]
    desk.job(ALIGN | {"corpora": corpora, "clean": {"repeatedLines": {"minDocuments": 3}}})
    (kept,) = rows(desk.store, desk.goes_on().outputs["dedup"], "documents")
    assert kept["text"].startswith(article)


def _appended(desk: Desk, number: int, row: dict[str, str]) -> str:
    path = desk.folder / f"corpus/{number % 5}.jsonl"
    before = path.read_text() if path.is_file() else ""
    return f"{before}{json.dumps(row, ensure_ascii=False)}\n"
