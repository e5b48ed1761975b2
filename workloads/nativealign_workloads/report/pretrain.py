"""What a PretrainJob's report shows. Pure."""

from typing import Any

from nativealign_workloads.report import figures, ledger, wording
from nativealign_workloads.report.gather import Job
from nativealign_workloads.report.overview import Tile

Json = dict[str, Any]


def view(job: Job) -> Json:
    rows = ledger.rows(
        {source["name"]: job.sources[source["digest"]]["tally"] for source in _sources(job) if source["digest"] in job.sources},
        chained=False,
    )
    return {
        "mix": mix(job),
        "ledger": rows,
        "adds_up": ledger.adds_up(rows),
        "training": training(job),
        "parameters": parameters(job),
    }


def headlines(job: Job) -> list[Tile]:
    tiles: list[Tile] = []
    facts = job.facts("train")
    if facts:
        tiles.append(("tokens trained", wording.count(facts["tokens"]), f"in {wording.count(facts['steps'])} steps"))
        tiles.append(
            ("loss", f"{wording.number(facts['firstLoss'])} → {wording.number(facts['finalLoss'])}", "first and last step")
        )
    if (known := parameters(job)) is not None:
        tiles.append(("parameters", wording.count(known), "exported model"))
    return tiles


def parameters(job: Job) -> int | None:
    """Parameters of the exported model, as counted when it was loaded again."""
    shards = job.manifests.get("export", {}).get("shards", [])
    places = [job.facts("export"), *(shard["facts"] for shard in shards), *([step.counts] if (step := job.step("export")) else [])]
    return next((place["parameters"] for place in places if "parameters" in place), None)


def mix(job: Job) -> list[Json]:
    """Sources with the weight that the spec gives and the tokens that tokenize counted."""
    weights = {_name(entry): entry for entry in job.spec.get("mix", [])}
    total = sum(entry["weight"] for entry in weights.values())
    return [
        source | {"weight": weights.get(source["name"], {}).get("weight"), "part": _part(weights.get(source["name"]), total)}
        for source in _sources(job)
    ]


def _sources(job: Job) -> list[Json]:
    found: list[Json] = job.facts("train").get("sources") or job.facts("tokenize").get("sources", [])
    return found


def _name(entry: Json) -> str:
    return str(entry["corpus"]["name"]) if entry.get("corpus") else f"{entry['alignJob']}/{entry.get('view', 'Aligned')}"


def _part(entry: Json | None, total: float) -> float | None:
    """Its weight over all weights."""
    return entry["weight"] / total if entry and total else None


def training(job: Job) -> Json | None:
    facts = job.facts("train")
    if not facts:
        return None
    curve = facts.get("curve") or []
    charts = {}
    if curve:
        charts["loss"] = figures.line_chart([(p[0], p[1]) for p in curve], "Training loss", "loss")
        charts["rate"] = figures.line_chart([(p[0], p[2]) for p in curve], "Learning rate", "rate", "s2", height=150)
    return facts | {"charts": charts}
