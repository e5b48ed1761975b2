"""Who counts what became of every document. Used by every step that reads documents, and by commit, which compares.

A document is (corpus, object key, record ordinal), hashed to 128 bits. Each outcome carries a count and the sum of its documents'
ids modulo 2**128: equal sums over equal counts mean the same documents, up to a chance of 2**-128.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import xxhash

from nativealign_api.vocabulary import Outcome

MODULUS = 1 << 128


def document_id(corpus: str, key: str, ordinal: int) -> str:
    """The id of a document, 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(f"{corpus}\0{key}\0{ordinal}".encode())


@dataclass
class Sum:
    """How many documents, and the sum of their ids."""

    count: int = 0
    id_sum: int = 0

    def add(self, identifier: str) -> None:
        self.count += 1
        self.id_sum = (self.id_sum + int(identifier, 16)) % MODULUS

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(self.count + other.count, (self.id_sum + other.id_sum) % MODULUS)


@dataclass
class Tally:
    """What one shard, or one step, did with its documents."""

    read: Sum = field(default_factory=Sum)
    outcomes: dict[Outcome, Sum] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    """Documents by `outcome/Reason`."""

    def add(self, identifier: str, outcome: Outcome, reason: str = "") -> None:
        """Counts one document of the input and what became of it."""
        self.read.add(identifier)
        self.outcomes.setdefault(outcome, Sum()).add(identifier)
        if reason:
            self.reasons[f"{outcome.value}/{reason}"] += 1

    def of(self, outcome: Outcome) -> Sum:
        return self.outcomes.get(outcome, Sum())

    def balanced(self) -> bool:
        """Whether in = out + all other outcomes, by number and by id."""
        return sum(self.outcomes.values(), Sum()) == self.read

    def counts(self) -> dict[str, int]:
        """Documents by outcome."""
        return {outcome.value: self.outcomes[outcome].count for outcome in sorted(self.outcomes)}

    def dump(self) -> dict[str, Any]:
        """As JSON: counts and hexadecimal id sums."""
        return {
            "in": _dump(self.read),
            "outcomes": {outcome.value: _dump(self.of(outcome)) for outcome in sorted(self.outcomes)},
            "reasons": dict(sorted(self.reasons.items())),
        }

    @classmethod
    def load(cls, value: Mapping[str, Any]) -> "Tally":
        outcomes = {Outcome(name): _load(part) for name, part in value["outcomes"].items()}
        return cls(_load(value["in"]), outcomes, Counter(value["reasons"]))


def total(tallies: Iterable[Tally]) -> Tally:
    """The tally of several shards together."""
    result = Tally()
    for tally in tallies:
        result.read += tally.read
        result.reasons.update(tally.reasons)
        for outcome, part in tally.outcomes.items():
            result.outcomes[outcome] = result.of(outcome) + part
    return result


def _dump(part: Sum) -> dict[str, Any]:
    return {"count": part.count, "idSum": f"{part.id_sum:032x}"}


def _load(part: Mapping[str, Any]) -> Sum:
    return Sum(part["count"], int(part["idSum"], 16))
