"""The figures of a sweep: bars by value (the paper's Figures 5 to 8), curves, cost, importances, all points."""

from __future__ import annotations

import math
from statistics import mean
from typing import TYPE_CHECKING, Any

from .records import best_trial, spread_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .records import PointRecord
    from .results import SweepResults
    from .space import Label

    Drawing = Callable[[Figure], None]

PLAIN, BEST, GREY = "lightsteelblue", "tab:orange", "0.6"
_PANELS_A_ROW = 4
_MOST_UPRIGHT = 6
"""Values of a field that are drawn as upright bars; more of them lie, and only the most telling scores are shown."""


def titled(name: str, short: bool = True) -> str:
    """A score or field as people write it."""
    return {"average5": "average of 5", "average6": "average of 6"}.get(name, name.replace("_", " " if short else "_"))


def draw_values(figure: Figure, results: SweepResults, name: str) -> None:
    """Each score by the values of one field: bars for a list, the best of each panel highlighted; dots for a range."""
    points = results.by_value(name)
    scores = results.score_names
    if name not in results.listed:
        figure.set_size_inches(7, 4)
        _dots(figure.subplots(), results, name)
        return
    lying = len(points) > _MOST_UPRIGHT or any(len(str(label)) > 12 for label in points)
    if lying:
        scores = list(dict.fromkeys([scores[0], scores[-1]]))
    columns = min(2 if lying else _PANELS_A_ROW, len(scores))
    lines = math.ceil(len(scores) / columns)
    height = 0.9 + 0.33 * len(points) if lying else 2.5
    figure.set_size_inches(max(5.5 if lying else 4.5, (5.2 if lying else 2.9) * columns), height * lines + 0.4)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=lying).flatten()
    for axes, score in zip(panels, scores, strict=False):
        bars = {label: point for label, point in points.items() if score in point.scores()}
        _bars(axes, bars, score, results.greater_is_better, lying)
        decides = " (decides)" if score == results.score_name and len(scores) > 1 else ""
        axes.set_title(titled(score) + decides, fontsize=10, fontweight="bold" if decides else None)
    for axes in panels[len(scores) :]:
        axes.set_visible(False)
    label = figure.supylabel if lying else figure.supxlabel
    label(titled(name), fontsize=10)


def _bars(axes: Axes, points: dict[Label, PointRecord], score: str, greater_is_better: bool, lying: bool) -> None:
    values = [point.scores()[score] for point in points.values()]
    means, spreads = [mean(each) for each in values], [spread_of(each) for each in values]
    best = means.index((max if greater_is_better else min)(means))
    colours = [BEST if index == best else PLAIN for index in range(len(means))]
    low = min(middle - spread for middle, spread in zip(means, spreads, strict=True))
    high = max(middle + spread for middle, spread in zip(means, spreads, strict=True))
    room = max(high - low, 0.02 * abs(high), 1e-3)
    labels = [str(label) for label in points]
    style: dict[str, Any] = {"color": colours, "ecolor": "0.25", "capsize": 2.5}
    style["xerr" if lying else "yerr"] = spreads if any(spreads) else None
    bars = (axes.barh if lying else axes.bar)(labels, means, **style)
    axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    limits = (low - 0.25 * room, high + 0.25 * room)
    if lying:
        axes.set_xlim(limits[0], limits[1] + 0.1 * room)
        axes.invert_yaxis()
    else:
        axes.set_ylim(*limits)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _dots(axes: Axes, results: SweepResults, name: str) -> None:
    for point in results.points:
        best = point is results.best
        axes.errorbar(
            point.point[name],  # type: ignore[arg-type]
            point.mean,
            yerr=point.spread or None,
            fmt="o",
            color=BEST if best else "steelblue",
            zorder=3 if best else 2,
        )
    if results.plan["space"][name]["log"]:
        axes.set_xscale("log")
    axes.set_xlabel(titled(name))
    _finish(axes, results)


def draw_curves(figure: Figure, results: SweepResults) -> None:
    """The deciding score by step, a line a trial."""
    figure.set_size_inches(8, 4.5)
    axes = figure.subplots()
    best = best_trial(results.best, results.greater_is_better) if results.best else None
    styles: dict[str, dict[str, Any]] = {
        "complete": {"color": "steelblue", "alpha": 0.45},
        "pruned": {"color": GREY, "linestyle": "--", "alpha": 0.7},
        "failed": {"color": "tab:red", "linestyle": ":"},
        "open": {"color": "tab:green", "alpha": 0.7},
    }
    seen = set()
    for trial in results.trials:
        curve = results.curve(trial)
        if not curve:
            continue
        style, label = styles[trial.status], trial.status
        if trial is best:
            style, label = {"color": BEST, "linewidth": 2.5, "zorder": 3}, f"best: trial {trial.number}"
        axes.plot(
            *zip(*curve, strict=True), marker="o", markersize=2.5, label=None if label in seen else label, **style
        )
        seen.add(label)
    axes.set_xlabel("step")
    axes.legend(frameon=False, fontsize=9)
    _finish(axes, results)


def draw_cost(figure: Figure, results: SweepResults) -> None:
    """The best score so far by what was spent."""
    figure.set_size_inches(8, 4)
    axes = figure.subplots()
    spent, best, xs, ys = 0, None, [], []
    better = max if results.greater_is_better else min
    for trial in results.trials:
        if trial.outcome is None:
            continue
        spent += results.rows_trained(trial)
        if trial.score is not None:
            best = trial.score if best is None else better(best, trial.score)
            axes.plot(spent, trial.score, "o", color="steelblue", alpha=0.45, markersize=4)
        else:
            axes.axvline(spent, ymax=0.03, color=GREY if trial.status == "pruned" else "tab:red")
        if best is not None:
            xs.append(spent)
            ys.append(best)
    axes.step(xs, ys, where="post", color=BEST, linewidth=2)
    axes.set_xlabel("sentences trained on, all trials so far; ticks below: pruned (grey) or failed (red)")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    _finish(axes, results)


def draw_importances(figure: Figure, importances: dict[str, float]) -> None:
    """How much of the score's variance each field explains."""
    figure.set_size_inches(7, 0.9 + 0.4 * len(importances))
    axes = figure.subplots()
    names = [titled(name) for name in importances]
    colours = [BEST, *[PLAIN] * (len(names) - 1)]
    axes.bar_label(axes.barh(names, list(importances.values()), color=colours), fmt="%.2f", padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(importances.values(), default=1))
    axes.set_xlabel("share of the deciding score's variance (fANOVA)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def draw_parallel(figure: Figure, results: SweepResults) -> None:
    """A line a point through all its values, coloured by the deciding score."""
    import matplotlib as mpl

    names = list(results.space.names)
    figure.set_size_inches(2.4 * (len(names) + 1), 4.6)
    axes = figure.subplots()
    means = [point.mean for point in results.points]
    colour = mpl.colormaps["viridis"].resampled(256)
    norm = mpl.colors.Normalize(min(means), max(means) if max(means) > min(means) else min(means) + 1)
    places = {name: _places(results, name) for name in names}
    for point in reversed(results.points):
        heights = [places[name][point.point[name]] for name in names] + [float(norm(point.mean))]
        best = point is results.best
        style: dict[str, Any] = {"color": BEST, "linewidth": 3} if best else {"color": colour(norm(point.mean))}
        axes.plot(range(len(heights)), heights, alpha=1 if best else 0.6, **style)
    for x, name in enumerate(names):
        axes.axvline(x, color="0.3", linewidth=0.8)
        for label, height in _shown(places[name]).items():
            text = f"{label:.4g}" if isinstance(label, float) else str(label)
            axes.annotate(text, (x, height), (4, 0), textcoords="offset points", fontsize=8, va="center", bbox=_BOX)
    axes.axvline(len(names), color="0.3", linewidth=0.8)
    axes.set_xticks(range(len(names) + 1), [*map(titled, names), titled(results.score_name)])
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(names) + 0.1)
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0)
    figure.colorbar(mpl.cm.ScalarMappable(norm, colour), ax=axes, pad=0.02, label=titled(results.score_name))


_BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
_MOST_LABELS = 16


def _places(results: SweepResults, name: str) -> dict[Label, float]:
    """Where the values of a field stand on its axis, from 0 to 1."""
    found = list(dict.fromkeys(point.point[name] for point in results.points))
    if name in results.listed:
        order = [label for label in results.by_value_order(name) if label in found]
        return {label: index / max(1, len(order) - 1) for index, label in enumerate(order)}
    scale: Callable[[Any], float] = math.log if results.plan["space"][name]["log"] else float
    low, high = (scale(results.plan["space"][name][end]) for end in ("low", "high"))
    return {label: (scale(label) - low) / (high - low) for label in found}


def _shown(places: dict[Label, float]) -> dict[Label, float]:
    if len(places) <= _MOST_LABELS:
        return places
    ends = sorted(places, key=lambda label: places[label])
    return {label: places[label] for label in (ends[0], ends[len(ends) // 2], ends[-1])}


def _finish(axes: Axes, results: SweepResults) -> None:
    axes.set_ylabel(titled(results.score_name))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
