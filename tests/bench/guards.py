"""Precision and recall of the guards of the code of conduct ar-1 on rewritings with known defects (tests/unit/labelled.py).

    python -m tests.bench.guards

Prints a table: the half that limits were tuned on, and the half held out, with 95 % intervals (Wilson).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tests.unit.labelled import DEFECTS, GOOD, Pair, good, pairs

from nativealign_workloads.conduct import BUILTIN, load_conduct
from nativealign_workloads.guards import check
from nativealign_workloads.intervals import wilson_interval

OF_EACH = 80
"""Pairs of each kind of defect, in both halves."""


@dataclass(frozen=True)
class Score:
    """How often a guard was right (it broke, and should), wrong, and silent where it should have broken."""

    right: int
    wrong: int
    silent: int

    @property
    def precision(self) -> float:
        return self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        return self.right / max(1, self.right + self.silent)

    def row(self) -> str:
        found, there = self.right + self.wrong, self.right + self.silent
        return f"{_share(self.right, found)} | {_share(self.right, there)}"


def _share(count: int, of: int) -> str:
    low, high = wilson_interval(count, of)
    return f"{count / max(1, of):.3f} ({low:.3f} to {high:.3f})"


def half_of_all(held_out: bool) -> Iterator[Pair]:
    """Every second pair: good rewritings, and those of each kind of defect."""
    yield from (good(number) for number in range(held_out, GOOD, 2))
    for kind in DEFECTS:
        yield from list(pairs(kind, OF_EACH))[held_out::2]


def measure(held_out: bool) -> dict[str, Score]:
    """By guard."""
    conduct = load_conduct(BUILTIN["ar-1"].read_bytes(), "ar-1")
    right, wrong, silent = Counter[str](), Counter[str](), Counter[str]()
    for pair in half_of_all(held_out):
        broken = {verdict.guard for verdict in check(conduct, pair.origin, pair.rewritten, pair.finish_reason)}
        right.update(broken & pair.labels)
        wrong.update(broken - pair.labels)
        silent.update(pair.labels - broken)
    return {guard: Score(right[guard], wrong[guard], silent[guard]) for guard in sorted(right | wrong | silent)}


def main() -> None:
    tuned, held_out = measure(False), measure(True)
    print("| guard | pairs held out | precision, tuned | recall, tuned | precision, held out | recall, held out |")
    print("|---|---|---|---|---|---|")
    for guard, score in held_out.items():
        print(f"| {guard} | {score.right + score.silent} | {tuned[guard].row()} | {score.row()} |")


if __name__ == "__main__":
    main()
