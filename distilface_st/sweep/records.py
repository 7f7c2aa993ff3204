"""What came of trials: a record a trial, a point over its seeds, and ``trials.csv``."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from ..utils.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .space import Point


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Attributes:
        status: ``complete``, ``pruned`` or ``failed``.
        score: The score that decides; None for a failed trial.
        scores: All scores of the kept step.
        step: The kept step; for a pruned trial the last one.
        steps: Steps trained.
        seconds: Time taken.
        reason: Why it was pruned or failed.
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
    """A trial with what came of it.

    Attributes:
        number: Its number in the sweep.
        key: The name of its folder.
        point: What it tried.
        seed: With which seed.
        outcome: What came of it; None while it waits or runs.
    """

    number: int
    key: str
    point: Point
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
class PointRecord:
    """A point with the trials of all its seeds.

    Attributes:
        point: The point.
        trials: Its trials.
        wanted: Seeds asked for.
    """

    point: Point
    trials: tuple[TrialRecord, ...]
    wanted: int

    @property
    def values(self) -> list[float]:
        """The scores of its complete trials."""
        return [trial.score for trial in self.trials if trial.score is not None]

    @property
    def whole(self) -> bool:
        """Whether every seed is complete."""
        return len(self.values) >= self.wanted

    @property
    def open(self) -> bool:
        """Whether a trial of it is still to come."""
        return any(trial.outcome is None for trial in self.trials)

    @property
    def mean(self) -> float:
        """Mean score over seeds."""
        return mean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds, 0 for a single one."""
        return spread_of(self.values)

    def scores(self) -> dict[str, list[float]]:
        """Every score of the complete trials, by name."""
        found: dict[str, list[float]] = {}
        for trial in self.trials:
            if trial.outcome and trial.score is not None:
                for name, value in trial.outcome.scores.items():
                    found.setdefault(name, []).append(value)
        return found


def spread_of(values: list[float]) -> float:
    """Standard deviation, 0 for a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def points_of(trials: Iterable[TrialRecord], wanted: int) -> list[PointRecord]:
    """Trials put together by point, in the order of their first ones."""
    found: dict[tuple[Any, ...], list[TrialRecord]] = {}
    for trial in trials:
        found.setdefault(tuple(trial.point.items()), []).append(trial)
    return [PointRecord(group[0].point, tuple(group), wanted) for group in found.values()]


def ranked(points: Iterable[PointRecord], greater_is_better: bool) -> list[PointRecord]:
    """Points with a score, best first; those that lack a seed come after those that lack none."""
    sign = -1 if greater_is_better else 1
    return sorted((point for point in points if point.values), key=lambda point: (not point.whole, sign * point.mean))


def best_trial(point: PointRecord, greater_is_better: bool) -> TrialRecord:
    """The best seed of a point."""
    choose = max if greater_is_better else min
    return choose((trial for trial in point.trials if trial.score is not None), key=lambda trial: trial.score or 0.0)


def write_trials(trials: Iterable[TrialRecord], path: Path) -> None:
    """Write ``trials.csv``: a row a finished trial, atomically.

    Columns: ``trial``; ``status``; the searched fields; ``seed``; ``score``, the one that decides; ``step``, the kept
    one; ``steps``, trained; ``seconds``; ``key``, the name of its folder; one column a score; ``reason``.
    """
    rows = [_row(trial, trial.outcome) for trial in trials if trial.outcome]
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "reason"))
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, "reason"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _row(trial: TrialRecord, outcome: Outcome) -> dict[str, Any]:
    row = {"trial": trial.number, "status": outcome.status, **trial.point, "seed": trial.seed}
    row |= {"score": outcome.score, "step": outcome.step, "steps": outcome.steps, "seconds": round(outcome.seconds, 1)}
    return row | {"key": trial.key} | outcome.scores | {"reason": outcome.reason}
