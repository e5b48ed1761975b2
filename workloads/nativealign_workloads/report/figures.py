"""Charts as inline SVG: lines, histograms, intervals. Pure, without a plotting library.

Colours are CSS classes of the page, so a chart follows light and dark; every chart is an image with a text alternative.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from nativealign_workloads.report.text import visible
from nativealign_workloads.report.wording import count, number

Point = tuple[float, float]


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An SVG element; everything that is no markup yet is escaped. `class_` is class, `_` in names is `-`."""
    pairs = [(name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None]
    text = "".join(f' {name}="{escape(_attribute(value))}"' for name, value in pairs)
    return Markup(f"<{tag}{text}>{''.join(str(escape(visible(child))) for child in children)}</{tag}>")


def _attribute(value: object) -> object:
    return f"{round(value, 1):g}" if isinstance(value, float) else visible(value)


def svg(width: int, height: float, label: str, *children: object, class_: str = "chart") -> Markup:
    title = element("title", label)
    return element("svg", title, *children, viewBox=f"0 0 {width} {math.ceil(height)}", role="img", class_=class_, aria_label=label)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def label(x: float, y: float, text: str, anchor: str = "start", class_: str | None = None) -> Markup:
    return element("text", text, x=float(x), y=float(y), text_anchor=anchor, class_=class_)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values inside [low, high], about `wanted` of them."""
    if high - low <= 1e-9 * max(1.0, abs(low), abs(high)):
        return [low]
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Scale:
    """A straight line from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        return self.start + (self.end - self.start) * ((value - self.low) / span if span else 0.5)


def line_chart(points: Sequence[Point], title: str, unit: str, class_: str = "s1", height: int = 250) -> Markup:
    """A curve over training steps."""
    width, left, right, top, bottom = 960, 64, 56, 26, 40
    steps, values = [p[0] for p in points], [p[1] for p in points]
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    across = Scale(min(steps), max(steps), left, width - right)
    up = Scale(max(0.0, low - room) if low >= 0 else low - room, high + room, height - bottom, top)
    path = "M" + "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in points)
    last = points[-1]
    told = f"{title}: from {number(values[0])} at step {count(steps[0])} to {number(last[1])} at step {count(last[0])}"
    return svg(
        width,
        height,
        told,
        *[
            line(left, up(v), width - right, up(v), "grid") + label(left - 8, up(v) + 4, number(v), "end")
            for v in ticks(up.low, up.high)
        ],
        *[label(across(v), height - bottom + 18, count(v), "middle") for v in ticks(across.low, across.high, 8) if v == int(v)],
        label(left - 8, 14, unit, "end", "unit"),
        label(width - right, height - 5, "training step", "end", "unit"),
        element("path", d=path, class_=f"line {class_}"),
        element("circle", cx=across(last[0]), cy=up(last[1]), r=3.5, class_=f"fill {class_}"),
        label(across(last[0]) + 8, up(last[1]) + 4, number(last[1]), class_="strong"),
    )


Bins = tuple[Sequence[int], Sequence[float]]
"""Counts, and one more edge than counts."""


def histogram(bins: Bins, title: str, mean: float | None = None) -> Markup:
    """Documents by value; a line marks the mean."""
    width, height, base = 290, 128, 104
    counts, edges = bins
    across, up = Scale(edges[0], edges[-1], 8, width - 8), Scale(0, max(counts), base, 12)
    told = f"{title}: histogram of {count(sum(counts))} values from {number(edges[0])} to {number(edges[-1])}"
    return svg(
        width,
        height,
        told,
        *_bars(counts, edges, across, up, "s1"),
        line(8, base, width - 8, base, "axis"),
        label(8, 9, f"highest bar {count(max(counts))}", class_="unit"),
        *_value_ticks(across, height - 8),
        *([line(across(mean), 6, across(mean), base, "mark")] if mean is not None else []),
        class_="chart small",
    )


def mirrored(before: Bins, after: Bins, title: str) -> Markup:
    """Two histograms over one axis: before above, after below. Heights are densities, as the bins differ in width."""
    width, half, middle = 290, 66, 76
    low, high = min(before[1][0], after[1][0]), max(before[1][-1], after[1][-1])
    across = Scale(low, high, 8, width - 8)
    tallest = max(max(_density(*before)), max(_density(*after)))
    told = f"{title}: histograms before and after over {number(low)} to {number(high)}"
    return svg(
        width,
        2 * half + 44,
        told,
        *_bars(_density(*before), before[1], across, Scale(0, tallest, middle, middle - half), "s3"),
        *_bars(_density(*after), after[1], across, Scale(0, tallest, middle, middle + half), "s1"),
        line(8, middle, width - 8, middle, "axis"),
        label(width - 8, 16, "before", "end", "unit"),
        label(width - 8, middle + half, "after", "end", "unit"),
        *_value_ticks(across, 2 * half + 36),
        class_="chart small",
    )


def _density(counts: Sequence[int], edges: Sequence[float]) -> list[float]:
    total = sum(counts) or 1
    return [n / total / ((b - a) or 1.0) for n, a, b in zip(counts, edges, edges[1:], strict=False)]


def _bars(heights: Sequence[float], edges: Sequence[float], across: Scale, up: Scale, class_: str) -> list[Markup]:
    bars = []
    for height, left, right in zip(heights, edges, edges[1:], strict=False):
        top, base = sorted((up(height), up(0)))
        if height:
            width = max(1.0, across(right) - across(left) - 1)
            bars.append(element("rect", x=across(left), y=top, width=width, height=max(1.0, base - top), class_=f"fill {class_}"))
    return bars


def _value_ticks(across: Scale, y: float) -> list[Markup]:
    shown = ticks(across.low, across.high, 4)
    ends = {
        shown[0]: "start" if across(shown[0]) < 20 else "middle",
        shown[-1]: "end" if across(shown[-1]) > across.end - 20 else "middle",
    }
    return [label(across(v), y, number(v), ends.get(v, "middle")) for v in shown]


@dataclass(frozen=True)
class Interval:
    """One line of a forest plot."""

    name: str
    value: float
    low: float
    high: float
    class_: str = "s1"
    reference: tuple[float, str] | None = None
    """A value to compare with, drawn hollow, and what it is."""


def forest(
    intervals: Sequence[Interval], title: str, bounds: Point, marks: Sequence[tuple[float, str]] = (), scale: float = 100
) -> Markup:
    """Values with their intervals; `marks` are vertical lines with a name. Numbers are shown times `scale`."""
    width, left, right, row, top = 960, 150, 160, 30, 30
    bottom = top + row * len(intervals)
    across = Scale(*bounds, left, width - right)
    told = f"{title}: " + "; ".join(
        f"{i.name} {i.value * scale:.1f}, interval {i.low * scale:.1f} to {i.high * scale:.1f}" for i in intervals
    )
    return svg(
        width,
        bottom + 34,
        told,
        *[
            line(across(v), top - 6, across(v), bottom, "grid") + label(across(v), bottom + 18, f"{v * scale:g}", "middle")
            for v in ticks(*bounds)
        ],
        *[
            line(across(v), top - 10, across(v), bottom, "mark") + label(across(v), top - 16, name, "middle", "unit")
            for v, name in marks
        ],
        *[_interval(interval, across, top + row * (n + 0.5), width, scale) for n, interval in enumerate(intervals)],
    )


def _interval(item: Interval, across: Scale, y: float, width: int, scale: float) -> Markup:
    low, high, value = across(item.low), across(item.high), across(item.value)
    hollow = []
    if item.reference:
        x = across(item.reference[0])
        hollow = [element("path", element("title", item.reference[1]), d=f"M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6-6z", class_="hollow")]
    shown = f"{item.value * scale:.1f}  [{item.low * scale:.1f}, {item.high * scale:.1f}]"
    ends = [line(x, y - 4, x, y + 4, f"line {item.class_}") for x in (low, high)]
    return element(
        "g",
        label(across.start - 12, y + 4, item.name, "end", "strong"),
        line(low, y, high, y, f"line {item.class_}"),
        *ends,
        *hollow,
        element("circle", cx=value, cy=float(y), r=4.5, class_=f"fill {item.class_}"),
        label(width, y + 4, shown, "end"),
    )
