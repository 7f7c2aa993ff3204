"""The table and the two Pareto plots of compare.py, from its CSV files.

No command of its own; see compare.py.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from distilface_st.utils.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = "distilface-"
BASELINE = "all-MiniLM-L6-v2"
SETS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STS-B", "average5", "STS-B-dev")
PUBLISHED = {
    "potion-base-2M": (8e6, 71.25),
    "potion-base-8M": (30e6, 73.32),
    "DistilFACE (paper)": (265e6, 72.10),
    "SimCSE-BERT-base": (438e6, 76.59),
}
"""Bytes and average5 as their authors give them; nothing of them was measured here."""

INK, ACCENT, MUTED = "#333333", "#c1121f", "#4a6fa5"
FLOOR = 68.0
"""Lower scores are drawn at the bottom edge, with the score beside the name."""

RADII = (9, 12, 16, 21, 27, 34, 42, 51, 61, 72)
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7))


@dataclass(frozen=True)
class Point:
    label: str
    x: float
    y: float
    measured: bool = True

    @property
    def is_ours(self) -> bool:
        return self.label.startswith(OURS)

    @property
    def shown(self) -> Point:
        """Where it is drawn."""
        if self.y >= FLOOR:
            return self
        return Point(f"{self.label} ({self.y:.1f})", self.x, FLOOR, self.measured)


def values(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Model -> measure -> the median of its values."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["model"]][row["measure"]].append(float(row["value"]))
    return {model: {name: median(all_) for name, all_ in measures.items()} for model, measures in found.items()}


def write_table(rows: list[dict[str, Any]], rates: list[dict[str, Any]], path: Path) -> None:
    quality, speed = values(rows), values(rates)
    how = {row["model"]: row["how"] for row in [*rates, *rows]}
    baseline = speed.get(BASELINE, {}).get("sentences/s")
    heads = ("model", "run in", "MB", *SETS, "MRR@10", "recall@10", "sentences/s", f"x {BASELINE}", "cold start, s")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for model in sorted({**quality, **speed}, key=lambda name: order(name, quality)):
        known, rate = quality.get(model, {}), speed.get(model, {}).get("sentences/s")
        cells = [model, how[model], f"{known['bytes'] / 1e6:.1f}" if "bytes" in known else ""]
        cells += [f"{known[name]:.2f}" if name in known else "" for name in SETS]
        cells += [f"{known[name]:.3f}" if name in known else "" for name in ("mrr10", "recall10")]
        cells += [f"{rate:,.0f}" if rate else "", f"{rate / baseline:.2f}" if rate and baseline else ""]
        cold = speed.get(model, {}).get("cold start s")
        lines.append("| " + " | ".join([*cells, f"{cold:.2f}" if cold else ""]) + " |")
    with atomic_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def order(model: str, quality: dict[str, dict[str, float]]) -> tuple[bool, float]:
    """Ours first, then by size; what has no size comes last."""
    return not model.startswith(OURS), quality.get(model, {}).get("bytes", float("inf"))


def plot(rows: list[dict[str, Any]], rates: list[dict[str, Any]], folder: Path) -> None:
    quality, speed = values(rows), values(rates)
    scored = {model: known for model, known in quality.items() if "average5" in known}
    by_bytes = [Point(model, known["bytes"] / 1e6, known["average5"]) for model, known in scored.items()]
    by_bytes += [Point(name, size / 1e6, score, measured=False) for name, (size, score) in PUBLISHED.items()]
    draw(by_bytes, "MB that must ship: model and tokenizer", folder / "pareto-bytes.png", smaller_is_better=True)
    by_speed = [
        Point(model, speed[model]["sentences/s"], known["average5"])
        for model, known in scored.items()
        if model in speed
    ]
    if by_speed:
        heading = "Wikipedia sentences a second on two cores"
        draw(by_speed, heading, folder / "pareto-speed.png", smaller_is_better=False)


def draw(points: list[Point], heading: str, path: Path, smaller_is_better: bool) -> None:
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    front = pareto_front([point for point in points if point.measured], smaller_is_better)
    where = "post" if smaller_is_better else "pre"
    axes.step([p.x for p in front], [p.y for p in front], where=where, color=INK, alpha=0.25, linewidth=1.2, zorder=1)
    for point in points:
        colour = ACCENT if point.is_ours else MUTED
        face = colour if point.measured else "white"
        shape, size = ("*", 17) if point.is_ours else ("o" if point.y >= FLOOR else "v", 8)
        axes.plot(
            point.x, point.shown.y, shape, color=colour, markerfacecolor=face, markersize=size, zorder=3, clip_on=False
        )
    axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.set_ylim(FLOOR if min(point.y for point in points) < FLOOR + 1 else None, max(p.y for p in points) + 1.5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"{heading} (log)")
    axes.set_ylabel("average5: Spearman x 100, mean of STS12-15 and STS-B")
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    if any(not point.measured for point in points):
        axes.set_title("hollow: as published", loc="right", color=INK, fontsize=9)
    canvas.draw()
    write_labels(axes, [point.shown for point in points])
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


def pareto_front(points: list[Point], smaller_is_better: bool) -> list[Point]:
    """The points than which none is both better and cheaper, from left to right."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x if smaller_is_better else -p.x, -p.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return sorted(front, key=lambda point: point.x)


def write_labels(axes: Any, points: list[Point]) -> None:
    """A label beside each marker, where it covers neither another one nor a marker."""
    renderer = axes.figure.canvas.get_renderer()
    scale = axes.figure.dpi / 72
    inside = axes.get_window_extent(renderer)
    taken = [_box(axes, point, (9 if point.is_ours else 5) * scale) for point in points]
    for point in sorted(points, key=lambda p: not p.is_ours):
        text = axes.annotate(
            point.label,
            (point.x, point.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=10 if point.is_ours else 9,
            color=ACCENT if point.is_ours else INK,
            fontweight="bold" if point.is_ours else "normal",
            path_effects=[withStroke(linewidth=3, foreground="white")],
            zorder=4,
        )
        size = text.get_window_extent(renderer)
        width, height = size.width / scale, size.height / scale
        least, best = float("inf"), (0.0, 0.0)
        for place in _places(width, height):
            text.set_position(place)
            box = text.get_window_extent(renderer).padded(2 * scale)
            cost = sum(box.overlaps(other) for other in taken) + 3 * (not _within(inside, box))
            if cost < least:
                least, best = cost, place
        text.set_position(best)
        taken.append(text.get_window_extent(renderer).padded(2 * scale))
        _leader(axes, point, best, width, height)


def _leader(axes: Any, point: Point, at: tuple[float, float], width: float, height: float) -> None:
    """A thin line from a marker to a label that stands apart from it."""
    x = min(max(0.0, at[0] - width / 2), at[0] + width / 2)
    y = min(max(0.0, at[1] - height / 2), at[1] + height / 2)
    if x**2 + y**2 < 14**2:
        return
    style = {"arrowstyle": "-", "color": INK, "alpha": 0.4, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
    axes.annotate("", (point.x, point.y), xytext=(x, y), textcoords="offset points", arrowprops=style)


def _places(width: float, height: float) -> Iterator[tuple[float, float]]:
    for radius in RADII:
        for x, y in DIRECTIONS:
            side = (x > 0) - (x < 0)
            yield x * radius + side * width / 2, y * (radius + height / 2)


def _box(axes: Any, point: Point, radius: float) -> Any:
    x, y = axes.transData.transform((point.x, point.y))
    return Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)


def _within(outer: Any, inner: Any) -> bool:
    return bool(outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1)
