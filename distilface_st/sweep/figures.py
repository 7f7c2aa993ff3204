"""The figures of a sweep: bars by value (the paper's Figures 5 to 8), curves and cost; the others are Optuna's."""

from __future__ import annotations

import math
import warnings
from statistics import mean
from typing import TYPE_CHECKING, Any

from .records import std_of
from .space import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna import Study

    from .records import SweepResults
    from .space import Configuration, Label

PLAIN, BEST, GREY = "lightsteelblue", "tab:orange", "0.6"
_PANELS_A_ROW = 4
_MOST_UPRIGHT = 6
"""Values of a field that are drawn as upright bars; more of them lie, and only the most telling scores are shown."""


def titled(name: str) -> str:
    """A score or field as people write it."""
    return {"average5": "average of 5", "average6": "average of 6"}.get(name, name.replace("_", " "))


def values_figure(results: SweepResults, name: str) -> Figure:
    """Each score by the values of one field: bars for a list, the best of each panel highlighted; dots for a range."""
    if name not in results.listed:
        from optuna.visualization.matplotlib import plot_slice

        return _by_optuna(plot_slice, _trials_study(results), results, (7, 4), params=[name])
    rows = results.by_value(name)
    scores = results.score_names
    lying = len(rows) > _MOST_UPRIGHT or any(len(str(label)) > 12 for label in rows)
    if lying:
        scores = list(dict.fromkeys([scores[0], scores[-1]]))
    columns = min(2 if lying else _PANELS_A_ROW, len(scores))
    lines = math.ceil(len(scores) / columns)
    height = 0.9 + 0.33 * len(rows) if lying else 2.5
    figure = _figure(max(5.5 if lying else 4.5, (5.2 if lying else 2.9) * columns), height * lines + 0.4)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=lying).flatten()
    for axes, score in zip(panels, scores, strict=False):
        bars = {label: one.scores()[score] for label, one in rows.items() if score in one.scores()}
        _bars(axes, bars, results.greater_is_better, lying)
        decides = " (decides)" if score == results.score_name and len(scores) > 1 else ""
        axes.set_title(titled(score) + decides, fontsize=10, fontweight="bold" if decides else None)
    for axes in panels[len(scores) :]:
        axes.set_visible(False)
    label = figure.supylabel if lying else figure.supxlabel
    label(titled(name), fontsize=10)
    return figure


def _bars(axes: Axes, values: dict[Label, list[float]], greater_is_better: bool, lying: bool) -> None:
    means, stds = [mean(each) for each in values.values()], [std_of(each) for each in values.values()]
    best = means.index((max if greater_is_better else min)(means))
    low = min(middle - std for middle, std in zip(means, stds, strict=True))
    high = max(middle + std for middle, std in zip(means, stds, strict=True))
    room = max(high - low, 0.02 * abs(high), 1e-3)
    style: dict[str, Any] = {"color": [BEST if index == best else PLAIN for index in range(len(means))]}
    style |= {"ecolor": "0.25", "capsize": 2.5, "xerr" if lying else "yerr": stds if any(stds) else None}
    bars = (axes.barh if lying else axes.bar)([str(label) for label in values], means, **style)
    axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    if lying:
        axes.set_xlim(low - 0.25 * room, high + 0.35 * room)
        axes.invert_yaxis()
    else:
        axes.set_ylim(low - 0.25 * room, high + 0.25 * room)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def curves_figure(results: SweepResults) -> Figure:
    """The deciding score by step, a line for each trial."""
    figure = _figure(8, 4.5)
    axes = figure.subplots()
    styles: dict[str, dict[str, Any]] = {
        "complete": {"color": "steelblue", "alpha": 0.45},
        "pruned": {"color": GREY, "linestyle": "--", "alpha": 0.7},
        "failed": {"color": "tab:red", "linestyle": ":"},
        "open": {"color": "tab:green", "alpha": 0.7},
    }
    for trial in results.trials:
        style, label = styles[trial.status], trial.status
        if trial is results.best_trial:
            style, label = {"color": BEST, "linewidth": 2.5, "zorder": 3}, f"best: trial {trial.number}"
        if curve := results.curve(trial):
            axes.plot(*zip(*curve, strict=True), marker="o", markersize=2.5, label=label, **style)
    once = {label: line for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    axes.legend(once.values(), once.keys(), frameon=False, fontsize=9)
    axes.set_xlabel("step")
    _finish(axes, results)
    return figure


def cost_figure(results: SweepResults) -> Figure:
    """The best score so far by what was spent: Optuna's history counts trials, as if pruned ones cost the same."""
    figure = _figure(8, 4)
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
    return figure


def importances_figure(results: SweepResults) -> Figure:
    """How much of the deciding score's variance over complete trials each field explains, most first.

    Functional ANOVA (Hutter, Hoos, Leyton-Brown, 2014), as Optuna computes it.
    """
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.visualization.matplotlib import plot_param_importances

    options = {"evaluator": FanovaImportanceEvaluator(n_trees=16, seed=0), "params": list(results.space.names)}
    size = (7, 1 + 0.5 * len(results.space.names))
    return _by_optuna(plot_param_importances, _trials_study(results), results, size, **options)


def parallel_figure(results: SweepResults) -> Figure:
    """A line for each configuration through all its values, coloured by its mean score, the best one thick."""
    from optuna.visualization.matplotlib import plot_parallel_coordinate

    study = _study(results, [(one.configuration, one.mean) for one in results.configurations])
    figure = _by_optuna(plot_parallel_coordinate, study, results, (2.6 * (len(results.space.names) + 1), 4.6))
    lines: Any = figure.axes[0].collections[0]
    lines.set_cmap("viridis" if results.greater_is_better else "viridis_r")  # the worst would be white on white
    best = (max if results.greater_is_better else min)(lines.get_array())
    lines.set_linewidth([4 if score == best else 1.5 for score in lines.get_array()])
    return figure


def _trials_study(results: SweepResults) -> Study:
    scored = [(trial.configuration, trial.score) for trial in results.trials if trial.score is not None]
    return _study(results, scored)


def _study(results: SweepResults, scored: Iterable[tuple[Configuration, float]]) -> Study:
    """An Optuna study of our own numbering, in memory: the sweep's also holds draws that were never run."""
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    distributions: dict[str, Any] = {}
    for dimension in results.space.dimensions:
        if isinstance(dimension, Choice):
            distributions[dimension.name] = CategoricalDistribution(dimension.labels)
        else:
            numbers: Any = IntDistribution if dimension.whole else FloatDistribution
            distributions[dimension.name] = numbers(dimension.low, dimension.high, log=dimension.log)
    study = optuna.create_study(direction="maximize" if results.greater_is_better else "minimize")
    for configuration, score in scored:
        trial = optuna.trial.create_trial(params=configuration, distributions=distributions, value=score)
        study.add_trial(trial)
    return study


def _by_optuna(
    plot: Callable[..., Any], study: Study, results: SweepResults, size: tuple[float, float], **options: Any
) -> Figure:
    """The figure that Optuna draws. It makes one of pyplot's, in a style that it sets for the whole process."""
    from matplotlib import pyplot

    with pyplot.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls its plots experimental
        axes = plot(study, target_name=titled(results.score_name), **options)
        figure: Any = axes.figure
        pyplot.close(figure)
    figure.set_size_inches(*size)
    axes.set_title("")  # the page has one
    axes.set_title("", loc="left")
    axes.set_facecolor("white")
    return figure  # type: ignore[no-any-return]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


def _finish(axes: Axes, results: SweepResults) -> None:
    axes.set_ylabel(titled(results.score_name))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
