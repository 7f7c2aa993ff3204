"""What a sweep is to do, checked as a whole before anything trains."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..history import as_scores
from ..model import build_model
from ..modules.multi_layer_pooling import LAYER_REDUCTIONS, resolve_layers
from ..training_config import resolve_precision
from .designs import SAMPLERS, grid, listed, one_at_a_time, random_points, with_base
from .problems import Problems
from .space import JOINT, Choice, Point, Range, Space

if TYPE_CHECKING:
    from pathlib import Path

    from sentence_transformers.base.evaluation import BaseEvaluator

    from ..datasets.text_data import TextData
    from ..training_config import TrainingConfig

PRUNERS = ("none", "median", "hyperband")
"""Ways to stop hopeless trials at their evaluations."""


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
        }
        found: dict[str, Any] = json.loads(json.dumps(spec))
        return found


def trial_key(config: TrainingConfig) -> str:
    """The name of a trial's folder: equal settings, equal name."""
    return hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()[:12]


def check_plan(plan: SweepPlan, problems: Problems) -> None:
    """Note everything that some trial would stumble over."""
    if plan.sampler not in SAMPLERS:
        problems.add(f"There is no sampler {plan.sampler!r}: choose from {', '.join(SAMPLERS)}.")
    if plan.pruner not in PRUNERS:
        problems.add(f"There is no pruner {plan.pruner!r}: choose from {', '.join(PRUNERS)}.")
    if plan.trials < 1:
        problems.add(f"trials is {plan.trials}: it must be at least 1.")
    if plan.sampler in ("grid", "one-at-a-time"):
        for dimension in plan.space.dimensions:
            if isinstance(dimension, Range) and dimension.points is None:
                problems.add(f"{dimension.name} is a range: give it points, or use --sampler random or tpe.")
    depth = encoder_depth(plan.base.encoder, problems)
    _check_settings(plan, plan.base.to_dict(), depth, problems)
    for dimension in plan.space.dimensions:
        values = dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)
        for value in values:
            changes = value if dimension.name == JOINT else {dimension.name: value}
            with problems.collected():
                try:
                    replace(plan.base, **changes)
                except TypeError:
                    continue  # of the wrong type, which was said when it was read
            _check_settings(plan, changes, depth, problems)


def encoder_depth(encoder: str, problems: Problems) -> int | None:
    """The encoder's number of layers; None, and a problem, where it cannot be opened."""
    with problems.collected():
        return int(build_model(encoder, layers="last", device="cpu")[0].config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    return None


def _check_settings(plan: SweepPlan, settings: dict[str, Any], depth: int | None, problems: Problems) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import SchedulerType

    if "layers" in settings and depth is not None:
        try:
            resolve_layers(settings["layers"], depth)
        except ValueError as error:
            problems.add(str(error))
    modes = settings.get("pooling_mode", ())
    allowed = {
        "layer_reduction": ([settings.get("layer_reduction")], LAYER_REDUCTIONS),
        "pooling_mode": ([modes] if isinstance(modes, str) else modes, tuple(Pooling.POOLING_MODES)),
        "schedule": ([settings.get("schedule")], tuple(schedule.value for schedule in SchedulerType)),
    }
    for name, (values, choices) in allowed.items():
        wrong = [value for value in values if value not in choices]
        if name in settings and wrong:
            problems.add(f"{name} has {wrong[0]!r}: allowed are {', '.join(choices)}.")
    rows, batch = len(plan.data.dataset), settings.get("batch_size", 0)
    if isinstance(batch, int) and batch > rows:
        problems.add(f"batch_size has {batch}, but {plan.data.source} gives {rows} rows.")
    if settings.get("precision") == "fp16":
        import torch

        device = plan.device or ("cuda" if torch.cuda.is_available() else "cpu")
        with problems.collected():
            resolve_precision("fp16", torch.device(device).type)


def checked(plan: SweepPlan) -> SweepPlan:
    """The plan, if all its trials can be run.

    Raises:
        InputError: It names everything that is wrong.
    """
    problems = Problems()
    check_plan(plan, problems)
    problems.check()
    for point in plan.design():
        try:
            plan.config(point, plan.seeds[0])
        except InputError as error:
            problems.add(f"{', '.join(f'{name} = {label}' for name, label in point.items())}: {error}")
    problems.check()
    return plan
