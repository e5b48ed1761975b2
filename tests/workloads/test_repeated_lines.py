"""Lines that are repeated over a site go, wherever its documents lie. Real phases."""

import json
from collections import Counter
from pathlib import Path

import pytest
from tests.workloads.desk import ALIGN, texts
from tests.workloads.pipeline import Json, rows, run_job_here, tally

MENU, SIGNED = "تابع آخر الأخبار على مدار الساعة", "كتب المحرر هذا الخبر"
HERE, THERE = "https://news.example/a", "https://other.example/a"
CORPORA = [{"name": "web", "uri": "corpus/", "urlField": "url"}]


def put(folder: Path, name: str, documents: list[Json]) -> None:
    path = folder / "corpus" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in documents))


@pytest.mark.parametrize("shards", [1, 3])
def test_a_line_of_many_documents_of_a_site_goes_and_stays_elsewhere(tmp_path: Path, shards: int) -> None:
    """Spelled with and without marks, in five files; the line of few documents, and of another site, stays."""
    written = []
    for number, text in enumerate(texts(12)):
        menu = MENU.replace("الأخبار", "الأَخْبَار") if number % 2 else MENU
        signed = f"\n{SIGNED}" if number < 3 else ""
        written.append({"text": f"{menu}\n{text}{signed}", "url": f"{HERE}/{number}"})
    for number in range(5):
        put(tmp_path, f"{number}.jsonl", written[number::5])
    others = [{"text": f"{MENU}\n{text}", "url": THERE} for text in texts(3, seed=2)]
    put(tmp_path, "others.jsonl", others)
    spec = ALIGN | {"corpora": CORPORA, "clean": {"repeatedLines": {"minDocuments": 12}}, "sharding": {"shards": shards}}
    store, outputs = run_job_here(tmp_path, spec, until="clean")
    assert tally(store, outputs["clean"])["reasons"] == {"operation/RemoveRepeatedLines": 12}
    documents = rows(store, outputs["clean"], "documents")
    kept = {row["text"]: row["url"] for row in documents}
    assert sorted(kept) == sorted([f"{text}\n{SIGNED}" for text in texts(3)] + texts(12)[3:] + [row["text"] for row in others])
    assert {url for text, url in kept.items() if MENU in text} == {THERE}
    assert Counter(row["key"] for row in documents if row.get("operations") == ["RemoveRepeatedLines"]) == {
        f"{number}.jsonl": len(written[number::5]) for number in range(5)
    }


def test_an_article_that_a_site_has_many_times_keeps_its_lines(tmp_path: Path) -> None:
    """Its copies differ in a line; one of them is left by dedup."""
    article = "\n".join(texts(3, seed=3))
    put(tmp_path, "0.jsonl", [{"text": f"{article}\nعدد القراء {number}", "url": f"{HERE}/{number}"} for number in range(12)])
    spec = ALIGN | {"corpora": CORPORA, "clean": {"repeatedLines": {"minDocuments": 3}}}
    store, outputs = run_job_here(tmp_path, spec, until="dedup")
    (kept,) = rows(store, outputs["dedup"], "documents")
    assert kept["text"].startswith(article)
