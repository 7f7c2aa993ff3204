"""The scatter of a benchmark: quality against speed, and against size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..utils.files import atomic_file
from ..utils.plots import check_plot_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from .report import ArmReport, BenchmarkReport

_MARKERS = {"torch": "o", "onnxruntime": "s", "openvino": "D"}
_LEAST_RANGE = {"average5": 1.0, "average": 1.0, "mean_cosine": 0.01}
_MARGIN = 0.14
_CLOSE = 0.04
_RADII = (9, 15, 22, 30, 40, 52, 66, 82, 100, 120)
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (0.7, -0.7), (-0.7, 0.7), (-0.7, -0.7))


@dataclass(frozen=True)
class _Point:
    x: float
    y: float
    label: str
    model: str
    runtime: str
    filled: bool


def plot_benchmark(report: BenchmarkReport, path: Path) -> None:
    """Draw each arm's quality against its sentences a second at batch 32, and against its size on disk.

    Quality is the average Spearman correlation where anything was scored, and else the mean cosine with the model in
    torch; arms that have neither are left out, and named. A colour is a model, a marker a runtime; arms as a
    SentenceTransformer are filled, those without torch hollow.

    Args:
        report: The benchmark.
        path: The image; its ending says the format.

    Raises:
        InputError: matplotlib does not draw files with this ending; no arm has a score or a cosine.
        MissingExtraError: matplotlib is not installed.
    """
    check_plot_file(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    key, what = _quality_axis(report)
    shown = [arm for arm in report.arms if getattr(arm.quality, key) is not None]
    if not shown:
        raise InputError("There is nothing to plot: no arm has a score, nor a torch arm to compare it with.")
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    colours = {model: f"C{index}" for index, model in enumerate(dict.fromkeys(arm.model for arm in report.arms))}
    rate, source = "sentences_batch32", report.texts["sentences"]["source"]
    panels = (
        (left, _points(shown, key, lambda arm: arm.figures[rate].median, True), f"sentences/s, batch 32, {source}"),
        (right, _points(shown, key, lambda arm: arm.bytes_on_disk / 1e6, False), "MB on disk"),
    )
    for axes, points, heading in panels:
        _scatter(axes, points, colours)
        axes.set_xlabel(f"{heading} (log)")
    left.set_ylabel(what)
    left.set_ylim(*_range(shown, key))
    _legend(figure, shown, colours)
    count = f"threads: {report.threads}" if report.threads else f"cores: {report.machine['cores']}"
    machine = f"{report.machine['processor']}, {count}"
    figure.suptitle(machine + _absent(report.arms, shown), fontsize=10)
    with atomic_file(path) as temporary:
        canvas.draw()  # type: ignore[no-untyped-call]
        for axes, points, _ in panels:
            _label(axes, points, colours)
        figure.savefig(temporary, dpi=150)


def _quality_axis(report: BenchmarkReport) -> tuple[str, str]:
    """The field of ``Quality`` to plot, and what it is called."""
    qualities = [arm.quality for arm in report.arms]
    if any(quality.average5 is not None for quality in qualities):
        return "average5", "Spearman x 100, average of 5 STS sets"
    scored = next((quality.scores for quality in qualities if quality.scores), None)
    if scored:
        return "average", f"Spearman x 100, {', '.join(scored)}"
    return "mean_cosine", "mean cosine with the model in torch, fp32"


def _points(arms: Sequence[ArmReport], key: str, x: Callable[[ArmReport], float], name_fronts: bool) -> list[_Point]:
    """A point for each arm; unless ``name_fronts``, fronts of one export that lie close together share a label."""
    low, high = _range(arms, key)
    named: dict[tuple[str, str], float] = {}
    points = []
    for arm in arms:
        export, quality = arm.arm.partition("/")[0], float(getattr(arm.quality, key))
        close = abs(named.get((arm.model, export), float("inf")) - quality) < _CLOSE * (high - low)
        named[arm.model, export] = quality
        label = export if name_fronts or not close else ""
        points.append(_Point(x(arm), quality, label, arm.model, arm.runtime, arm.kind != "edge"))
    return points


def _range(arms: Sequence[ArmReport], key: str) -> tuple[float, float]:
    """The least and the most of the quality axis: differences of a few hundredths of a point should look small."""
    found = [float(getattr(arm.quality, key)) for arm in arms]
    missing = max(0.0, _LEAST_RANGE[key] - (max(found) - min(found)))
    margin = _MARGIN * (max(found) - min(found) + missing)
    return min(found) - missing / 2 - margin, max(found) + missing / 2 + margin


def _absent(arms: Sequence[ArmReport], shown: Sequence[ArmReport]) -> str:
    """Models without a point, and arms without one of models that have some, as a line of the title."""
    models = {arm.model for arm in shown}
    absent = dict.fromkeys(arm.id if arm.model in models else arm.model for arm in arms if arm not in shown)
    return f"\nnot scored: {', '.join(absent)}" if absent else ""


def _scatter(axes: Any, points: Sequence[_Point], colours: dict[str, str]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    for point in points:
        colour = colours[point.model]
        face = colour if point.filled else "none"
        axes.plot(point.x, point.y, _MARKERS[point.runtime], color=colour, markerfacecolor=face, markersize=7, zorder=3)
    axes.set_xscale("log")
    axes.margins(x=0.18)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _label(axes: Any, points: Sequence[_Point], colours: dict[str, str]) -> None:
    """Write each point's label where it covers no marker and no other label, as near to the point as that allows."""
    from matplotlib.transforms import Bbox

    renderer = axes.figure.canvas.get_renderer()
    scale = axes.figure.dpi / 72
    places = [axes.transData.transform((point.x, point.y)) for point in points]
    taken = [Bbox.from_extents(x - 8 * scale, y - 5 * scale, x + 8 * scale, y + 5 * scale) for x, y in places]
    inside = axes.get_window_extent(renderer)
    crowded_first = sorted(range(len(points)), key=lambda i: -sum(_near(places[i], other) for other in places))
    for index in crowded_first:
        point = points[index]
        if not point.label:
            continue
        text = axes.annotate(
            point.label,
            (point.x, point.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            color=colours[point.model],
        )
        width, height = (size / scale for size in text.get_window_extent(renderer).size)
        best, least = None, float("inf")
        for x, y in _offsets(width, height):
            text.set_position((x, y))
            box = text.get_window_extent(renderer)
            clash = sum(box.overlaps(other) for other in taken) + 2 * (not _contains(inside, box))
            if clash < least:
                best, least = (x, y), clash
            if not clash:
                break
        assert best is not None
        text.set_position(best)
        taken.append(text.get_window_extent(renderer).padded(2 * scale))
        _line(axes, point, best, width, height, colours[point.model])


def _near(first: Any, second: Any) -> bool:
    return bool(abs(first[0] - second[0]) < 80 and abs(first[1] - second[1]) < 30)


def _offsets(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Where a label's centre may lie, in points from its marker, from near to far."""
    for radius in _RADII:
        for x, y in _DIRECTIONS:
            yield x * radius + (x > 0) * width / 2 - (x < 0) * width / 2, y * (radius + height / 3)


def _contains(outer: Any, inner: Any) -> bool:
    return bool(outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1)


def _line(axes: Any, point: _Point, at: tuple[float, float], width: float, height: float, colour: str) -> None:
    """A thin line from a marker to the nearest edge of a label that stands apart from it."""
    x = min(max(0.0, at[0] - width / 2), at[0] + width / 2)
    y = min(max(0.0, at[1] - height / 2), at[1] + height / 2)
    if x**2 + y**2 < 13**2:
        return
    axes.annotate(
        "",
        (point.x, point.y),
        xytext=(x, y),
        textcoords="offset points",
        arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.5, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4},
    )


def _legend(figure: Any, arms: Sequence[ArmReport], colours: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    shown = dict.fromkeys(arm.model for arm in arms)
    handles = [Line2D([], [], marker="o", linestyle="", color=colours[model], label=model) for model in shown]
    for runtime in dict.fromkeys(arm.runtime for arm in arms):
        handles.append(Line2D([], [], marker=_MARKERS[runtime], linestyle="", color="grey", label=runtime))
    if any(arm.kind == "edge" for arm in arms):
        label = "hollow: without torch"
        handles.append(Line2D([], [], marker="s", markerfacecolor="none", linestyle="", color="grey", label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False, fontsize=9)
