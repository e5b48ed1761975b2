"""The way of the documents through the steps as inline SVG: bands as wide as their counts. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nativealign_workloads.report.figures import element, label, svg
from nativealign_workloads.report.wording import count


@dataclass(frozen=True)
class Stage:
    """One step of the flow."""

    name: str
    read: int
    kept: int
    losses: Sequence[tuple[str, str, int]]
    """(outcome, its name, documents)"""


FLOW_CLASSES = {"heldOut": "s2", "filtered": "s4", "duplicate": "s5", "quarantined": "s6"}


def flow(steps: Sequence[Stage], end: str, title: str) -> Markup:
    """The way of the documents from stage to stage, and what left it. `end`: name of what is kept at last."""
    column, thick, top, left = 264, 110.0, 34, 0
    scale = thick / max(1, steps[0].read)
    deepest = top + thick
    parts: list[Markup] = []
    for place, stage in enumerate(steps):
        x = float(left + column * place)
        drawn, below = _losses(stage, x, top, top + thick + 26, scale)
        parts += [_band(x + 10, top, x + column, top, stage.kept * scale, "s1"), *drawn]
        parts += _node(x, top, stage.read * scale, stage.name, f"in {count(stage.read)}")
        deepest = max(deepest, below)
    kept = steps[-1].kept
    parts += _node(float(left + column * len(steps)), top, kept * scale, end, f"out {count(kept)}")
    return svg(left + column * len(steps) + 140, deepest + 6, title, *parts, class_="chart flow")


def _losses(stage: Stage, x: float, top: float, below: float, scale: float) -> tuple[list[Markup], float]:
    """What leaves the flow at a stage, one below the other; and where they end."""
    parts, offset = [], stage.kept * scale
    for outcome, told, lost in stage.losses:
        thickness = lost * scale
        parts.append(_band(x + 10, top + offset, x + 100, below, thickness, FLOW_CLASSES[outcome]))
        parts.append(label(x + 106, below + max(2.0, thickness) / 2 + 4, f"{told} {count(lost)}"))
        offset += thickness
        below += max(22.0, thickness + 8)
    return parts, below


def _node(x: float, y: float, height: float, name: str, remark: str) -> list[Markup]:
    return [
        element("rect", x=x, y=float(y), width=10.0, height=max(2.0, height), class_="node"),
        label(x, y - 20, name, class_="strong"),
        label(x, y - 6, remark),
    ]


def _band(x1: float, y1: float, x2: float, y2: float, thickness: float, class_: str) -> Markup:
    thickness, middle = max(1.5, thickness), (x1 + x2) / 2
    path = (
        f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}v{thickness:.1f}"
        f"C{middle:.1f} {y2 + thickness:.1f} {middle:.1f} {y1 + thickness:.1f} {x1:.1f} {y1 + thickness:.1f}z"
    )
    return element("path", d=path, class_=f"band {class_}")
