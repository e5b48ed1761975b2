"""The log of a pod, piece by piece."""

import asyncio
from typing import Any

import pytest

from nativealign_cli.pod_logs import PodLog, lines_after, to_seconds
from nativealign_operator.cluster import ApiError

POD: dict[str, Any] = {"metadata": {"name": "a"}, "status": {"phase": "Running"}}


class Node:
    """Gives what is left of a log; a kubelet rotates it."""

    def __init__(self, *answers: str | ApiError) -> None:
        self._answers = iter(answers)
        self.asked: list[dict[str, str]] = []

    async def text(self, path: str, query: dict[str, str]) -> str:
        self.asked.append(query)
        answer = next(self._answers)
        if isinstance(answer, ApiError):
            raise answer
        return answer


def at(second: int, line: str) -> str:
    return f"2026-11-28T08:00:{second:02d}.000000500+01:00 {line}\n"


def read(node: Node, log: PodLog, phase: str = "Running") -> list[str]:
    return asyncio.run(log.read(node, "team", POD | {"status": {"phase": phase}}))  # type: ignore[arg-type]


def test_each_line_is_read_once_also_after_a_rotation() -> None:
    node, log = Node(at(1, "one") + at(2, "two"), at(2, "two") + at(3, "three"), at(4, "four")), PodLog()
    assert [read(node, log) for _ in range(3)] == [["one", "two"], ["three"], ["four"]]
    assert [query["sinceTime"] for query in node.asked] == ["", "2026-11-28T08:00:02+01:00", "2026-11-28T08:00:03+01:00"]


def test_the_log_of_a_pod_that_has_ended_is_asked_for_once() -> None:
    node, log = Node(at(1, "one")), PodLog()
    assert [read(node, log, "Succeeded") for _ in range(3)] == [["one"], [], []]


def test_a_node_that_is_dead_is_told_of_once_and_asked_again() -> None:
    dead, log = ApiError(500, "InternalError", "dial tcp 10.0.0.1:10250: connection refused"), PodLog()
    node = Node(dead, dead, at(1, "one"))
    told = "(no log: dial tcp 10.0.0.1:10250: connection refused)"
    assert [read(node, log) for _ in range(3)] == [[told], [], ["one"]]


def test_a_missing_right_ends_the_command() -> None:
    with pytest.raises(ApiError):
        read(Node(ApiError(403, "Forbidden", "no")), PodLog())


@pytest.mark.parametrize(
    ("time", "whole"),
    [("", ""), ("2026-11-28T08:00:02.123456789Z", "2026-11-28T08:00:02Z"), ("2026-11-28T08:00:02Z", "2026-11-28T08:00:02Z")],
)
def test_times_are_asked_for_in_whole_seconds(time: str, whole: str) -> None:
    assert to_seconds(time) == whole


def test_a_bar_that_draws_itself_anew_is_one_line_and_hides_none_after_it() -> None:
    node, log = Node(at(1, "weights:   0%\rweights: 100%\r") + at(2, "two"), at(3, "three")), PodLog()
    assert [read(node, log) for _ in range(2)] == [["weights: 100%", "two"], ["three"]]


def test_an_empty_line_is_a_line() -> None:
    assert lines_after("", at(1, "")) == [(at(1, "").split()[0], "")]
