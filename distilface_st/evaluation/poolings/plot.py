"""The bar chart of a pooling study (the paper's Figure 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...utils.files import atomic_file
from ...utils.plots import check_plot_file

if TYPE_CHECKING:
    from pathlib import Path

    from .study import PoolingStudy


def plot_poolings(study: PoolingStudy, path: Path) -> None:
    """Draw the score of each pooling, the best bar highlighted (the paper's Figure 8).

    Args:
        study: The scores.
        path: The image; its ending says the format.

    Raises:
        InputError: matplotlib does not draw files with this ending.
        MissingExtraError: matplotlib is not installed.
    """
    check_plot_file(path)
    from matplotlib.figure import Figure

    results = study.distinct()
    modes = sorted({result.pooling_mode for result in results}, key=[r.pooling_mode for r in results].index)
    rows = list(dict.fromkeys(result.layer_pooling for result in results))
    low, high = min(0, *(result.rank_score for result in results)), max(0, study.best.rank_score)
    margin = 0.2 * (high - low)
    figure = Figure(figsize=(1.6 + 2.8 * len(modes), 1.1 + 0.3 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(modes), sharex=True, sharey=True, squeeze=False)[0]
    for axes, mode in zip(panels, modes, strict=True):
        bars = {result.layer_pooling: result for result in results if result.pooling_mode == mode}
        scores = [bars[row].rank_score for row in rows]
        colours = ["tab:orange" if bars[row] is study.best else "lightsteelblue" for row in rows]
        axes.bar_label(axes.barh(rows, scores, color=colours), fmt="%.1f", padding=3, fontsize=8)
        axes.set_title(f"{mode} over tokens", fontsize=10)
        axes.set_xlim(low - margin * (low < 0), high + margin * (high > 0))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].invert_yaxis()
    what = "average5" if study.best.average5 is not None else f"mean of {', '.join(study.pairs)}"
    figure.supxlabel(f"Spearman x 100, {what}", fontsize=10)
    figure.suptitle(f"{study.model}, no training", fontsize=11)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)
