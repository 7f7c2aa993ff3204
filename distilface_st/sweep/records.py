"""What came of a sweep: a record of each trial, a configuration over its seeds, and a sweep's folder read again."""

from __future__ import annotations

import csv
import shlex
from dataclasses import dataclass, field
from functools import cached_property
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from ..training.config import TrainingConfig
from ..training.history import read_history
from ..utils.files import atomic_file
from .space import Choice, Space, label_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .space import Configuration, Label


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: ``complete``, ``pruned`` or ``failed``, with the reason of the latter two.

    ``score`` is the one that decides, and ``step`` the kept step; for a pruned trial the last one.
    """

    status: str
    score: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class TrialRecord:
    """A trial; ``key`` is the name of its folder, and ``outcome`` None while it waits or runs."""

    number: int
    key: str
    configuration: Configuration
    seed: int
    outcome: Outcome | None

    @property
    def status(self) -> str:
        """``complete``, ``pruned``, ``failed`` or ``open``."""
        return self.outcome.status if self.outcome else "open"

    @property
    def score(self) -> float | None:
        """The score of a complete trial."""
        return self.outcome.score if self.outcome and self.outcome.status == "complete" else None


@dataclass(frozen=True)
class ConfigurationRecord:
    """A configuration with the trials of all its seeds, of which ``wanted`` were asked for."""

    configuration: Configuration
    trials: tuple[TrialRecord, ...]
    wanted: int

    @property
    def values(self) -> list[float]:
        """The scores of its complete trials."""
        return [trial.score for trial in self.trials if trial.score is not None]

    @property
    def mean(self) -> float:
        """Mean score over seeds."""
        return mean(self.values)

    @property
    def std(self) -> float:
        """Standard deviation over seeds, 0 for a single one."""
        return std_of(self.values)

    def scores(self) -> dict[str, list[float]]:
        """Every score of the complete trials, by name."""
        found: dict[str, list[float]] = {}
        for trial in self.trials:
            if trial.outcome and trial.score is not None:
                for name, value in trial.outcome.scores.items():
                    found.setdefault(name, []).append(value)
        return found

    def best_trial(self, greater_is_better: bool) -> TrialRecord:
        """The trial of its best seed."""
        choose = max if greater_is_better else min
        return choose((trial for trial in self.trials if trial.score is not None), key=lambda trial: trial.score or 0.0)


def std_of(values: list[float]) -> float:
    """Standard deviation, 0 for a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def by_configuration(trials: Iterable[TrialRecord], wanted: int) -> list[ConfigurationRecord]:
    """Trials put together by configuration, in the order of their first ones."""
    found: dict[tuple[Any, ...], list[TrialRecord]] = {}
    for trial in trials:
        found.setdefault(tuple(trial.configuration.items()), []).append(trial)
    return [ConfigurationRecord(group[0].configuration, tuple(group), wanted) for group in found.values()]


def ranked(configurations: Iterable[ConfigurationRecord], greater_is_better: bool) -> list[ConfigurationRecord]:
    """Those with a score, best first; those that lack a seed come after those that lack none."""
    sign = -1 if greater_is_better else 1
    scored = (one for one in configurations if one.values)
    return sorted(scored, key=lambda one: (len(one.values) < one.wanted, sign * one.mean))


def write_trials(trials: Iterable[TrialRecord], path: Path) -> None:
    """Write ``trials.csv``, a row for each finished trial, atomically.

    Columns: ``trial``; ``status``; the searched fields; ``seed``; ``score``, the one that decides; ``step``, the kept
    one; ``steps``, trained; ``seconds``; ``key``, the name of its folder; a column for each score; ``reason``.
    """
    rows: list[dict[str, Any]] = []
    for trial in trials:
        if outcome := trial.outcome:
            row = {"trial": trial.number, "status": outcome.status, **trial.configuration, "seed": trial.seed}
            row |= {"score": outcome.score, "step": outcome.step, "steps": outcome.steps}
            row |= {"seconds": round(outcome.seconds, 1), "key": trial.key, **outcome.scores, "reason": outcome.reason}
            rows.append(row)
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "reason"))
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, "reason"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@dataclass
class SweepResults:
    """What a sweep's folder holds: the content of ``sweep.json`` and all trials."""

    folder: Path
    record: dict[str, Any]
    trials: tuple[TrialRecord, ...]

    def __post_init__(self) -> None:
        self.plan: dict[str, Any] = self.record["plan"]
        self.score_name: str = self.plan["score"]
        self.greater_is_better: bool = self.record["greater_is_better"]
        self.space = Space.from_dict(self.plan["space"])

    @cached_property
    def configurations(self) -> list[ConfigurationRecord]:
        """The configurations with a score, best first."""
        return ranked(by_configuration(self.trials, len(self.plan["seeds"])), self.greater_is_better)

    @property
    def best(self) -> ConfigurationRecord | None:
        """The best configuration."""
        return self.configurations[0] if self.configurations else None

    @property
    def best_trial(self) -> TrialRecord | None:
        """The best seed of the best configuration."""
        return self.best.best_trial(self.greater_is_better) if self.best else None

    @cached_property
    def score_names(self) -> list[str]:
        """The scores of complete trials: the one that decides, the sets, their average."""
        averages = ("average5", "average6", "average")  # the first one there is shown
        names = dict.fromkeys(name for one in self.configurations for name in one.scores())
        average = next((name for name in averages if name in names), self.score_name)
        sets = [name for name in names if name not in averages]
        return list(dict.fromkeys([self.score_name, *sets, average]))

    def by_value(self, name: str) -> dict[Label, ConfigurationRecord]:
        """For each value of a listed field the configuration that represents it, in the order of the values.

        In a one-at-a-time design that is the base with this value; else the best configuration with it.
        """
        base = self.base_configuration
        found: dict[Label, ConfigurationRecord] = {}
        for one in self.configurations:
            if base is None or all(one.configuration[other] == base[other] for other in base if other != name):
                found.setdefault(one.configuration[name], one)
        labels = self.listed[name].labels
        numbers = all(isinstance(label, int | float) for label in labels)
        in_order = sorted(labels) if numbers else labels  # type: ignore[type-var]
        return {label: found[label] for label in in_order if label in found}

    @property
    def listed(self) -> dict[str, Choice]:
        """The fields that have a list of values, not a range."""
        return {d.name: d for d in self.space.dimensions if isinstance(d, Choice)}

    @property
    def base_configuration(self) -> Configuration | None:
        """The base of a one-at-a-time design."""
        is_design = self.plan["sampler"] == "one-at-a-time"
        return {name: choice.labels[0] for name, choice in self.listed.items()} if is_design else None

    def curve(self, trial: TrialRecord) -> list[tuple[int, float]]:
        """The deciding score of a trial by step."""
        path = self.folder / "trials" / trial.key / "history.csv"
        rows = read_history(path) if path.exists() else []
        return [(int(row["step"]), row[self.score_name]) for row in rows if self.score_name in row]

    def rows_trained(self, trial: TrialRecord) -> int:
        """Sentences or pairs that a trial was trained on: what it cost, whatever the machine."""
        return int(self.config(trial)["batch_size"]) * trial.outcome.steps if trial.outcome else 0

    def config(self, trial: TrialRecord) -> dict[str, Any]:
        """The settings of a trial."""
        return {**self.plan["base"], **self.space.changes(trial.configuration), "seed": trial.seed}

    def best_command(self) -> str | None:
        """The command line that trains the best trial again."""
        if self.best_trial is None:
            return None
        command = ["distilface", "train", *(self.record["train_arguments"] or [self.record["source"]])]
        for name, value in self.config(self.best_trial).items():
            flag = "--base" if name == "encoder" else f"--{name.replace('_', '-')}"
            text = str(label_of(value))
            # Without its views the command line would ask for another kind of run.
            if value is None or (value == getattr(TrainingConfig, name) and name not in ("encoder", "views")):
                continue
            if isinstance(value, bool):
                command.append(flag if value else f"--no-{flag[2:]}")
            else:  # a value such as -1,0 would be read as an option
                command += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
        return shlex.join([*command, "--output", "run"])
