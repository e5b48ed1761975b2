"""The answers that guards rejected: of each guard the worst, which the report shows. Called by rewrite."""

from collections import defaultdict

from nativealign_workloads.align.shown import shown
from nativealign_workloads.commit import Json

KEPT = 2
"""Answers of each guard."""


class Worst:
    """Of each guard the KEPT answers that passed its limit by most; of equal ones those of the smallest ids."""

    def __init__(self) -> None:
        self._by_guard = defaultdict[str, list[Json]](list)

    def add(self, answer: Json) -> None:
        """An answer as `rejected_answer` describes it."""
        kept = self._by_guard[answer["guard"]]
        kept.append(answer)
        kept.sort(key=_rank)
        del kept[KEPT:]

    def answers(self) -> list[Json]:
        """By guard, the worst first."""
        return [answer for _, kept in sorted(self._by_guard.items()) for answer in kept]


def rejected_answer(document: Json, chunk: int, attempt: int, by: str, verdict: Json, origin: str, rewritten: str) -> Json:
    """A broken guard (guard, value, limit, action) with the answer that broke it, and the chunk that it is an answer to."""
    place = {"id": document["id"], "corpus": document["corpus"], "key": document["key"], "chunk": chunk, "try": attempt, "by": by}
    return place | verdict | {"origin": shown(origin), "rewritten": shown(rewritten)}


def _rank(answer: Json) -> tuple[float, str, int, int]:
    return -abs(answer["value"] - answer["limit"]), answer["id"], answer["chunk"], answer["try"]
