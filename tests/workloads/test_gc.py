"""`nativealign gc`: what no job names goes, what is committed and named stays, whoever works at the same time."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cluster.s3 import S3Server, s3_server
from tests.workloads.desk import ALIGN, GOOD, Desk
from tests.workloads.stores import store_at

from nativealign_workloads.errors import ConfigError
from nativealign_workloads.gc.claim import CLAIM
from nativealign_workloads.gc.sweep import look, remove
from nativealign_workloads.store import LocalStore, ObjectStore

OLD, NEW, SOURCE, INPUT, OTHER = (letter * 32 for letter in "abcde")
DAY = 86400.0


@dataclass
class Shelf:
    """A store, and the folder in which its server keeps the objects."""

    store: ObjectStore
    folder: Path

    def put(self, *keys: str, content: bytes = b"{}") -> None:
        for key in keys:
            self.store.write(key, content)

    def age(self) -> None:
        """All that is there was written ten days ago."""
        for path in self.folder.rglob("*"):
            os.utime(path, (time.time() - 10 * DAY,) * 2)

    def keys(self) -> list[str]:
        return [info.key for info in self.store.list("")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, Path]]:
    folder = tmp_path_factory.mktemp("s3")
    with s3_server(folder) as running:
        yield running, folder / "data" / running.bucket


@pytest.fixture(params=["folder", "s3"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    if request.param == "folder":
        return Shelf(LocalStore(tmp_path / "store"), tmp_path / "store")
    found, data = request.getfixturevalue("server")
    return Shelf(store_at(found, tmp_path.name), data / tmp_path.name)


def week_ago() -> float:
    return time.time() - 7 * DAY


def collect(shelf: Shelf, *named: str) -> list[str]:
    """Removes what may go; returns the prefixes that went."""
    before = week_ago()
    return [waste.prefix for waste in look(shelf.store, set(named), before).waste if remove(shelf.store, waste, before)]


def test_only_what_no_job_names_goes_and_a_second_time_nothing(shelf: Shelf) -> None:
    shelf.put(f"steps/clean/{OLD}/manifest.json", f"steps/clean/{OLD}/filter/shards/00000.json", f"inputs/{INPUT}/listing.json")
    shelf.put(f"steps/clean/{OTHER}/filter/x-00000-dead.jsonl.zst")
    shelf.put(f"steps/train/{NEW}/manifest.json", content=f'{{"facts": {{"sources": [{{"digest": "{SOURCE}"}}]}}}}'.encode())
    shelf.put(f"steps/tokenize/{SOURCE}/manifest.json", content=f'{{"inputs": {{"mix": "inputs/{INPUT}"}}}}'.encode())
    shelf.put("notes/of-somebody-else.txt", f"steps/{OLD}", "steps/clean/short/manifest.json", "self-test/left")
    shelf.age()
    assert collect(shelf, NEW) == [f"steps/clean/{OLD}", f"steps/clean/{OTHER}", "self-test"]
    assert shelf.keys() == [
        f"inputs/{INPUT}/listing.json",
        "notes/of-somebody-else.txt",
        f"steps/{OLD}",
        "steps/clean/short/manifest.json",
        f"steps/tokenize/{SOURCE}/manifest.json",
        f"steps/train/{NEW}/manifest.json",
    ]
    assert collect(shelf, NEW) == []


def test_what_is_young_or_under_way_stays(shelf: Shelf) -> None:
    shelf.put(
        f"steps/rewrite/{NEW}/rewrite/answers/00000/worker/w-000000.json", f"steps/rewrite/{NEW}/rewrite/x-00000-dead.jsonl.zst"
    )
    shelf.put(f"steps/clean/{OLD}/filter/documents-00000-w1.jsonl.zst")
    shelf.age()
    shelf.put(f"steps/clean/{OLD}/filter/documents-00001-w2.jsonl.zst")
    before = shelf.keys()
    assert collect(shelf, NEW) == []
    assert shelf.keys() == before


def test_what_failed_attempts_left_in_a_committed_step_goes(shelf: Shelf) -> None:
    step = f"steps/rewrite/{NEW}"
    won, lost, between = (f"{step}/rewrite/documents-00000-{name}.jsonl.zst" for name in ("won", "lost", "between"))
    shelf.put(won, lost, between, f"{step}/rewrite/answers/00000/expert/w-000000.json")
    shelf.put(f"{step}/rewrite/budget/expert/taken/000001", f"{step}/rewrite/budget/expert/held/00000/000001")
    shelf.put(f"{step}/train/checkpoints/step-00000010-1f0c9a3e/rank-00000-of-4.pt")
    shelf.put(f"{step}/rewrite/shards/00000.json", content=f'{{"parts": {{"a": {{"key": "{between}"}}}}}}'.encode())
    shelf.put(f"{step}/manifest.json", content=f'{{"shards": [{{"parts": {{"a": {{"key": "{won}"}}}}}}]}}'.encode())
    shelf.age()
    assert collect(shelf, NEW) == [step]
    assert sorted(shelf.keys()) == sorted(
        [
            won,
            between,
            f"{step}/manifest.json",
            f"{step}/rewrite/shards/00000.json",
            f"{step}/train/checkpoints/step-00000010-1f0c9a3e/rank-00000-of-4.pt",
        ]
    )
    assert collect(shelf, NEW) == []


@pytest.mark.parametrize("sign", [CLAIM, "filter/documents-00000-w.jsonl.zst"])
def test_a_job_that_comes_after_the_look_keeps_what_it_uses(shelf: Shelf, sign: str) -> None:
    shelf.put(f"steps/clean/{OLD}/manifest.json", f"steps/clean/{NEW}/manifest.json")
    shelf.age()
    before = week_ago()
    (waste,) = look(shelf.store, {NEW}, before).waste
    shelf.put(f"steps/clean/{OLD}/{sign}")
    assert not remove(shelf.store, waste, before)
    assert shelf.store.stat(f"steps/clean/{OLD}/manifest.json")


class Meanwhile(LocalStore):
    """A store in which something happens right after the deletion of a key."""

    def __init__(self, root: Path, key: str, what: Callable[[], None]) -> None:
        super().__init__(root)
        self._when, self._what = key, what

    def delete(self, key: str) -> None:
        super().delete(key)
        if key == self._when:
            self._what()


@pytest.mark.parametrize("moment", ["manifest.json", "filter/shards/00000.json"])
def test_a_claim_in_mid_removal_never_leaves_a_record_without_its_parts(tmp_path: Path, moment: str) -> None:
    """With the manifest gone alone it comes back; later the step is no longer committed, and what is left of it is whole."""
    step = f"steps/clean/{OLD}"
    shelf = Shelf(LocalStore(tmp_path), tmp_path)
    records = [f"{step}/filter/shards/{shard:05d}.json" for shard in range(200)]
    parts = [f"{step}/filter/documents-{shard:05d}-w.jsonl.zst" for shard in range(200)]
    shelf.put(*records, *parts, f"{step}/manifest.json", f"steps/clean/{NEW}/manifest.json")
    shelf.age()
    before = week_ago()
    (waste,) = look(shelf.store, {NEW}, before).waste
    store = Meanwhile(tmp_path, f"{step}/{moment}", lambda: shelf.put(f"{step}/{CLAIM}"))
    assert not remove(store, waste, before)
    left = shelf.keys()
    assert set(parts) <= set(left)
    assert (f"{step}/manifest.json" in left) == (moment == "manifest.json")
    assert (set(records) <= set(left)) == (moment == "manifest.json")


def test_a_removal_that_was_broken_off_is_finished_by_the_next(tmp_path: Path) -> None:
    step = f"steps/clean/{OLD}"
    shelf = Shelf(LocalStore(tmp_path), tmp_path)
    shelf.put(*(f"{step}/filter/documents-{shard:05d}-w.jsonl.zst" for shard in range(99)), f"{step}/manifest.json")
    shelf.put(f"steps/clean/{NEW}/manifest.json")
    shelf.age()

    def die() -> None:
        raise KeyboardInterrupt

    before = week_ago()
    (waste,) = look(shelf.store, {NEW}, before).waste
    with pytest.raises(KeyboardInterrupt):
        remove(Meanwhile(tmp_path, f"{step}/filter/documents-00003-w.jsonl.zst", die), waste, before)
    assert collect(shelf, NEW) == [step]
    assert shelf.keys() == [f"steps/clean/{NEW}/manifest.json"]


def test_names_of_another_cluster_remove_nothing(shelf: Shelf) -> None:
    shelf.put(f"steps/clean/{OLD}/manifest.json")
    shelf.age()
    with pytest.raises(ConfigError, match="NothingInUse"):
        look(shelf.store, {NEW}, week_ago())


# the command


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_the_command_frees_what_a_deleted_job_left_and_a_further_run_reuses_the_rest(
    tmp_path: Path, server: tuple[S3Server, Path]
) -> None:
    desk = Desk(tmp_path, tmp_path / "store")
    desk.put("corpus/a.jsonl", GOOD)
    desk.job(ALIGN)
    assert desk.run().returncode == 0
    mine = sorted(path.name for path in (desk.store / "steps" / "clean").iterdir())
    shutil.copytree(desk.store / "steps" / "clean" / mine[0], desk.store / "steps" / "clean" / OLD)
    _copy(desk.store, server[0], tmp_path.name)
    arguments = ("gc", "--store", desk.store, "--min-age-hours", "0")
    assert lines(desk.command(*arguments[:3]))[-1].startswith("nothing to remove;")  # all of it is young
    told = lines(desk.command(*arguments))
    assert any(f"steps/clean/{OLD}" in line and "may go: no job names it" in line for line in told)
    assert "removed with --delete" in told[-1]
    assert (desk.store / "steps" / "clean" / OLD / "manifest.json").exists()
    assert "removed;" in lines(desk.command(*arguments, "--delete"))[-1]
    assert [path.parent.name for path in (desk.store / "steps" / "clean").glob("*/manifest.json")] == mine
    assert lines(desk.command(*arguments, "--delete"))[-1].startswith("nothing to remove;")
    assert desk.run().returncode == 0
    (run,) = desk.home.runs()
    status = run.status()
    assert status
    assert [step.reused for step in status.steps[1:]] == [True] * 4
    # the same store on an S3 server
    environment = {"AWS_ENDPOINT_URL": server[0].endpoint, "AWS_ACCESS_KEY_ID": server[0].access_key}
    environment |= {"AWS_SECRET_ACCESS_KEY": server[0].secret_key, "AWS_REGION": server[0].region}
    remote = ("gc", "--store", f"s3://{server[0].bucket}/{tmp_path.name}", "--min-age-hours", "0", "--delete")
    assert "removed;" in lines(desk.command(*remote, environment=environment))[-1]
    assert lines(desk.command(*remote, environment=environment))[-1].startswith("nothing to remove;")


def _copy(folder: Path, server: S3Server, prefix: str) -> None:
    store = store_at(server, prefix)
    for path in folder.rglob("*"):
        if path.is_file():
            store.upload(path.relative_to(folder).as_posix(), path)


def test_a_run_that_this_version_does_not_understand_removes_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path, tmp_path / "store")
    metadata = {"name": "web", "namespace": "default", "uid": "u"}
    record = {"kind": "AlignJob", "metadata": metadata, "spec": {"corpora": 7}, "status": {"state": "Complete"}}
    desk.put(".nativealign/runs/default/web-1/status.json", json.dumps(record))
    done = desk.command("gc", "--delete")
    assert (done.returncode, "web-1" in done.stderr, "Traceback" in done.stderr) == (78, True, False), done.stderr


def test_a_folder_that_is_not_there_is_not_taken_for_an_empty_store(tmp_path: Path) -> None:
    done = Desk(tmp_path, tmp_path / "store").command("gc", "--store", "aligned")
    assert done.returncode != 0
    assert "there is no folder aligned" in done.stderr


def test_an_unreadable_list_of_names_removes_nothing(tmp_path: Path) -> None:
    names = tmp_path / "names.json"
    names.write_text("[]")
    command = [sys.executable, "-m", "nativealign_workloads.gc", "--store", str(tmp_path), "--names", str(names), "--delete"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "NamesUnreadable" in done.stderr, "Traceback" in done.stderr) == (78, True, False)
