"""What a sweep is to do, and everything that some trial of it would stumble over, found before anything trains."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from ..errors import InputError
from ..models.build import build_model
from ..modules.multi_layer_pooling import LAYER_REDUCTIONS, resolve_layers
from ..training.config import resolve_precision
from ..training.history import as_scores
from ..training.train import check_batch_size
from .space import JOINT, SAMPLERS, Choice, Range, grid, listed, one_at_a_time, random_configurations, with_base

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sentence_transformers.base.evaluation import BaseEvaluator

    from ..datasets.text_data import TextData
    from ..training.config import TrainingConfig
    from .space import Configuration, Space

_PRUNERS = ("none", "median", "hyperband")


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
        trials: Configurations that ``random`` and ``tpe`` try; the designs have their own number.
        seeds: Each configuration is run with each.
        pruner: ``none``, ``median`` or ``hyperband``.
        sampler_seed: Of ``random`` and ``tpe``.
        device: Where to train; the best there is by default.
        final: Scores each trial's kept model once more, on the test sets say; it decides nothing.
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
    train_arguments: tuple[str, ...] = ()

    @property
    def score_name(self) -> str:
        """The score that decides, as histories and tables name it."""
        return next(iter(as_scores({str(self.evaluator.primary_metric): 0.0})))

    @property
    def searched(self) -> Space:
        """The space as the sampler sees it."""
        if self.sampler == "one-at-a-time":
            return with_base(self.space, self.base)
        return listed(self.space) if self.sampler == "grid" else self.space

    def design(self) -> list[Configuration]:
        """The configurations known before the first trial; none for ``tpe``."""
        if self.sampler == "grid":
            return grid(self.searched)
        if self.sampler == "one-at-a-time":
            return one_at_a_time(self.searched)
        return random_configurations(self.searched, self.trials, self.sampler_seed) if self.sampler == "random" else []

    @property
    def total(self) -> int:
        """How many trials there will be."""
        tried = min(self.trials, self.searched.size or self.trials)
        return len(self.seeds) * (tried if self.sampler == "tpe" else len(self.design()))

    def config(self, configuration: Configuration, seed: int) -> TrainingConfig:
        """The settings of a trial."""
        return replace(self.base, **self.searched.changes(configuration), seed=seed)

    def to_dict(self) -> dict[str, Any]:
        """What a sweep that goes on must have in common with the one that began."""
        tasks = [task.label for task in getattr(self.final, "tasks", ())]
        spec = {
            "space": self.searched.to_dict(),
            "base": self.base.to_dict(),
            "data": self.data.fingerprint,
            "score": self.score_name,
            "sampler": self.sampler,
            "sampler_seed": self.sampler_seed,
            "seeds": list(self.seeds),
            "pruner": self.pruner,
            "final": sorted(tasks or [type(self.final).__name__]) if self.final else [],
        }
        return dict(json.loads(json.dumps(spec)))  # lists for tuples, as the file will have them


class Problems:
    """Mistakes collected, so that a user hears of all of them at once; ``found`` are the messages.

    Example:
        >>> problems = Problems()
        >>> with problems.collected():
        ...     raise InputError("max_steps is 0.")
        >>> problems.found
        ['max_steps is 0.']
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, message: str) -> None:
        """Add a problem, once."""
        if message not in self.found:
            self.found.append(message)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Add the error that the block ends with, if it is the user's."""
        try:
            yield
        except (InputError, OSError) as error:
            self.add(str(error))

    def check(self) -> None:
        """Raise an InputError that names every problem, if there is one."""
        if len(self.found) == 1:
            raise InputError(self.found[0])
        if self.found:
            numbered = " ".join(f"({number}) {message}" for number, message in enumerate(self.found, 1))
            raise InputError(f"{len(self.found)} problems: {numbered}")


def checked(plan: SweepPlan) -> SweepPlan:
    """The plan, if all its trials can be run; else an InputError names everything that is wrong."""
    problems = Problems()
    check_plan(plan, problems)
    problems.check()
    return plan


def check_plan(plan: SweepPlan, problems: Problems) -> None:
    """Add everything that is wrong with a plan, whose ``data`` may be None where the text could not be read."""
    if plan.sampler not in SAMPLERS:
        problems.add(f"There is no sampler {plan.sampler!r}: choose from {', '.join(SAMPLERS)}.")
    if plan.pruner not in _PRUNERS:
        problems.add(f"There is no pruner {plan.pruner!r}: choose from {', '.join(_PRUNERS)}.")
    if plan.trials < 1:
        problems.add(f"trials is {plan.trials}: it must be at least 1.")
    columns = plan.data.dataset.column_names if plan.data else []
    if plan.data and (len(columns) == 1) != (plan.base.views == "dropout"):
        problems.add(f"views are {plan.base.views}, but the data has the columns {', '.join(columns)}.")
    # In a one-at-a-time design the base's own value of a searched field is tried, too.
    replaced = () if plan.sampler == "one-at-a-time" else plan.space.names
    depth = None
    with problems.collected():
        depth = num_hidden_layers(plan.base.encoder)
    shared = {name: value for name, value in plan.base.to_dict().items() if name not in replaced}
    _check_settings(shared, plan, depth, problems)
    for dimension in plan.space.dimensions:
        if isinstance(dimension, Range) and dimension.points is None and plan.sampler in ("grid", "one-at-a-time"):
            problems.add(f"{dimension.name} is a range: give it points, or use --sampler random or tpe.")
        for value in dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high):
            changes = value if dimension.name == JOINT else {dimension.name: value}
            with problems.collected():
                try:
                    replace(plan.base, **changes)
                except TypeError:
                    continue  # of the wrong type, which was said when it was read
            _check_settings(changes, plan, depth, problems)
    if problems.found:
        return
    for configuration in plan.design():  # values that are right one by one may not go together
        try:
            plan.config(configuration, plan.seeds[0])
        except InputError as error:
            problems.add(f"{', '.join(f'{name} = {label}' for name, label in configuration.items())}: {error}")


@cache
def num_hidden_layers(encoder: str) -> int:
    """The depth of an encoder. It takes seconds to open and is asked for again and again, so it is remembered."""
    return int(build_model(encoder, layers="last", device="cpu")[0].config.num_hidden_layers)  # type: ignore[union-attr, arg-type]


def _check_settings(settings: dict[str, Any], plan: SweepPlan, depth: int | None, problems: Problems) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import SchedulerType

    if "layers" in settings and depth is not None:
        try:
            resolve_layers(settings["layers"], depth)
        except ValueError as error:
            problems.add(str(error))
    allowed = {
        "layer_reduction": LAYER_REDUCTIONS,
        "pooling_mode": tuple(Pooling.POOLING_MODES),
        "lr_scheduler_type": tuple(schedule.value for schedule in SchedulerType),
    }
    for name, choices in allowed.items():
        value = settings.get(name, choices[0])
        several = name == "pooling_mode" and not isinstance(value, str)
        if wrong := [one for one in (value if several else [value]) if one not in choices]:
            problems.add(f"{name} has {wrong[0]!r}: allowed are {', '.join(choices)}.")
    batch = settings.get("batch_size", 0)
    if plan.data and isinstance(batch, int) and batch > 1:
        with problems.collected():
            check_batch_size(plan.data, batch)
    if settings.get("precision") == "fp16":
        kind = plan.device or ("cuda" if torch.cuda.is_available() else "cpu")
        with problems.collected():
            resolve_precision("fp16", torch.device(kind).type)
