"""The quickstart's corpus and benchmarks: what the guides and the end-to-end tests may count on."""

import gzip
import importlib.util
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
BENCHMARKS = QUICKSTART / "benchmarks"


def load_generator():
    spec = importlib.util.spec_from_file_location("make_corpus", QUICKSTART / "make_corpus.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_corpus = load_generator()


def run_generator(output: Path, *arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess:
    command = [sys.executable, str(QUICKSTART / "make_corpus.py"), str(output), *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True)


def folded(text: str) -> str:
    text = re.sub("[\u064b-\u0652\u0640\u200c\u200f]", "", unicodedata.normalize("NFKC", text))
    text = text.translate(str.maketrans({"أ": "ا", "إ": "ا", "آ": "ا", "ى": "ي", "ة": "ه"}))
    return " ".join(re.findall(r"\w+", "".join(str(unicodedata.digit(char, char)) for char in text)))


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, str]:
    output = tmp_path_factory.mktemp("corpus")
    done = run_generator(output)
    assert done.returncode == 0, done.stderr
    return output / "web.jsonl.gz", done.stdout


@pytest.fixture(scope="module")
def lines(run) -> list[bytes]:
    return gzip.decompress(run[0].read_bytes()).removesuffix(b"\n").split(b"\n")


@pytest.fixture(scope="module")
def rows(lines) -> list[dict]:
    return [row for row in map(parsed, lines) if row is not None]


def parsed(line: bytes) -> dict | None:
    try:
        return json.loads(line.decode("utf-8"))
    except ValueError:
        return None


def test_the_same_arguments_give_the_same_bytes_whatever_the_hash_seed(run, tmp_path):
    assert run_generator(tmp_path, hash_seed="12345").returncode == 0
    assert (tmp_path / "web.jsonl.gz").read_bytes() == run[0].read_bytes()


def test_another_seed_gives_another_corpus():
    assert make_corpus.make_records(2000, 7) != make_corpus.make_records(2000, 8)


def test_the_summary_is_one_line_whose_counts_add_up(run, lines):
    path, summary = run
    assert summary.count("\n") == 1
    counts = summary.removeprefix(f"{path}: ")
    total, kinds = counts.split(" records: ")
    assert int(total) == len(lines) == sum(int(number) for number in re.findall(r" (\d+)", f" {kinds}"))


def test_the_number_of_records_is_near_two_thousand(lines):
    assert 1900 <= len(lines) <= 2100


@pytest.mark.parametrize("documents", ["499", "5001"])
def test_a_size_that_the_pages_cannot_carry_is_refused(documents, tmp_path):
    done = run_generator(tmp_path, "--documents", documents)
    assert done.returncode == 2
    assert "--documents must be from 500 to 5000" in done.stderr


@pytest.mark.parametrize("documents", [500, 777])
def test_a_smaller_corpus_has_every_kind_and_exactly_the_size_asked_for(documents):
    records = make_corpus.make_records(documents, 7)
    assert len(records) == documents
    assert {record.kind for record in records} == {"written", "recombined", *make_corpus.SHARES}


def test_the_handwritten_pages_are_well_formed_and_distinct():
    raw = [row for path in sorted((QUICKSTART / "corpus").glob("pages-*.jsonl")) for row in read_jsonl(path)]
    assert all(set(row) == {"id", "url", "site", "title", "topic", "paragraphs"} for row in raw)
    assert len({row["id"] for row in raw}) == len({row["url"] for row in raw}) == len(raw)
    assert all(3 <= len(row["paragraphs"]) <= 6 for row in raw)
    assert len({folded(" ".join(row["paragraphs"])) for row in raw}) >= 120
    paragraphs = [folded(paragraph) for row in raw for paragraph in row["paragraphs"]]
    assert len(set(paragraphs)) == len(paragraphs)


def test_more_than_a_thousand_records_stay_distinct_at_jaccard_three_quarters():
    kinds = {"written", "recombined", "contacts", "mixed-script"}
    records = [record for record in make_corpus.make_records(2000, 7) if record.kind in kinds]
    topics: dict[str, list[frozenset]] = {}
    for record in records:  # pages of different topics share neither paragraphs nor a site's boilerplate
        topics.setdefault(record.url.split("/")[3], []).append(shingles(record.text))
    assert all(jaccard(*pair) < 0.75 for topic in topics.values() for pair in combinations(topic, 2))
    assert len(topics) == 13
    assert sum(map(len, topics.values())) > 1000


def shingles(text: str, words: int = 5) -> frozenset[str]:
    found = folded(text).split()
    return frozenset(" ".join(found[at : at + words]) for at in range(len(found) - words + 1))


def jaccard(one: frozenset, other: frozenset) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def test_every_readable_record_has_the_four_fields_and_its_own_id(rows):
    assert all(set(row) == {"id", "url", "title", "text"} for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)


def test_a_few_lines_are_not_utf8_and_a_few_are_no_json(lines):
    broken = [line for line in lines if parsed(line) is None]
    not_utf8 = [line for line in broken if line.decode("utf-8", "replace").count("\ufffd") > 0]
    assert (len(not_utf8), len(broken)) == (3, 5)


def test_exact_copies_and_repeated_urls_are_there(rows):
    texts, urls = Counter(row["text"] for row in rows), Counter(row["url"] for row in rows)
    assert sum(count - 1 for count in texts.values()) >= 120
    assert max(urls.values()) > 1


def test_copies_that_differ_on_the_surface_only_become_equal_when_folded(rows):
    distinct = {row["text"] for row in rows}
    assert len(distinct) - len({folded(text) for text in distinct}) >= 200


@pytest.mark.parametrize(
    ("dirt", "pattern", "least"),
    [
        ("tatweel", "\u0640", 40),
        ("tashkeel", "(?:[\u064e-\u0652][^\u064e-\u0652]{1,20}){10}", 40),
        ("presentation forms", "[\ufe80-\ufefc]{3}", 30),
        ("right-to-left marks", "\u200f", 30),
        ("zero-width non-joiners", "\u200c", 30),
        ("Arabic-Indic digits", "[٠-٩]", 40),
        ("ha for ta marbuta", r"\bالمدينه\b|\bكبيره\b|\bالعربيه\b", 5),
        ("alef maqsura for ya", r"\bفى\b", 20),
        ("a share line", "شارك هذا المقال", 800),
        ("a cookie notice", "ملفات تعريف الارتباط|ملفات الكوكيز", 300),
        ("a copyright line", "جميع الحقوق محفوظة ©", 1000),
        ("a telephone line", "هاتف: 555-01", 1000),
        ("a mobile number", r"جوال \+(?:\d+ ?)+", 30),
        ("an e-mail address of a person", r"@post\.example", 50),
        ("Latin lines inside Arabic", r"(?m)^[\x20-\x7e]{30,}\n[\u0600-\u06ff]", 20),
        ("UTF-8 read as a Western encoding", "[ØÙ][\u0080-\u00bf§±].*[ØÙ]", 10),
        ("lone surrogates", "[\ud800-\udfff]", 5),
        ("NUL", "\0", 4),
        ("pages of a few words", r"\A\S+(?: \S+){0,7}\Z", 10),
        ("English", r"\bthe\b.*\b(?:of|is|and)\b", 20),
        ("French", r"\b(?:les|des|une)\b.*\b(?:et|de|pas)\b", 10),
    ],
)
def test_every_kind_of_dirt_is_there(rows, dirt, pattern, least):
    assert sum(bool(re.search(pattern, row["text"])) for row in rows) >= least, dirt


def test_presentation_forms_normalise_back_to_the_page_they_were_made_of():
    pages = make_corpus.read_pages()
    for page in pages:
        text = "\n".join(page.paragraphs)
        shaped = make_corpus.shape(text, None)
        assert shaped != text
        assert unicodedata.normalize("NFKC", shaped) == unicodedata.normalize("NFKC", text)


def test_mojibake_can_be_undone():
    text = "هذا نص عربي قصير"
    rng = make_corpus.Random(1)
    wrong = {make_corpus.misread(text, rng) for _ in range(20)}
    assert len(wrong) == 2
    assert {as_bytes(variant).decode() for variant in wrong} == {text}


def as_bytes(misread: str) -> bytes:
    return b"".join(char.encode("latin-1" if char < "\u0100" else "cp1252") for char in misread)


def test_the_multiple_choice_set_has_the_public_schema_and_five_shots_a_subject():
    dev, test = (read_jsonl(BENCHMARKS / "EXAMS_Arabic" / f"exam_{split}.jsonl") for split in ("dev", "test"))
    assert all(list(row) == ["id", "question", "A", "B", "C", "D", "answer"] for row in dev + test)
    assert all(row["answer"] in "ABCD" and len({row[letter] for letter in "ABCD"}) == 4 for row in dev + test)
    assert Counter(subject(row) for row in dev) == {"Science": 5, "Social": 5}
    assert Counter(subject(row) for row in test) == {"Science": 20, "Social": 20}
    assert max(Counter(row["answer"] for row in test).values()) <= 12
    assert len({row["id"] for row in dev + test}) == len({row["question"] for row in dev + test}) == 50


def test_the_yes_no_set_has_the_public_schema_labels_and_splits():
    files = {split: BENCHMARKS / "ArabicCulture" / f"difficulty-easy-TF_{split}.jsonl" for split in ("all", "dev", "test")}
    rows = {split: read_jsonl(path) for split, path in files.items()}
    assert all(list(row) == ["id", "question", "answer"] for split in rows.values() for row in split)
    assert set(Counter(subject(row) for row in rows["dev"]).values()) == {5}
    assert len(rows["test"]) == 60
    label = {"صح": "نعم", "خطأ": "لا"}
    everything = {row["id"]: (row["question"], label[row["answer"]]) for row in rows["all"]}
    assert len({question for question, _ in everything.values()}) == len(rows["all"]) == 80
    assert everything == {row["id"]: (row["question"], row["answer"]) for row in rows["dev"] + rows["test"]}


def subject(row: dict) -> str:
    return row["id"].rsplit("-", 1)[0]
