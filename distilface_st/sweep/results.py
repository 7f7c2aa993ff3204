"""A sweep's folder, read: what a report is made of."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..training.config import TrainingConfig
from ..training.history import read_history
from .records import PointRecord, TrialRecord, best_trial, points_of, ranked
from .space import Space, label_of
from .store import open_study, read_record, records

if TYPE_CHECKING:
    from pathlib import Path

    from optuna import Study

    from .space import Label, Point

AVERAGES = ("average5", "average6", "average")


@dataclass(frozen=True)
class SweepResults:
    """What a sweep's folder holds.

    Attributes:
        folder: The folder.
        record: The content of ``sweep.json``.
        study: Optuna's study.
        trials: All trials.
    """

    folder: Path
    record: dict[str, Any]
    study: Study
    trials: tuple[TrialRecord, ...]

    @property
    def plan(self) -> dict[str, Any]:
        """What the sweep was to do."""
        plan: dict[str, Any] = self.record["plan"]
        return plan

    @property
    def score_name(self) -> str:
        """The score that decides."""
        return str(self.plan["score"])

    @property
    def greater_is_better(self) -> bool:
        """Whether a higher score is better."""
        return bool(self.record["greater_is_better"])

    @cached_property
    def space(self) -> Space:
        """What was searched."""
        return Space.from_dict(self.plan["space"])

    @cached_property
    def points(self) -> list[PointRecord]:
        """The points with a score, best first."""
        return ranked(points_of(self.trials, len(self.plan["seeds"])), self.greater_is_better)

    @property
    def best(self) -> PointRecord | None:
        """The best point."""
        return self.points[0] if self.points else None

    @cached_property
    def score_names(self) -> list[str]:
        """The scores of complete trials: the one that decides, the sets, their average."""
        names = dict.fromkeys(name for point in self.points for name in point.scores())
        average = next((name for name in AVERAGES if name in names), None)
        sets = [name for name in names if name not in AVERAGES and name != self.score_name]
        return [self.score_name, *sets, *([average] if average and average != self.score_name else [])]

    def by_value(self, name: str) -> dict[Label, PointRecord]:
        """For each value of a field the point that speaks for it, in the order of the values.

        In a one-at-a-time design that is the base with this value; else the best point with it.
        """
        base = self.base_point
        found: dict[Label, PointRecord] = {}
        for point in self.points:
            if base is None or all(point.point[other] == base[other] for other in base if other != name):
                found.setdefault(point.point[name], point)
        return {label: found[label] for label in self.by_value_order(name) if label in found}

    def by_value_order(self, name: str) -> list[Label]:
        """The values of a listed field, numbers from low to high."""
        labels = [label_of(value) for value in self.plan["space"][name]]
        numbers = all(isinstance(label, int | float) for label in labels)
        return sorted(labels) if numbers else labels  # type: ignore[type-var]

    @property
    def listed(self) -> list[str]:
        """The fields that have a list of values, not a range."""
        return [name for name, values in self.plan["space"].items() if isinstance(values, list)]

    @property
    def base_point(self) -> Point | None:
        """The base of a one-at-a-time design."""
        if self.plan["sampler"] != "one-at-a-time":
            return None
        return {name: label_of(values[0]) for name, values in self.plan["space"].items()}

    def curve(self, trial: TrialRecord) -> list[tuple[int, float]]:
        """The deciding score of a trial by step."""
        path = self.folder / "trials" / trial.key / "history.csv"
        rows = read_history(path) if path.exists() else []
        return [(int(row["step"]), row[self.score_name]) for row in rows if self.score_name in row]

    def rows_trained(self, trial: TrialRecord) -> int:
        """Sentences or pairs that a trial was trained on: what it cost, whatever the machine."""
        batch = self.config(trial)["batch_size"]
        return int(batch) * trial.outcome.steps if trial.outcome else 0

    def config(self, trial: TrialRecord) -> dict[str, Any]:
        """The settings of a trial."""
        return {**self.plan["base"], **self.space.changes(trial.point), "seed": trial.seed}

    def best_command(self) -> str | None:
        """The command line that trains the best trial again; None where nothing is to be trained."""
        if self.best is None or not self.plan["trained"]:
            return None
        config = self.config(best_trial(self.best, self.greater_is_better))
        given = self.record["train_arguments"] or [self.record["source"]]
        options = [text for name, value in config.items() for text in _option(name, value)]
        return shlex.join(["distilface", "train", *given, *options, "--output", "run"])


def read_results(folder: Path) -> SweepResults:
    """Read a sweep's folder, of one that still runs as well.

    Raises:
        InputError: It holds no sweep.
        MissingExtraError: Optuna is not installed.
    """
    record = read_record(folder)
    study = open_study(folder, create=False)
    return SweepResults(folder, record, study, tuple(records(study)))


_DEFAULTS = {field.name: field.default for field in fields(TrainingConfig)}


def _option(name: str, value: Any) -> list[str]:
    """An option of ``distilface train``; nothing for what it does by itself."""
    if name == "encoder":
        return ["--base", str(value)]
    if value is None or value == _DEFAULTS[name]:
        return []
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    text = str(label_of(value))
    return [f"--{flag}={text}"] if text.startswith("-") else [f"--{flag}", text]
