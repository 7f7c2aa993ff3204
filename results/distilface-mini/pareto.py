"""The table and the two Pareto plots of compare.py, from its CSV files.

No command of its own; see compare.py.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from distilface_st.benchmark.plot import place_labels
from distilface_st.utils.files import atomic_file

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
    for point in points:
        axes.text(
            point.x,
            point.shown.y,
            point.shown.label,
            ha="center",
            va="center",
            fontsize=10 if point.is_ours else 9,
            color=ACCENT if point.is_ours else INK,
            fontweight="bold" if point.is_ours else "normal",
            path_effects=[withStroke(linewidth=3, foreground="white")],
            zorder=4,
        )
    place_labels(figure)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


def pareto_front(points: list[Point], smaller_is_better: bool) -> list[Point]:
    """The points than which none is both better and cheaper, from left to right."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x if smaller_is_better else -p.x, -p.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return sorted(front, key=lambda point: point.x)
