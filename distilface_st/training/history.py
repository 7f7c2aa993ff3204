"""What happened during training, step by step: a table that is on disk at every moment, and the paper's Figure 4."""

from __future__ import annotations

import csv
import math
import time
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..utils.extras import require
from ..utils.files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = (
    *("step", "loss", "positive_similarity", "negative_similarity", "teacher_similarity", "learning_rate"),
    "sentences_per_second",
)
"""First columns of ``history.csv``; one column for each score follows."""

_SECONDS_BETWEEN_WRITES = 2.0


class History:
    """Rows of ``history.csv``, one for each step.

    Columns: ``step``; ``loss``; ``positive_similarity`` and ``negative_similarity`` (mean cosine of positives, and of
    in-batch negatives) or, in distillation, ``teacher_similarity`` (mean cosine to the teachers); ``learning_rate``;
    ``sentences_per_second`` (of training alone); then one for each score, Spearman x 100 where it is one. Step 0 is the
    model before training. Rows of an existing file are kept up to the step ``up_to``: a resumed run writes later ones
    again.
    """

    def __init__(self, path: Path, up_to: int | None = None) -> None:
        self.path = path
        self._written = -math.inf
        self._rows: dict[int, dict[str, float]] = {}
        if up_to is not None and path.exists():
            self._rows = {int(row["step"]): row for row in read_history(path) if row["step"] <= up_to}

    @property
    def rows(self) -> list[dict[str, float]]:
        """The rows by step; what was not measured at a step is not in its row."""
        return [self._rows[step] for step in sorted(self._rows)]

    def add(self, step: int, values: dict[str, float]) -> None:
        """Add values to the row of a step; the file follows at once, or within seconds where rows come fast."""
        self._rows.setdefault(step, {"step": step}).update(values)
        if time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        """Write the file as it should now be."""
        with atomic_file(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*FIELDS, *score_names(self.rows)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        self._written = time.monotonic()

    def scores(self, step: int) -> dict[str, float]:
        """The scores of an evaluated step; empty for any other."""
        return {key: value for key, value in self._rows.get(step, {}).items() if key not in FIELDS}


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a ``history.csv``."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
        return [row | {"step": int(row["step"])} for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error!r}") from error


def score_names(rows: list[dict[str, float]]) -> list[str]:
    """The columns of scores that rows have, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row if key not in FIELDS))


def as_scores(metrics: dict[str, Any]) -> dict[str, float]:
    """An evaluator's metrics as columns of the history: Spearman x 100 under the set's name, others as they are."""
    ending = "_spearman_cosine"
    spearman = {key.removesuffix(ending): 100 * value for key, value in metrics.items() if key.endswith(ending)}
    others = {key: value for key, value in metrics.items() if not key.endswith((ending, "_pearson_cosine"))}
    return {key: float(value) for key, value in (spearman | others).items()}


def plot_history(rows: list[dict[str, float]], path: Path, best_step: int | None = None) -> None:
    """Draw score by step for each set (the paper's Figure 4) over the training loss.

    Args:
        rows: Rows of ``history.csv``, as a :class:`TrainingResult` holds them.
        path: The image; its ending says the format.
        best_step: The step whose model was kept, marked with a line.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    names = score_names(rows)
    size = (8, 6 if names else 3.5)
    figure = require("matplotlib.figure", "Plotting", "plots").Figure(figsize=size, layout="constrained")
    *upper, lower = figure.subplots(2 if names else 1, 1, sharex=True, squeeze=False)[:, 0]
    for axes in upper:
        for name in names:
            points = [(row["step"], row[name]) for row in rows if name in row]
            is_average = name.startswith("average")
            axes.plot(*zip(*points, strict=True), "--" if is_average else "-", marker="o", markersize=3, label=name)
        axes.set_ylabel("score")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row and math.isfinite(row["loss"])]
    lower.plot(*(zip(*losses, strict=True) if losses else ([], [])), color="tab:gray")
    lower.set(xlabel="step", ylabel="training loss")
    for axes in (*upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if best_step is not None:
            axes.axvline(best_step, color="tab:green", linewidth=1, linestyle=":")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)
