"""From jobs to the page: views, templates, style. The same records give the same bytes."""

from pathlib import Path
from typing import Any

from nativealign_workloads.errors import ConfigError
from nativealign_workloads.report import align, evaluate, overview, pretrain, wording
from nativealign_workloads.report.gather import Job, in_order
from nativealign_workloads.report.text import plain, visible

Json = dict[str, Any]

TEMPLATES = Path(__file__).with_name("templates")

VIEWS: dict[str, Any] = {"AlignJob": align, "PretrainJob": pretrain, "EvalJob": evaluate}

FILTERS = {name: getattr(wording, name) for name in ("count", "number", "percent", "points", "seconds", "size", "short")}


def render(jobs: list[Job]) -> str:
    """The report of one job, or of a chain of several."""
    ordered = in_order(jobs)
    title = ordered[0].reference if len(ordered) == 1 else "Chain of " + ", ".join(job.reference for job in ordered)
    chain = overview.chain(ordered, headlines) if len(ordered) > 1 else []
    page: str = environment().get_template("page.html").render(title=title, chain=chain, jobs=[_job(job) for job in ordered])
    return page


def headlines(job: Job) -> list[overview.Tile]:
    tiles: list[overview.Tile] = VIEWS[job.kind].headlines(job)
    return tiles


def _job(job: Job) -> Json:
    gates = VIEWS[job.kind].gates(job) if job.kind != "PretrainJob" else []
    return {
        "anchor": f"{job.kind.lower()}-{job.namespace}-{job.name}",
        "template": f"{job.kind.lower()}.html",
        "head": overview.head(job),
        "gates": gates,
        "failure": overview.failure(job, gates),
        "pipeline": overview.pipeline(job),
        "tiles": headlines(job),
        "view": VIEWS[job.kind].view(job),
        "cost": overview.cost(job),
        "lineage": overview.lineage(job),
    }


def environment() -> Any:
    """Templates that escape everything, with the filters of `wording`. Raises ConfigError without jinja2."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ModuleNotFoundError:
        raise ConfigError("PackageMissing", "a report needs the package jinja2", 'pip install "nativealign[report]"') from None
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= FILTERS | {"paragraphs": plain}
    found.globals |= {"outcomes": wording.OUTCOMES, "states": wording.STATES}
    return found
