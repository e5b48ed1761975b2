"""The three jobs one after the other as a user runs them, and what a second run costs."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.s3 import s3_server
from tests.workloads.pipeline import (
    QUICKSTART,
    RULES,
    TINY,
    make_corpus,
    manifest_of,
    nativealign,
    rows,
    status,
    write_manifests,
)

from nativealign_api.vocabulary import ExitCode


def small_quickstart() -> list[dict[str, Any]]:
    """The quickstart's own manifests with less of everything."""
    align, pretrain, evaluate = yaml.safe_load_all((QUICKSTART / "quickstart.yaml").read_text())
    align["spec"] |= {"corpora": RULES["corpora"], "maxQuarantinedPercent": 20, "seed": {"documents": 24}}
    align["spec"]["worker"]["base"]["fromConfig"] = TINY
    align["spec"]["worker"]["train"]["optimizer"]["learningRate"] = 3e-3
    align["spec"]["rewrite"]["maxOutputRatio"] = 1
    align["spec"]["chunking"] = {"maxTokens": 64}
    pretrain["spec"] |= {"tokens": 20_000, "base": {"fromConfig": TINY}}
    pretrain["spec"]["optimizer"]["learningRate"] = 2e-3
    evaluate["spec"]["data"]["uri"] = str(QUICKSTART / "benchmarks")
    return [align, pretrain, evaluate]


def listing(store: Path) -> dict[str, tuple[int, int, int]]:
    """Every file with what changes when somebody writes it: size, time, inode."""
    found = {path: path.stat() for path in store.rglob("*") if path.is_file()}
    return {str(path): (stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in found.items()}


def download(folder: Path, job: str, target: str, *options: str, code: int = 0) -> str:
    ran = nativealign("download", job, target, "--home", "home", *options, cwd=folder)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stderr


def dataset(folder: Path, view: str) -> Any:
    from datasets import load_dataset

    return load_dataset(str(folder), view, split="train", cache_dir=str(folder.parent / "cache"))


def computed(steps: list[dict[str, Any]]) -> list[str]:
    return [step["name"] for step in steps if not step["reused"]]


class TestTheQuickstart:
    """One run of the three jobs, looked at from several sides; later tests go on from it."""

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("quickstart")
        make_corpus(folder / "corpus", 60)
        write_manifests(folder / "jobs.yaml", *small_quickstart())
        ran = nativealign("run", "jobs.yaml", "--home", "home", cwd=folder)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return folder

    def test_all_three_jobs_are_complete_and_have_a_report(self, folder: Path):
        for kind in ("AlignJob", "PretrainJob", "EvalJob"):
            found = status(folder / "home", f"{kind}/quickstart")
            assert found["state"] == "Complete"
            assert {step["state"] for step in found["steps"]} == {"Committed"}
        assert len(list((folder / "home").rglob("report.html"))) == 4

    def test_a_second_run_computes_nothing_and_changes_no_file_of_the_store(self, folder: Path):
        before = listing(folder / "home" / "store")
        again = nativealign("run", "jobs.yaml", "--home", "home", cwd=folder)
        assert again.returncode == 0, again.stdout + again.stderr
        assert listing(folder / "home" / "store") == before
        for kind in ("AlignJob", "PretrainJob", "EvalJob"):
            found = status(folder / "home", f"{kind}/quickstart")
            assert computed(found["steps"]) == ["inspect"]
            assert found["state"] == "Complete"

    def test_an_aligned_corpus_downloads_as_a_dataset_with_views(self, folder: Path):
        download(folder, "AlignJob/quickstart", "dataset")
        prefix = status(folder / "home", "AlignJob/quickstart")["outputs"]["rewrite"]
        made = {row["id"]: row for row in rows(folder / "home" / "store", prefix, "documents")}
        loaded = {view: list(dataset(folder / "dataset", view)) for view in ("aligned", "cleaned", "raw", "hybrid")}
        assert {row["id"]: row["text"] for row in loaded["aligned"]} == {name: row["rewritten"] for name, row in made.items()}
        assert {row["id"]: row["text"] for row in loaded["cleaned"]} == {name: row["origin"] for name, row in made.items()}
        assert loaded["hybrid"] == loaded["aligned"] + loaded["cleaned"]
        corpus = folder / "corpus"
        read = {
            "web.jsonl.gz": gzip.decompress((corpus / "web.jsonl.gz").read_bytes()),
            "more.jsonl": (corpus / "more.jsonl").read_bytes(),
        }
        for row in loaded["raw"]:
            assert row["text"] == json.loads(read[row["key"]].splitlines()[row["ordinal"]])["text"]
        assert [row["text"] for row in loaded["raw"]] != [row["text"] for row in loaded["cleaned"]]
        for row in loaded["aligned"]:
            kept = made[row["id"]]
            assert {name: row[name] for name in ("origin", "chunks", "userId", "key", "ordinal")} == {
                name: kept.get(name) for name in ("origin", "chunks", "userId", "key", "ordinal")
            }

    def test_a_download_goes_on_where_it_stopped_and_leaves_other_folders_alone(self, folder: Path):
        download(folder, "AlignJob/quickstart", "again")
        whole = listing(folder / "again")
        next((folder / "again" / "data").glob("cleaned-*")).unlink()
        download(folder, "AlignJob/quickstart", "again")
        assert {path: facts[0] for path, facts in listing(folder / "again").items()} == {p: facts[0] for p, facts in whole.items()}
        (kept,) = (path for path in whole if path.endswith("README.md"))
        assert listing(folder / "again")[kept] == whole[kept]
        told = download(folder, "PretrainJob/quickstart", "again", code=ExitCode.USAGE)
        assert "FolderInUse: again holds data/aligned-" in told
        assert "which is not of this result" in told
        assert "NoFolder" in download(folder, "EvalJob/quickstart", "scores", code=ExitCode.USAGE)
        assert not (folder / "scores").exists()

    def test_a_model_downloads_as_transformers_loads_it(self, folder: Path):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        download(folder, "PretrainJob/quickstart", "model")
        assert AutoModelForCausalLM.from_pretrained(folder / "model").num_parameters() > 0
        assert AutoTokenizer.from_pretrained(folder / "model").vocab_size == TINY["vocabularySize"]

    def test_a_worker_downloads_as_a_server_loads_it(self, folder: Path):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        download(folder, "AlignJob/quickstart", "worker", "--worker")
        assert AutoModelForCausalLM.from_pretrained(folder / "worker").num_parameters() > 0
        assert AutoTokenizer.from_pretrained(folder / "worker").vocab_size == TINY["vocabularySize"]
        assert "NoWorker" in download(folder, "PretrainJob/quickstart", "none", "--worker", code=ExitCode.USAGE)


def test_a_store_on_an_s3_server_holds_what_a_folder_would(here: Path):
    """On a cluster all three kinds do: tests/control_plane/test_chain.py."""
    with s3_server(here / "s3") as server:
        store = {"store": {"bucket": server.bucket, "prefix": "team/runs", "endpoint": server.endpoint, "region": server.region}}
        write_manifests(here / "jobs.yaml", manifest_of("AlignJob", "web", RULES | store))
        keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
        for reused in (False, True):
            ran = nativealign("run", "jobs.yaml", "--home", "home", cwd=here, environment=keys)
            assert ran.returncode == 0, ran.stdout + ran.stderr
            steps = status(here / "home", "AlignJob/web")["steps"]
            assert {step["state"] for step in steps} == {"Committed"}
            assert {step["reused"] for step in steps if step["name"] != "inspect"} == {reused}
        ran = nativealign("download", "AlignJob/web", "dataset", "--home", "home", cwd=here, environment=keys)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert list((here / "dataset" / "data").glob("aligned-*"))
    assert not (here / "home" / "store").exists()
    assert len(list((here / "home").rglob("report.html"))) == 1
