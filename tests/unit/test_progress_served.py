"""What a pod says of itself over HTTP, and what the operator makes of it."""

import asyncio
import json
import socket
import urllib.request
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import aiohttp
import pytest
from tests.world import PRETRAIN, World, world

from nativealign_api.plan import plan
from nativealign_api.vocabulary import PROGRESS_PORT
from nativealign_operator.cache import Key
from nativealign_operator.progress import ProgressBoard
from nativealign_operator.seen import Progress as Seen
from nativealign_workloads.progress import Progress
from nativealign_workloads.progress.server import exposition, serve

ADDRESS = "127.9.8.7"
"""A loopback address that nothing else listens on."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pod") / "progress.json"
    serve(path, ADDRESS)
    return path


def sharded(running: int, succeeded: int) -> World:
    """A clean filter of 3 shards of which some run, all at ADDRESS."""
    found = world()
    found.settle()
    found.complete(found.words(found.current, {}, []))
    found.settle()
    found.run(pods=running)
    found.jobs[found.current]["status"]["succeeded"] = succeeded
    for pod in found.pods[found.current]:
        pod["status"]["podIP"] = ADDRESS
    return found


def polled(found: World, board: ProgressBoard) -> dict[str, Seen]:
    key = Key(found.job.kind, "team", "web")

    async def poll() -> None:
        async with aiohttp.ClientSession() as session:
            await board.poll(session, lambda: None)

    board.watch(key, found.job, [found.child(found.current)])
    asyncio.run(poll())
    return board.of(key)


def test_finished_shards_count_fully_and_running_ones_as_they_say(file: Path) -> None:
    progress = Progress(file, step="clean", phase="filter", index=0)
    progress.begin(200, "documents", done=0)
    progress.advance(50)
    progress.finish()
    found = sharded(running=2, succeeded=1)
    assert plan(found.job.kind, found.job.spec, found.job.status.pinned).step("clean").phases[0].indexes == 3
    (told,) = polled(found, ProgressBoard()).values()
    assert told.percent == pytest.approx((100 + 2 * 25) / 3)


def test_a_pods_log_tells_how_far_it_is_twice_a_minute(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = Progress(file, clock=lambda: now[0], step="train", phase="train", index=0)
    progress.begin(2000, "steps")
    for _ in range(70):
        now[0] += 1
        progress.advance(10, loss=2.5)
    progress.finish()
    assert capsys.readouterr().out.splitlines() == [
        "train train 0: 0 of 2,000 steps",
        "train train 0: 300 of 2,000 steps, about 2m50s left, loss 2.5",
        "train train 0: 600 of 2,000 steps, about 2m20s left, loss 2.5",
        "train train 0: 700 of 2,000 steps, about 2m10s left, loss 2.5",
    ]


def test_what_comes_no_further_keeps_its_time(file: Path) -> None:
    file.write_text(json.dumps({"done": 3, "total": 4, "percent": 75.0}))
    board, found = board_of_hours(), sharded(running=1, succeeded=0)
    (first,) = polled(found, board).values()
    (second,) = polled(found, board).values()
    assert second.changed == first.changed
    file.write_text(json.dumps({"done": 4, "total": 4, "percent": 100.0}))
    (third,) = polled(found, board).values()
    assert third.changed > first.changed


@pytest.mark.parametrize("said", ["[]", '{"done": -1, "total": 3}', '{"done": 1, "total": 3, "percent": 1e9}'])
def test_nonsense_is_no_progress(file: Path, said: str) -> None:
    file.write_text(said)
    (told,) = polled(sharded(running=1, succeeded=0), board_of_hours()).values()
    assert (told.percent, told.asked - told.changed) == (None, timedelta(hours=1))


def board_of_hours() -> ProgressBoard:
    """Whose clock goes on an hour with each look."""
    moments = iter([datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(10)])
    return ProgressBoard(lambda: next(moments))


def test_of_a_pod_that_cannot_be_reached_nobody_knows_that_it_stands_still() -> None:
    found, board = sharded(running=1, succeeded=0), board_of_hours()
    found.pods[found.current][0]["status"]["podIP"] = "127.9.8.6"
    for _ in range(3):
        (told,) = polled(found, board).values()
        assert (told.percent, told.asked - told.changed) == (None, timedelta(0))


def test_a_pod_that_takes_the_connection_and_does_not_answer_stands_still() -> None:
    found, board = sharded(running=1, succeeded=0), board_of_hours()
    found.pods[found.current][0]["status"]["podIP"] = "127.9.8.5"
    with socket.create_server(("127.9.8.5", PROGRESS_PORT)):  # nobody accepts, as where a process is stopped
        (told,) = polled(found, board).values()
    assert (told.percent, told.asked - told.changed) == (None, timedelta(hours=1))


def test_a_sign_of_life_keeps_what_cannot_be_counted_from_standing_still(file: Path) -> None:
    found, board = sharded(running=1, succeeded=0), board_of_hours()
    progress = Progress(file, clock=count(0, 10).__next__, step="export", phase="export", index=0)
    progress.begin(1, "model")
    (first,) = polled(found, board).values()
    progress.alive()
    (second,) = polled(found, board).values()
    assert (second.percent, second.changed > first.changed) == (first.percent, True)


def test_who_never_began_adds_signs_of_life_to_what_another_says(file: Path) -> None:
    rank, node = (Progress(file, clock=count(0, 10).__next__, step="train", phase="train", index=0) for _ in range(2))
    rank.begin(40, "steps")
    rank.advance(10)
    before = json.loads(file.read_text())
    node.alive()
    assert json.loads(file.read_text()) == before | {"alive": before["alive"] + 1}


def test_of_a_gang_rank_0_alone_is_asked(file: Path) -> None:
    file.write_text(json.dumps({"done": 10, "total": 40, "percent": 25.0, "etaSeconds": 90}))
    found = world("PretrainJob", PRETRAIN | {"mix": [{"corpus": {"name": "web", "uri": "s3://corpora/web/"}}]})
    while "train-train" not in (found.created or [""])[-1]:
        if found.created:
            words = found.words(found.current, {}, [])
            found.complete(
                words
                | ({"pinned": found.pins() | {"inputs": {"base": "1" * 32, "mix/web": "2" * 32}}} if "pinned" in words else {})
            )
        found.settle()
    found.run(pods=2)
    found.pods[found.current][0]["status"]["podIP"] = ADDRESS
    (told,) = polled(found, ProgressBoard()).values()
    assert (told.percent, told.eta_seconds) == (25.0, 90)


def test_metrics_are_prometheus_text(file: Path) -> None:
    file.write_text(
        json.dumps(
            {
                "step": "train",
                "phase": "train",
                "index": 0,
                "done": 3,
                "total": 9,
                "etaSeconds": None,
                "counts": {"tokensPerSecond": 5.5},
            }
        )
    )
    with urllib.request.urlopen(f"http://{ADDRESS}:{PROGRESS_PORT}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert 'nativealign_progress_done{step="train",phase="train",index="0"} 3\n' in text
    assert 'nativealign_progress_count_tokens_per_second{step="train",phase="train",index="0"} 5.5\n' in text
    assert "eta" not in text
    assert exposition({}) == ""
