"""Which part of a shard's journal the shard's record has counted, and what came after that. Pure.

Two pods may ask for one shard, e.g. after a node was lost. Who commits first counts what stands in the journal then. What the other
adds later stays there, and the step's commit counts it.
"""

from collections.abc import Collection, Iterable

from nativealign_workloads.engines.billing import Json, billed_together
from nativealign_workloads.engines.journal import Journal


def billed_by(journal: Journal) -> Json:
    """Facts of a shard's record: `usage`, and what it sums up: `counted`, objects of the journal and the intents that are open."""
    if not journal.objects:
        return {"usage": journal.usage()}
    return {"usage": journal.usage(), "counted": {"objects": _ranges(journal.objects), "open": sorted(journal.open)}}


def is_counted(facts: Json, name: str) -> bool:
    """Whether the facts of a record count an object of the journal."""
    writer, number = _parts(name)
    runs = facts.get("counted", {}).get("objects", {}).get(writer, [])
    return any(first <= number <= last for first, last in runs)


def late_usage(facts: Json, entries: Iterable[Json]) -> Json:
    """What a record's usage lacks of the objects that it has not counted; an intent that it counts as open may be settled there."""
    every, counted_open = list(entries), set(facts.get("counted", {}).get("open", []))
    intents = {row["id"]: row["tokens"] for entry in every for row in entry.get("intents", [])}
    rows = {row["intent"]["id"]: row for entry in every for row in entry.get("settled", [])}
    settled = {name: row for name, row in rows.items() if name in intents or name in counted_open}
    lost, found = intents.keys() - settled.keys(), settled.keys() - intents.keys()
    return billed_together(settled.values()) | {
        "unsettledRequests": len(lost) - len(found),
        "unsettledTokens": sum(intents[name] for name in lost) - sum(settled[name]["intent"]["tokens"] for name in found),
    }


def _ranges(names: Collection[str]) -> dict[str, list[list[int]]]:
    """Runs [first, last] of each writer's numbers."""
    found: dict[str, list[list[int]]] = {}
    for writer, number in sorted(map(_parts, names)):
        runs = found.setdefault(writer, [])
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return found


def _parts(name: str) -> tuple[str, int]:
    """Writer and number of an object: <writer>-<n>.json."""
    writer, _, number = name.removesuffix(".json").rpartition("-")
    return writer, int(number)
