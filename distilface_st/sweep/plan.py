"""What a sweep is to do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..training.history import as_scores
from .designs import grid, listed, one_at_a_time, random_points, with_base

if TYPE_CHECKING:
    from pathlib import Path

    from sentence_transformers.base.evaluation import BaseEvaluator

    from ..datasets.text_data import TextData
    from ..training.config import TrainingConfig
    from .space import Point, Space


@dataclass(frozen=True)
class SweepPlan:
    """A sweep.

    Attributes:
        space: What is searched.
        base: The settings that all trials share.
        data: The text.
        evaluator: Scores the trials by its ``primary_metric``.
        output: The sweep's folder.
        sampler: ``grid``, ``one-at-a-time``, ``random`` or ``tpe``.
        trials: Points that ``random`` and ``tpe`` try; the designs have their own number.
        seeds: Each point is run with each.
        pruner: ``none``, ``median`` or ``hyperband``.
        sampler_seed: Of ``random`` and ``tpe``.
        device: Where to train; the best there is by default.
        final: Scores each trial's kept model once more, on the test sets say; it decides nothing.
        trained: Whether anything is trained. A space of poolings alone needs no training.
        train_arguments: What ``distilface train`` is told of text and evaluation, for the best trial's command line.
    """

    space: Space
    base: TrainingConfig
    data: TextData
    evaluator: BaseEvaluator
    output: Path
    sampler: str = "grid"
    trials: int = 30
    seeds: tuple[int, ...] = (42,)
    pruner: str = "none"
    sampler_seed: int = 0
    device: str | None = None
    final: BaseEvaluator | None = None
    trained: bool = True
    train_arguments: tuple[str, ...] = ()

    @property
    def score_name(self) -> str:
        """The score that decides, as histories and tables name it."""
        (name,) = as_scores({str(self.evaluator.primary_metric): 0.0})
        return name

    @property
    def searched(self) -> Space:
        """The space as the sampler sees it."""
        if self.sampler == "one-at-a-time":
            return with_base(self.space, self.base)
        return listed(self.space) if self.sampler == "grid" else self.space

    def design(self) -> list[Point]:
        """The points known before the first trial; none for ``tpe``."""
        if self.sampler == "grid":
            return grid(self.searched)
        if self.sampler == "one-at-a-time":
            return one_at_a_time(self.searched)
        return random_points(self.searched, self.trials, self.sampler_seed) if self.sampler == "random" else []

    @property
    def total(self) -> int:
        """How many trials there will be."""
        tried = min(self.trials, self.searched.size or self.trials)
        return len(self.seeds) * (tried if self.sampler == "tpe" else len(self.design()))

    def config(self, point: Point, seed: int) -> TrainingConfig:
        """The settings of a trial.

        Raises:
            InputError: Values that do not go together.
        """
        return replace(self.base, **self.searched.changes(point), seed=seed)

    def to_dict(self) -> dict[str, Any]:
        """What a sweep that goes on must have in common with the one that began."""
        spec = {
            "space": self.searched.to_dict(),
            "base": self.base.to_dict(),
            "data": self.data.fingerprint,
            "score": self.score_name,
            "sampler": self.sampler,
            "sampler_seed": self.sampler_seed,
            "seeds": list(self.seeds),
            "pruner": self.pruner,
            "final": sorted(final_names(self.final)),
            "trained": self.trained,
        }
        found: dict[str, Any] = json.loads(json.dumps(spec))
        return found


def final_names(evaluator: BaseEvaluator | None) -> list[str]:
    """The sets that an evaluator scores, by label; its own name where it does not say."""
    if evaluator is None:
        return []
    return [task.label for task in getattr(evaluator, "tasks", ())] or [type(evaluator).__name__]


def trial_key(config: TrainingConfig) -> str:
    """The name of a trial's folder: equal settings, equal name."""
    return hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()[:12]
