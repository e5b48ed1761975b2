"""What a user can get wrong in manifests, corpora, models and benchmarks: a clear message, the right exit code, nothing lost.

Desks share one store in which the good job is committed already, so that a mended job has nothing to compute again.
"""

import gzip
import importlib.metadata
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.workloads.desk import ALIGN, COUNTS, DOCUMENTS, GOOD, Desk, Json, good_store, jsonl, texts
from tests.workloads.pipeline import QUICKSTART, rows

from nativealign_api.vocabulary import ExitCode

HEAD = "apiVersion: nativealign.dev/v1alpha1\nkind: AlignJob\nmetadata: {name: web}\nspec:\n"
BODY = "  corpora: [{name: web, uri: corpus/}]\n  expert: {rules: {}}\n"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_store(Desk(tmp_path_factory.mktemp("good"), tmp_path_factory.mktemp("store")))


@pytest.fixture
def desk(tmp_path: Path, store: Path) -> Desk:
    return Desk(tmp_path, store)


def assert_mended(desk: Desk) -> None:
    """The good corpus takes the place of whatever was there; the same command goes on and finds every step done."""
    shutil.rmtree(desk.folder / "corpus", ignore_errors=True)
    desk.put("corpus/a.jsonl", GOOD)
    status = desk.goes_on()
    assert all(step.reused for step in status.steps[1:])
    assert desk.tally() == COUNTS


# Manifests


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}{BODY}  paralelism: 4\n", "job.yaml:7: spec.paralelism: unknown field. Did you mean parallelism?"),
        (f"{HEAD}{BODY}  parallelism: four\n", "job.yaml:7: spec.parallelism: 'four': input should be a valid integer"),
        # some terminals' libraries make a picture of `:100:`
        ("#\n" * 93 + f"{HEAD}{BODY}  parallelism: four\n", "job.yaml:100: spec.parallelism: 'four'"),
        (f"{HEAD}{BODY}  dedup: {{mode: [Exact\n", "job.yaml:8: not YAML: "),
        (f"{HEAD}{BODY}---\n{HEAD}{BODY}", "metadata.name: AlignJob/web is given twice"),
        (HEAD + BODY.replace("corpus/", "gs://bucket/web"), 'job.yaml:5: spec.corpora[0].uri: "gs://bucket/web"'),
        ("# nothing yet\n", "job.yaml:1: holds no object"),
        (b"metadata: {name: caf\xe9}\n", "job.yaml:1: is not UTF-8 at byte 20"),
    ],
    ids=["unknown-field", "wrong-type", "line-100", "syntax", "twice", "uri", "no-object", "not-utf8"],
)
def test_a_mistake_in_a_manifest_is_told_before_anything_runs(tmp_path: Path, text: str | bytes, message: str) -> None:
    desk = Desk(tmp_path, tmp_path / "store")
    desk.put("job.yaml", text)
    for command in ("validate", "run"):
        done = desk.command(command, "job.yaml")
        assert done.returncode == ExitCode.USAGE
        assert message in done.stderr
        assert "Traceback" not in done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.yaml"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], ["Missing argument", "manifests"]),
        (["run", "job.yml"], ["job.yml", "No such file"]),
        (["run", "."], ["cannot be read", "Is a directory"]),
        (["run", "--stor", "x", "job.yaml"], ["--stor"]),
    ],
    ids=["none", "nonexistent", "folder", "unknown-option"],
)
def test_a_wrong_command_line_is_a_usage_error(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = Desk(tmp_path, tmp_path / "store").command(*arguments)
    assert done.returncode == ExitCode.USAGE
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    done = Desk(tmp_path, tmp_path / "store").command("--version")
    assert (done.returncode, done.stdout) == (0, f"{importlib.metadata.version('nativealign')}\n")


@pytest.mark.parametrize("home", ["a-file", "/proc/nativealign"])
def test_a_home_that_cannot_be_written_is_named(tmp_path: Path, home: str) -> None:
    desk = Desk(tmp_path, tmp_path / "store")
    desk.put("a-file", "")
    desk.job(ALIGN)
    done = desk.run("job.yaml", "--home", home)
    assert done.returncode in (ExitCode.NO_SPACE, ExitCode.NO_PERMISSION)
    assert home in done.stderr
    assert "--home" in done.stderr


def test_a_second_run_in_the_same_home_is_refused(desk: Desk) -> None:
    desk.put("corpus/a.jsonl", GOOD)
    desk.job(ALIGN)
    with desk.home.locked():
        done = desk.run()
    assert done.returncode == ExitCode.TEMPORARY
    assert "another nativealign run works in .nativealign" in done.stderr
    assert_mended(desk)


# Corpora


NO_FILE: list[tuple[str, dict[str, bytes]]] = [
    ("nowhere/", {}),
    ("corpus/a.jsonl", {}),
    ("corpus/*.parquet", {"corpus/a.jsonl": GOOD}),
    ("corpus/", {"corpus/a.jsonl": b"", "corpus/b.jsonl.gz": b""}),
]
"""URIs, and the files that are there."""


def test_a_corpus_without_any_file_is_named_by_its_uri(desk: Desk) -> None:
    for uri, files in NO_FILE:
        for name, content in files.items():
            desk.put(name, content)
        desk.job(ALIGN | {"corpora": [{"name": "web", "uri": uri}]})
        desk.fails(ExitCode.NO_INPUT, "InputEmpty", f"{uri}: no file with any content", str(desk.folder), "manifest's folder")
    desk.job(ALIGN)
    assert_mended(desk)


def test_a_corpus_of_blank_lines_holds_no_record(desk: Desk) -> None:
    desk.put("corpus/a.jsonl", b"\n \n")
    desk.job(ALIGN)
    desk.fails(ExitCode.NO_INPUT, "InputEmpty", "the corpora hold no record")
    assert_mended(desk)


@pytest.mark.parametrize(
    ("clean", "reason", "message"),
    [
        ({"languages": ["ar", "xx"]}, "UnknownLanguage", "xx cannot be told from others"),
        ({"personalData": {"countries": ["XX"]}}, "UnknownCountry", "no numbering plan for XX"),
    ],
)
def test_a_code_that_nobody_knows_is_told_before_anything_is_read(desk: Desk, clean: Json, reason: str, message: str) -> None:
    desk.put("corpus/a.jsonl", GOOD)
    desk.job(ALIGN | {"clean": clean})
    desk.fails(ExitCode.USAGE, reason, message)
    assert [step.name for step in desk.status().steps if step.state == "Committed"] == []


def test_cleaning_that_keeps_nothing_is_told_with_its_reasons(desk: Desk) -> None:
    desk.put("corpus/a.jsonl", GOOD)
    desk.job(ALIGN | {"clean": {"languages": ["fr"]}})
    desk.fails(ExitCode.NO_INPUT, "NothingKept", f"none of {DOCUMENTS} documents is kept: {DOCUMENTS} Language", "spec.clean")
    desk.job(ALIGN)
    assert_mended(desk)


def test_a_file_whose_name_tells_no_format_is_found_before_anything_is_read(desk: Desk) -> None:
    desk.put("corpus/a.jsonl", GOOD)
    desk.put("corpus/notes.rst", "Ours.")
    desk.job(ALIGN)
    desk.fails(ExitCode.USAGE, "UnknownFormat", "corpus web", "notes.rst", "narrow its uri")
    assert_mended(desk)


def test_relative_paths_start_from_the_manifest(desk: Desk) -> None:
    desk.put("corpus/a.jsonl", b"\n")
    desk.put("jobs/corpus/b.parquet", b"")
    for uri, message in (
        ("../nowhere/", f"../nowhere/: no file with any content in {desk.folder}"),
        ("../corpus/", "hold no record"),
    ):
        desk.job(ALIGN | {"corpora": [{"name": "web", "uri": uri}]}, file="jobs/web.yaml")
        desk.fails(ExitCode.NO_INPUT, "InputEmpty", message, more=("jobs/web.yaml", "--store", desk.store))
    assert desk.status().steps[0].counts["files"] == 1


def parquet(column: str) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({column: texts()}), sink)
    return sink.getvalue().to_pybytes()


BROKEN: dict[str, tuple[str, bytes, str, str]] = {
    "not-utf8": ("b.jsonl", b'{"text": "\xff\xfe"}\n', "NotUtf8", "line 1, byte 0"),
    "truncated-gzip": ("b.jsonl.gz", gzip.compress(jsonl(texts(seed=2)))[:-500], "TruncatedFile", "breaks off"),
    "huge-line": (
        "b.jsonl",
        b'{"text":"' + b"x" * 50_000_000 + b'"}\n',
        "RecordTooLarge",
        "line 1, byte 0: more than 16777216 bytes",
    ),
    "no-text-field": ("b.jsonl", jsonl(texts(seed=2), "body"), "MissingTextField", "line 1, byte 0: no field 'text'"),
    "wrong-column": ("b.parquet", parquet("body"), "MissingTextField", "row 0: no column 'text'"),
    "gzip-named-plain": ("b.jsonl", gzip.compress(GOOD), "BrokenFile", "gzip content by its first bytes"),
    "plain-named-gzip": ("b.jsonl.gz", GOOD, "BrokenFile", "plain content by its first bytes"),
}
"""Name, content, reason, and what the message says of the place."""


def test_a_corpus_that_is_mostly_unreadable_is_refused_with_the_first_place(desk: Desk) -> None:
    desk.job(ALIGN)
    for name, content, reason, place in BROKEN.values():
        path = desk.put(f"corpus/{name}", content)
        message = desk.fails(
            ExitCode.DATA, "TooMuchQuarantined", reason, f"web/{name}: ", place, "the limit is 5 %", "maxQuarantinedPercent"
        )
        assert "cannot be read" in message
        path.unlink()
    assert_mended(desk)


def test_broken_files_among_good_ones_are_set_aside_and_counted(tmp_path: Path) -> None:
    """Above the limit the job stops; with a higher limit the same shard counts, and every record is accounted for."""
    desk = Desk(tmp_path, tmp_path / "store")
    desk.put("corpus/a.jsonl", GOOD)
    for number, (name, content, _, _) in enumerate(BROKEN.values()):
        desk.put(f"corpus/{number}/{name}", content)
    desk.job(ALIGN)
    desk.fails(ExitCode.DATA, "TooMuchQuarantined", "e.g. web/0/b.jsonl: line 1")
    (record,) = (desk.store / "steps/clean").glob("*/filter/shards/*.json")
    before = record.read_bytes()
    desk.job(ALIGN | {"maxQuarantinedPercent": 80})
    status = desk.goes_on()
    assert record.read_bytes() == before
    tally = desk.tally()
    readable = DOCUMENTS + tally["reasons"].get("duplicate/Exact", 0)
    assert tally["in"] == tally["out"] + tally["quarantined"] + tally.get("filtered", 0)
    assert tally["out"] >= readable
    reasons = {reason for _, _, reason, _ in BROKEN.values()}
    assert {name.removeprefix("quarantined/") for name in tally["reasons"] if name.startswith("quarantined/")} == reasons
    prefix = next(step for step in status.steps if step.name == "clean")
    removed = rows(desk.store, f"steps/clean/{prefix.digest}", "removed")
    assert len(removed) == tally["quarantined"]
    assert all(row["reason"] in reasons and row["detail"] for row in removed)
    assert desk.tally("rewrite")["in"] == DOCUMENTS + tally["out"] - readable


# Codes of conduct


def test_a_mistake_in_an_inline_code_of_conduct_is_told_with_its_line(desk: Desk) -> None:
    desk.put("corpus/a.jsonl", GOOD)
    desk.job(ALIGN | {"codeOfConduct": {"inline": "name: ours\nlanguage: ar\nguard: {}\n"}})
    desk.fails(
        ExitCode.USAGE,
        "InvalidCodeOfConduct",
        "spec.codeOfConduct.inline:3: guard: unknown field. Did you mean guards?",
        "judge: required field is missing",
    )
    desk.job(ALIGN)
    assert_mended(desk)


def test_a_config_map_is_not_to_be_had_on_a_laptop(desk: Desk) -> None:
    desk.put("corpus/a.jsonl", GOOD)
    desk.job(ALIGN | {"codeOfConduct": {"configMap": {"name": "conduct", "key": "ours.yaml"}}})
    desk.fails(ExitCode.CONFIG, "ConductMissing", "ConfigMap conduct, key ours.yaml", "give it inline")


# References to other jobs

PRETRAIN: Json = {
    "base": {"fromConfig": {"maxPosition": 64}},
    "mix": [{"alignJob": "web"}],
    "sequenceLength": 64,
    "tokens": 1000,
    "retries": 0,
}


def test_a_referenced_job_that_never_ran_is_missing_and_one_that_failed_has_failed(desk: Desk) -> None:
    desk.job(PRETRAIN, "PretrainJob", "model")
    desk.fails(ExitCode.NO_INPUT, "UpstreamMissing", "AlignJob/web never ran here", "give its manifest")
    desk.job(ALIGN, file="align.yaml")
    message = desk.fails(
        ExitCode.NO_INPUT,
        "UpstreamFailed",
        "AlignJob/web is Failed",
        "nativealign status AlignJob/web",
        more=("job.yaml", "align.yaml", "--store", desk.store),
    )
    assert "InputEmpty" not in message
    assert "InputEmpty: corpus/" in desk.command("doctor", "AlignJob/web").stdout


# Models and benchmarks


def model(desk: Desk, *files: str) -> None:
    for name in files:
        desk.put(f"model/{name}", '{"model_type": "llama"}' if name == "config.json" else "{}")


def test_a_model_is_looked_at_before_anything_is_computed_with_it(desk: Desk) -> None:
    desk.put("corpus/a.jsonl", GOOD)
    model(desk, "config.json", "pytorch_model.bin", "tokenizer.json")
    desk.job(PRETRAIN | {"base": {"uri": "model"}, "mix": [{"corpus": ALIGN["corpora"][0]}]}, "PretrainJob")
    desk.fails(ExitCode.CONFIG, "PickledWeights", "pickled weights only (pytorch_model.bin)", "writes safetensors")
    model(desk, "model.safetensors")
    desk.fails(ExitCode.DATA, "ModelUnreadable", "model: tokenizer.json is broken", "export the model again")
    (desk.folder / "model/tokenizer.json").unlink()
    desk.fails(ExitCode.CONFIG, "TokenizerMissing", "the base model has no tokenizer.json")
    assert [step.name for step in desk.status().steps if step.state == "Committed"] == ["inspect"]


def evaluation(desk: Desk, **benchmark: object) -> None:
    spec = {"model": {"uri": "model"}, "data": {"uri": "bench"}, "benchmarks": [{"name": "exams-ar", **benchmark}], "retries": 0}
    desk.job(spec, "EvalJob")


def test_benchmark_files_are_checked_before_the_model_is_loaded(desk: Desk) -> None:
    model(desk, "config.json", "model.safetensors")
    desk.put("model/vocab.json", "{}")
    evaluation(desk)
    desk.fails(ExitCode.NO_INPUT, "InputEmpty", "bench: no file with any content")
    shutil.copytree(QUICKSTART / "benchmarks", desk.folder / "bench")
    shots = desk.folder / "bench/EXAMS_Arabic/exam_dev.jsonl"
    content = shots.read_bytes()
    shots.unlink()
    desk.fails(ExitCode.NO_INPUT, "BenchmarkFileMissing", "benchmark exams-ar: no file exam_dev.jsonl in bench/EXAMS_Arabic")
    shots.write_bytes(b"{oops\n")
    desk.fails(ExitCode.DATA, "BadBenchmarkRow", "bench/EXAMS_Arabic/exam_dev.jsonl:1: no JSON", "published original")
    shots.write_bytes(content)
    evaluation(desk, fewShot=60)
    desk.fails(ExitCode.USAGE, "TooManyShots", "benchmark exams-ar: fewShot is 60", "0 to 5 shots")
    evaluation(desk, fewShot=99)
    done = desk.run()
    assert done.returncode == ExitCode.USAGE
    assert "spec.benchmarks[0].fewShot: 99" in done.stderr


def test_a_missing_package_is_named_with_the_extra_that_brings_it(desk: Desk) -> None:
    model(desk, "config.json", "model.safetensors")
    desk.put("model/vocab.json", "{}")
    shutil.copytree(QUICKSTART / "benchmarks", desk.folder / "bench")
    evaluation(desk)
    desk.put("absent/lm_eval/__init__.py", "raise ModuleNotFoundError('No module named lm_eval', name='lm_eval')\n")
    message = desk.fails(ExitCode.CONFIG, "PackageMissing", "lm_eval", environment={"PYTHONPATH": str(desk.folder / "absent")})
    assert 'pip install "nativealign[workloads-cpu]"' in message
    assert json.loads((desk.last.folder / "status.json").read_text())["status"]["conditions"][0]["message"] == message
