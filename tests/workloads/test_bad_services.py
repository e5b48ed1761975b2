"""Stores, disks and experts that refuse, fill up or break under a running job: the cause is told, and the same command goes on."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.cluster.s3 import S3Server, s3_server
from tests.workloads.desk import ALIGN, DOCUMENTS, GOOD, Desk, Json, good_store, jsonl, texts
from tests.workloads.openai_server import Answer, OpenAIServer, completion, error, openai_server
from tests.workloads.pipeline import rows
from tests.workloads.test_store_s3_faults import Faults, proxy

from nativealign_api.vocabulary import ExitCode


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything before the expert is committed in it."""
    return good_store(Desk(tmp_path_factory.mktemp("good"), tmp_path_factory.mktemp("store")))


# S3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


def keys(server: S3Server) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}


def in_bucket(server: S3Server, **spec: object) -> Json:
    return ALIGN | {"store": {"bucket": server.bucket, "endpoint": server.endpoint}} | spec


def test_a_store_that_refuses_is_told_and_then_used(tmp_path: Path, server: S3Server) -> None:
    """No credentials, wrong ones, no such bucket, a proxy that drops the condition, no such input; at last all is well."""
    desk, here = Desk(tmp_path, tmp_path), ("job.yaml",)
    desk.put("corpus/a.jsonl", GOOD)

    def refused(code: ExitCode, reason: str, *words: str, at: S3Server = server, **spec: object) -> None:
        desk.job(in_bucket(at, **spec))
        message = desk.fails(code, reason, *words, environment=keys(at), more=here)
        assert server.secret_key not in message + desk.doctor()

    refused(ExitCode.CONFIG, "CredentialsMissing", "no AWS_SECRET_ACCESS_KEY", at=replace(server, secret_key=" "))
    refused(
        ExitCode.NO_PERMISSION,
        "StoreRefused",
        "SignatureDoesNotMatch",
        "check the access key",
        at=replace(server, secret_key="not-the-key"),
    )
    refused(
        ExitCode.NO_PERMISSION, "StoreRefused", server.endpoint, "check the access key", at=replace(server, access_key="nobody")
    )
    refused(ExitCode.CONFIG, "BucketNotFound", "s3://no-such-bucket/", "create it", at=replace(server, bucket="no-such-bucket"))
    with proxy(server, Faults(strip={"if-none-match"})) as unfit:
        refused(ExitCode.CONFIG, "NoConditionalWrites", unfit.endpoint, "If-None-Match", at=unfit)
    elsewhere = [{"name": "web", "uri": "s3://no-such-input/web/*.jsonl"}]
    refused(ExitCode.CONFIG, "BucketNotFound", "s3://no-such-input/", corpora=elsewhere)
    nothing = [{"name": "web", "uri": f"s3://{server.bucket}/web/*.jsonl"}]
    refused(ExitCode.NO_INPUT, "InputEmpty", f"s3://{server.bucket}/web/*.jsonl: no file", corpora=nothing)
    desk.job(in_bucket(server))
    status = desk.goes_on(environment=keys(server), more=here)
    assert next(step for step in status.steps if step.name == "clean").counts == {"out": DOCUMENTS}


# Disks


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of `size` bytes."""
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False).returncode == 0
    )
    if not mounted:
        pytest.skip("only root can mount a small disk; a limit on file sizes is tested everywhere")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def leave(disk: Path, room: int) -> None:
    """Fills a disk up to `room` bytes."""
    facts = os.statvfs(disk)
    (disk / "ballast").write_bytes(b"x" * (facts.f_bavail * facts.f_bsize - room))


LARGE = jsonl(texts(400))


def test_a_full_store_stops_the_step_and_free_space_lets_it_go_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        desk = Desk(tmp_path, disk / "store")
        desk.put("corpus/a.jsonl", LARGE)
        desk.job(ALIGN)
        leave(disk, 40 << 10)
        desk.fails(ExitCode.NO_SPACE, "NoSpace", str(desk.store / "steps/clean"), "No space left on device", "free or add space")
        assert [step.state for step in desk.status().steps[:2]] == ["Committed", "Failed"]
        (disk / "ballast").unlink()
        desk.goes_on()
        assert desk.tally() == {"in": 400, "out": 400, "reasons": {}}
        assert not list(desk.store.rglob(".nativealign-tmp-*"))


def test_a_full_home_is_told_without_a_traceback(tmp_path: Path, store: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        desk = Desk(tmp_path, store)
        desk.put("corpus/a.jsonl", GOOD)
        desk.job(ALIGN)
        leave(disk, 4 << 10)
        here = ("job.yaml", "--store", store, "--home", disk / "home")
        done = desk.run(*here)
        assert done.returncode == ExitCode.NO_SPACE, done.stdout + done.stderr
        assert "No space left on device" in done.stdout + done.stderr
        (disk / "ballast").unlink()
        assert desk.run(*here).returncode == ExitCode.OK


def test_a_limit_on_file_sizes_is_a_full_disk_too(tmp_path: Path) -> None:
    desk = Desk(tmp_path, tmp_path / "store")
    desk.put("corpus/a.jsonl", GOOD)
    desk.job(ALIGN | {"clean": {"languages": []}})  # the model of languages is larger still
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))  # children inherit it; ar-1 is larger
    try:
        desk.fails(ExitCode.NO_SPACE, "NoSpace", "conduct.yaml: File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Experts


@dataclass(frozen=True)
class Failure:
    """What the expert answers for ever after its first answers, and what the user is told."""

    answer: Answer
    code: ExitCode
    reason: str
    told: str


ANSWERED = 4
SILENCE = 3
"""Seconds after which a silent expert is given up, in which it can well give its first answers beside other tests."""
FAILURES = {
    "429": Failure(
        error(429, "slow down", retry_after="0"), ExitCode.UNAVAILABLE, "ExpertUnavailable", "429 - slow down (after 6 attempts)"
    ),
    "500": Failure(error(500, "out of order"), ExitCode.UNAVAILABLE, "ExpertUnavailable", "500 - out of order (after 6 attempts)"),
    "garbage": Failure(Answer(body=b"<html>"), ExitCode.UNAVAILABLE, "ExpertUnavailable", "unreadable reply"),
    "nothing": Failure(Answer(hang=True), ExitCode.UNAVAILABLE, "ExpertUnavailable", f"no answer within {SILENCE} s"),
    "401": Failure(error(401, "who are you"), ExitCode.NO_PERMISSION, "ExpertUnauthorized", "who are you"),
}


@dataclass(frozen=True)
class Told:
    """What was kept of a run with a failing expert, and what the next run did with a good one."""

    asked_again: int
    documents: list[str]


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Callable[[str], Told]:
    """All cases at once, since most of their time is the engine's waiting between attempts."""

    def run(name: str) -> Told:
        with openai_server() as server:
            return fail_and_mend(name, Desk(tmp_path_factory.mktemp(name), store), server)

    with ThreadPoolExecutor(len(FAILURES)) as pool:
        futures = {name: pool.submit(run, name) for name in FAILURES}
    return lambda name: futures[name].result()


def asks(desk: Desk, endpoint: Json) -> None:
    desk.job(ALIGN | {"expert": {"openai": endpoint}, "rewrite": {"maxRetries": 0}})


def fail_and_mend(name: str, desk: Desk, server: OpenAIServer) -> Told:
    failure = FAILURES[name]
    endpoint = {"model": name, "endpoint": server.url, "limits": {"concurrency": ANSWERED}}
    impatient = {"timeoutSeconds": SILENCE} if failure.answer.hang else {}
    desk.put("corpus/a.jsonl", GOOD)
    asks(desk, endpoint | impatient)
    server.script.extend([Answer(body=completion("نص آخر"))] * ANSWERED)
    server.forever = failure.answer
    desk.fails(failure.code, failure.reason, server.url, failure.told)
    prefix = next(f"steps/rewrite/{step.digest}" for step in desk.status().steps if step.name == "rewrite")
    before, server.forever = len(server.requests), None
    asks(desk, endpoint)
    desk.goes_on()
    return Told(len(server.requests) - before, [row["id"] for row in rows(desk.store, prefix, "documents")])


@pytest.mark.parametrize("name", FAILURES)
def test_a_failing_expert_is_told_and_what_it_answered_is_kept(experts: Callable[[str], Told], name: str) -> None:
    told = experts(name)
    assert told.asked_again == DOCUMENTS - ANSWERED
    assert len(set(told.documents)) == len(told.documents) == DOCUMENTS


def test_an_expert_that_is_busy_for_a_moment_is_waited_for(tmp_path: Path, store: Path) -> None:
    with openai_server() as server:
        desk = Desk(tmp_path, store)
        desk.put("corpus/a.jsonl", GOOD)
        desk.job(ALIGN | {"expert": {"openai": {"model": "busy", "endpoint": server.url}}})
        server.script.append(error(429, "slow down", retry_after="1"))
        desk.goes_on()
        assert len(server.requests) == DOCUMENTS + 1
        assert desk.tally("rewrite")["out"] == DOCUMENTS
