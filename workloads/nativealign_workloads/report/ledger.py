"""The document ledger: what became of every document, step by step, and whether the counts add up. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nativealign_api.vocabulary import Outcome
from nativealign_workloads.ledger import Tally
from nativealign_workloads.report.wording import OUTCOMES

Json = dict[str, Any]


OPERATION = "operation"
"""Prefix of reasons that count changes to kept documents."""


@dataclass(frozen=True)
class Reason:
    """How many documents a step removed, or changed, for one reason."""

    outcome: str
    name: str
    count: int


@dataclass(frozen=True)
class Row:
    """One step's account."""

    step: str
    read: int
    outcomes: dict[str, int]
    """All five, in the order of Outcome."""
    reasons: tuple[Reason, ...]
    balanced: bool
    """In = sum of the outcomes, by number and by id sum."""
    handed_over: bool | None
    """In is exactly what the step before kept, by number and by id sum; None for the first."""

    @property
    def sum_text(self) -> str:
        """`2,000 = 1,927 + 59 + 14`."""
        parts = [f"{value:,}" for value in self.outcomes.values() if value]
        return f"{self.read:,} {'=' if self.balanced else '≠'} {' + '.join(parts) or '0'}"

    @property
    def kept(self) -> int:
        return self.outcomes[Outcome.OUT]

    @property
    def losses(self) -> list[tuple[str, int]]:
        """(outcome, count) of what did not go on, without empty ones."""
        return [(name, value) for name, value in self.outcomes.items() if name != Outcome.OUT and value]


def rows(tallies: Mapping[str, Json], chained: bool = True) -> list[Row]:
    """One row for each step's tally, in order. `chained`: each reads what the one before kept."""
    found: list[Row] = []
    before: Tally | None = None
    for step, value in tallies.items():
        tally = Tally.load(value)
        handed = before.of(Outcome.OUT) == tally.read if before and chained else None
        outcomes = {outcome.value: tally.of(outcome).count for outcome in Outcome}
        found.append(Row(step, tally.read.count, outcomes, _reasons(tally), tally.balanced(), handed))
        before = tally
    return found


def adds_up(found: list[Row]) -> bool:
    return all(row.balanced and row.handed_over is not False for row in found)


def _reasons(tally: Tally) -> tuple[Reason, ...]:
    split = [(*name.partition("/")[::2], count) for name, count in tally.reasons.items()]
    return tuple(Reason(*item) for item in sorted(split, key=lambda item: (_rank(item[0]), -item[2], item[1])))


def _rank(outcome: str) -> int:
    return [*OUTCOMES].index(outcome) if outcome in OUTCOMES else len(OUTCOMES)
