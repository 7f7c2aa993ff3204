"""The scatter of a benchmark: quality against speed, and against size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..utils.extras import require
from ..utils.files import atomic_file
from ..utils.plots import check_plot_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .report import BenchmarkReport, Quality, VariantReport

_MARKERS = {"torch": "o", "onnxruntime": "s", "openvino": "D"}
_LEAST_RANGE = {"average5": 1.0, "average": 1.0, "mean_cosine": 0.01}
"""The quality axis spans at least this, so that differences of a few hundredths of a point look small."""
_MARGIN = 0.14
_CLOSE = 0.04


def plot_benchmark(report: BenchmarkReport, path: Path) -> None:
    """Draw each variant's quality against its sentences a second at batch 32, and against its size on disk.

    Quality is the average Spearman correlation where anything was scored, and else the mean cosine with the model in
    torch; variants that have neither are left out, and named. A colour is a model, a marker a runtime; variants as a
    SentenceTransformer are filled, those without torch hollow.

    Args:
        report: The benchmark.
        path: The image; its ending says the format.

    Raises:
        InputError: matplotlib does not draw files with this ending; no variant has a score or a cosine.
        MissingExtraError: The extra ``plots`` is not installed.
    """
    check_plot_file(path)
    require("adjustText", "Plotting", "plots")
    from matplotlib.figure import Figure

    key, what = _quality_axis([variant.quality for variant in report.variants])
    shown = [variant for variant in report.variants if getattr(variant.quality, key) is not None]
    if not shown:
        raise InputError("There is nothing to plot: no variant has a score, nor a torch variant to compare it with.")
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.set_ylabel(what)
    values = [float(getattr(variant.quality, key)) for variant in shown]
    missing = max(0.0, _LEAST_RANGE[key] - (max(values) - min(values)))
    margin = _MARGIN * (max(values) - min(values) + missing) + missing / 2
    left.set_ylim(min(values) - margin, max(values) + margin)
    models = dict.fromkeys(variant.model for variant in report.variants)
    colours = {model: f"C{index}" for index, model in enumerate(models)}
    _legend(figure, shown, colours)
    title = f"{report.machine['processor']}, "
    title += f"threads: {report.threads}" if report.threads else f"cores: {report.machine['cores']}"
    drawn = {variant.model for variant in shown}
    absent = dict.fromkeys(v.id if v.model in drawn else v.model for v in report.variants if v not in shown)
    figure.suptitle(title + (f"\nnot scored: {', '.join(absent)}" if absent else ""), fontsize=10)
    speed = f"sentences/s, batch 32, {report.texts['sentences']['source']}"
    _scatter(left, speed, shown, key, colours, lambda variant: variant.figures["sentences_batch32"].median)
    _scatter(right, "MB on disk", shown, key, colours, lambda variant: variant.bytes_on_disk / 1e6, share_labels=True)
    place_labels(figure)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


def place_labels(figure: Any) -> None:
    """Move the texts of each of a figure's axes to where they cover no point and no other text.

    The figure must be finished but for this: afterwards its layout stays as it is. Its points must have been drawn one
    by one, with ``plot``, and each text centred at its point; a thin line then leads from one to the other.
    """
    adjust_text = require("adjustText", "Plotting", "plots").adjust_text
    for text in (text for axes in figure.axes for text in axes.texts):
        text.set_in_layout(False)  # where they are now they may stick out, and the axes would shrink for them
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        to_data = axes.transData.inverted()
        markers = [line.get_window_extent().padded(3) for line in axes.lines if len(line.get_xdata()) == 1]
        adjust_text(
            list(axes.texts),
            objects=[marker.transformed(to_data) for marker in markers],
            ax=axes,
            iter_lim=100,  # rather than a limit of time, so that every machine draws the same figure
            arrowprops={"arrowstyle": "-", "color": "grey", "alpha": 0.6, "linewidth": 0.7},
        )


def _quality_axis(qualities: Sequence[Quality]) -> tuple[str, str]:
    """The field of ``Quality`` to plot, and what it is called."""
    if any(quality.average5 is not None for quality in qualities):
        return "average5", "Spearman x 100, average of 5 STS sets"
    scored = next((quality.scores for quality in qualities if quality.scores), None)
    if scored:
        return "average", f"Spearman x 100, {', '.join(scored)}"
    return "mean_cosine", "mean cosine with the model in torch, fp32"


def _scatter(
    axes: Any,
    heading: str,
    variants: Sequence[VariantReport],
    key: str,
    colours: dict[str, str],
    x: Callable[[VariantReport], float],
    share_labels: bool = False,
) -> None:
    """Draw a marker and a label for each variant; both ways to open an export may share one where they lie close."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axes.set(xscale="log", xlabel=f"{heading} (log)")
    axes.margins(x=0.18)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = axes.get_ylim()
    labelled: dict[tuple[str, str], float] = {}
    for variant in variants:
        place, colour = (x(variant), float(getattr(variant.quality, key))), colours[variant.model]
        face = "none" if variant.kind == "edge" else colour
        axes.plot(*place, _MARKERS[variant.runtime], color=colour, markerfacecolor=face, markersize=7, zorder=3)
        export = variant.variant.partition("/")[0]
        other = labelled.get((variant.model, export))
        if not share_labels or other is None or abs(other - place[1]) >= _CLOSE * (high - low):
            axes.text(*place, export, ha="center", va="center", fontsize=8, color=colour)
        labelled[variant.model, export] = place[1]


def _legend(figure: Any, variants: Sequence[VariantReport], colours: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    def entry(label: str, marker: str, colour: str, **style: Any) -> Any:
        return Line2D([], [], linestyle="", label=label, marker=marker, color=colour, **style)

    handles = [entry(model, "o", colours[model]) for model in dict.fromkeys(v.model for v in variants)]
    handles += [entry(runtime, _MARKERS[runtime], "grey") for runtime in dict.fromkeys(v.runtime for v in variants)]
    if any(variant.kind == "edge" for variant in variants):
        handles.append(entry("hollow: without torch", "s", "grey", markerfacecolor="none"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False, fontsize=9)
