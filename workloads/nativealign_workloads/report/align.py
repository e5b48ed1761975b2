"""What an AlignJob's report shows. Pure."""

from typing import Any

from markupsafe import Markup

from nativealign_workloads.report import figures, flow, ledger, text, wording
from nativealign_workloads.report.gather import Job
from nativealign_workloads.report.overview import Tile

Json = dict[str, Any]

LEDGER_STEPS = ("clean", "dedup", "rewrite")
"""Steps that read documents, in order."""

LISTED = 40
"""Input files that are listed."""

OPEN_SAMPLES = 4
"""Samples that are unfolded from the start."""

PAIRS = ("perplexity", "toxicity")
"""Measures taken before and after."""


def view(job: Job) -> Json:
    rows = ledger.rows({step: job.manifests[step]["tally"] for step in LEDGER_STEPS if step in job.manifests})
    return {
        "inputs": inputs(job),
        "ledger": rows,
        "adds_up": ledger.adds_up(rows),
        "flow": _flow(rows),
        "reasons": reasons(rows),
        "clusters": clusters(job.facts("dedup")),
        "dedup": job.facts("dedup"),
        "seed": seed(job),
        "worker": worker(job),
        "rewrite": rewriting(job),
        "measures": measures(job),
        "assessed": job.facts("assess").get("documents"),
        "samples": samples(job),
    }


def gates(job: Job) -> list[Json]:
    """Verdicts in words."""
    found = []
    for gate in job.facts("assess").get("gates", []):
        name, side = wording.GATES.get(gate["gate"], (gate["gate"], "limit"))
        unit = " %" if gate["gate"].endswith("Percent") else ""
        value = "not measured" if gate["value"] is None else f"{wording.number(gate['value'])}{unit}"
        if "low" in gate:
            value += f" ({wording.number(gate['low'])} to {wording.number(gate['high'])})"
        told = f"{name} {value}, {side} {wording.number(gate['limit'])}{unit}"
        found.append(
            {"name": gate["gate"], "text": told, "passed": gate["passed"], "verdict": "Pass" if gate["passed"] else "Fail"}
        )
    return found


def headlines(job: Job) -> list[Tile]:
    tiles: list[Tile] = []
    rows = ledger.rows({step: job.manifests[step]["tally"] for step in LEDGER_STEPS if step in job.manifests})
    if rows:
        tiles.append(("documents read", wording.count(rows[0].read), f"{wording.count(rows[-1].kept)} left after {rows[-1].step}"))
    if chunks := job.facts("rewrite").get("chunks"):
        total = sum(chunks.values())
        tiles.append(("chunks rewritten", wording.percent(chunks.get("Rewritten", 0), total), f"of {wording.count(total)}"))
    kept = job.facts("assess").get("measures", {}).get("numbersKept", {})
    if kept.get("mean") is not None:
        tiles.append(("numbers kept", wording.percent(kept["mean"], 1), f"mean of {wording.count(kept['count'])} documents"))
    if duplicates := job.facts("dedup").get("duplicates"):
        tiles.append(
            ("duplicates removed", wording.count(duplicates), f"in {wording.count(job.facts('dedup')['clusters'])} clusters")
        )
    return tiles


def inputs(job: Job) -> Json:
    """Corpora with schema and licence, files, forecast."""
    found = job.facts("inspect").get("inputs", {}).get("corpora", {})
    files = job.listing.get("files", [])
    return {
        "corpora": [corpus | {"license": corpus.get("license") or None} for corpus in found.get("corpora", [])],
        "bytes": found.get("bytes"),
        "shards": found.get("shards"),
        "files": files[:LISTED],
        "more": len(files) - LISTED,
        "forecast": found.get("forecast"),
    }


def _flow(rows: list[ledger.Row]) -> Markup | None:
    if not rows or not rows[0].read:
        return None
    stages = [flow.Stage(row.step, row.read, row.kept, [(o, wording.OUTCOMES[o], n) for o, n in row.losses]) for row in rows]
    end = "aligned corpus" if rows[-1].step == LEDGER_STEPS[-1] else f"after {rows[-1].step}"
    told = f"Flow of documents: {wording.count(rows[0].read)} read; " + "; ".join(
        f"{row.step} keeps {wording.count(row.kept)}" for row in rows
    )
    return flow.flow(stages, end, told)


def reasons(rows: list[ledger.Row]) -> list[Json]:
    """Why documents were removed, and what was done to kept ones: one group for each step and sort."""
    groups = []
    for row in rows:
        for title, of in ((f"Why {row.step} removed documents", False), (f"What {row.step} changed in kept documents", True)):
            found = [reason for reason in row.reasons if (reason.outcome == ledger.OPERATION) == of]
            if found:
                groups.append({"title": title, "read": row.read, "rows": found, "most": max(r.count for r in found), "kept": of})
    return groups


def clusters(dedup: Json) -> list[tuple[str, int]]:
    """(documents in a cluster, clusters): the record has the upper end of 2, 3-4, 5-8, …"""
    sizes = sorted((int(end), n) for end, n in dedup.get("clusterSizes", {}).items())
    return [("2" if end == 2 else f"{end // 2 + 1}–{end}", n) for end, n in sizes]


def seed(job: Job) -> Json | None:
    """The expert's pairs."""
    facts = job.facts("annotate")
    if not facts:
        return None
    rejected = facts["pairs"] - facts["accepted"]
    return facts | {
        "rejected": rejected,
        "broken": [{"guard": name, "count": n, "words": wording.GUARDS.get(name, "")} for name, n in _by_count(facts["guards"])],
    }


def worker(job: Job) -> Json | None:
    facts = job.facts("train-worker")
    if not facts:
        return None
    base = (job.spec.get("worker") or {}).get("base") or {}
    chart = figures.line_chart([(p[0], p[1]) for p in facts["curve"]], "Loss of the worker", "loss") if facts.get("curve") else None
    held_out = facts.get("heldOutCurve") or []
    below = figures.line_chart([(p[0], p[1]) for p in held_out], "Loss on held-out pairs", "loss") if len(held_out) > 1 else None
    lowest = min(held_out, key=lambda point: point[1]) if held_out else None
    shown = {"base": base.get("uri") or "a new model that the spec configures", "chart": chart, "heldOutChart": below}
    return facts | shown | {"lowest": lowest, "last": held_out[-1] if held_out else None}


def rewriting(job: Job) -> Json | None:
    """Chunks by what became of them, the guards, and a sentence that says it plainly."""
    facts = job.facts("rewrite")
    if not facts:
        return None
    chunks, total = facts["chunks"], sum(facts["chunks"].values())
    states = [
        {"state": s, "count": chunks[s], "share": wording.percent(chunks[s], total), "words": w}
        for s, w in wording.STATES.items()
        if chunks.get(s)
    ]
    return {
        "states": states,
        "total": total,
        "guards": _guards(facts["guards"], total, job.conduct),
        "rejected": rejected(job),
        "plain": plain_words(job, chunks),
    }


def plain_words(job: Job, chunks: dict[str, int]) -> list[str]:
    """What happened to the chunks, without varnish."""
    total = sum(chunks.values())
    who = "worker" if job.spec.get("worker") else "expert"
    told = {
        "Original": f"The {who}’s answers were rejected for {{}} of the chunks; the original was kept.",
        "Dropped": "{} of the chunks were dropped: neither answer nor original may stand.",
        "Rewritten": f"{{}} of the chunks were replaced by the {who}’s rewriting.",
        "Unchanged": f"{{}} of the chunks the {who} returned as they were.",
    }
    order = sorted((state for state in told if chunks.get(state)), key=lambda state: -chunks[state])
    return [told[state].format(wording.percent(chunks[state], total)) for state in order]


def _guards(broken: dict[str, int], total: int, conduct: Json) -> list[Json]:
    limits = conduct.get("guards", {})
    rows = []
    for name, n in _by_count(broken):
        guard, _, action = name.partition("/")
        limit = limits.get(guard[0].lower() + guard[1:], {})
        rows.append(
            {
                "guard": guard,
                "action": action,
                "count": n,
                "per_hundred": f"{100 * n / total:.1f}" if total else "–",
                "part": min(1.0, n / total) if total else 0,
                "limit": _limit(limit),
                "words": wording.GUARDS.get(guard, ""),
            }
        )
    return rows


def _limit(guard: Json) -> str:
    if "minimum" in guard:
        return f"{guard['minimum']:g} to {guard['maximum']:g}"
    return f"at most {guard['limit']:g}" if "limit" in guard else ""


def _by_count(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def measures(job: Job) -> list[Json]:
    """Every measure that assess knows, with its summary or the reason why there is none."""
    found = job.facts("assess").get("measures")
    if found is None:
        return []
    asked = job.spec.get("assess") or {}
    cards = [_single(name, found[name]) for name in ("changed", "numbersKept", "namesKept", "lengthRatio") if name in found]
    effects = job.facts("assess").get("effects", {})
    for name in PAIRS:
        card = _pair(name, found, f"spec.assess.{name}Model is not set" if not asked.get(f"{name}Model") else "")
        cards.append(card | {"told": wording.effect(name, effects[name])} if effects.get(name) else card)
    judged = sorted(name for name in found if name.startswith("judge"))
    if not judged:
        return [*cards, {"name": "Judge", "words": "Five aspects, 1 to 10.", "missing": "spec.assess.judge is not set"}]
    agreement = job.facts("assess").get("agreement", {})
    for name in judged:
        told = {"told": wording.agreement(agreement[name])} if agreement.get(name) else {}
        cards.append(_single(name, found[name]) | told)
    return cards


def _single(name: str, summary: Json) -> Json:
    title, words = wording.MEASURES.get(name, (name, ""))
    card = {"name": title, "words": words}
    if summary["mean"] is None:
        return card | {"missing": f"no usable value for {wording.count(summary['missing'])} documents"}
    chart = None if name == "changed" else figures.histogram(_bins(summary), title, summary["mean"])
    return card | {"sides": [{"side": "", **summary}], "share": name == "changed", "chart": chart}


def _pair(name: str, found: Json, reason: str) -> Json:
    title, words = wording.MEASURES[name]
    sides = [{"side": side.lower(), **found[f"{name}{side}"]} for side in ("Before", "After") if f"{name}{side}" in found]
    present = [side for side in sides if side["mean"] is not None]
    if len(present) < 2:
        return {"name": title, "words": words, "missing": reason or "no usable value"}
    return {"name": title, "words": words, "sides": sides, "chart": figures.mirrored(_bins(sides[0]), _bins(sides[1]), title)}


def _bins(summary: Json) -> figures.Bins:
    return summary["histogram"]["counts"], summary["histogram"]["edges"]


def samples(job: Job) -> list[Json]:
    """Before and after, with the words marked that changed."""
    language = job.conduct.get("language")
    return [_sample(sample, language, number) for number, sample in enumerate(job.facts("assess").get("samples", []))]


def rejected(job: Job) -> list[Json]:
    """The worst answers of each guard, beside the chunks that they were to replace."""
    return [answer | _sides(answer, job.conduct.get("language")) for answer in job.facts("rewrite").get("rejected", [])]


def _sides(shown: Json, language: str | None) -> Json:
    """Both texts of a sample, with the words marked that changed."""
    before, after = text.compare(shown["origin"], shown["rewritten"])
    return {"before": before, "after": after, "direction": text.direction(shown["origin"]), "language": language}


def _sample(sample: Json, language: str | None, number: int) -> Json:
    states = {state: sample["states"].count(state) for state in wording.STATES if state in sample["states"]}
    return (
        sample
        | _sides(sample, language)
        | {
            "same": sample["origin"] == sample["rewritten"],
            "states": states,
            "open": number < OPEN_SAMPLES,
        }
    )
