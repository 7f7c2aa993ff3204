"""Everything that some trial of a sweep would stumble over, found before anything trains."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..models.build import build_model
from ..modules.multi_layer_pooling import LAYER_REDUCTIONS, resolve_layers
from ..training.config import resolve_precision
from .designs import SAMPLERS
from .problems import Problems
from .space import JOINT, POOLING_FIELDS, Choice, Range

if TYPE_CHECKING:
    from ..datasets.text_data import TextData
    from ..training.config import TrainingConfig
    from .plan import SweepPlan
    from .space import Space

PRUNERS = ("none", "median", "hyperband")
"""Ways to stop hopeless trials at their evaluations."""


def checked(plan: SweepPlan) -> SweepPlan:
    """The plan, if all its trials can be run.

    Raises:
        InputError: It names everything that is wrong.
    """
    problems = Problems()
    check_design(plan.space, plan.sampler, plan.trials, plan.pruner, plan.trained, problems)
    data = plan.data if plan.trained else None
    check_space(plan.space, plan.base, data, plan.device, problems, with_base=plan.sampler == "one-at-a-time")
    problems.check()
    for point in plan.design():
        try:
            plan.config(point, plan.seeds[0])
        except InputError as error:
            problems.add(f"{', '.join(f'{name} = {label}' for name, label in point.items())}: {error}")
    problems.check()
    return plan


def check_design(space: Space, sampler: str, trials: int, pruner: str, trained: bool, problems: Problems) -> None:
    """Note what is wrong with the way to search."""
    if sampler not in SAMPLERS:
        problems.add(f"There is no sampler {sampler!r}: choose from {', '.join(SAMPLERS)}.")
    if pruner not in PRUNERS:
        problems.add(f"There is no pruner {pruner!r}: choose from {', '.join(PRUNERS)}.")
    if trials < 1:
        problems.add(f"trials is {trials}: it must be at least 1.")
    if sampler in ("grid", "one-at-a-time"):
        for dimension in space.dimensions:
            if isinstance(dimension, Range) and dimension.points is None:
                problems.add(f"{dimension.name} is a range: give it points, or use --sampler random or tpe.")
    if not trained and not space.pools_only:
        needing = [name for name in space.names if name not in (*POOLING_FIELDS, JOINT)]
        problems.add(f"steps is 0, but {', '.join(needing)} only matters in training.")


def check_space(
    space: Space,
    base: TrainingConfig,
    data: TextData | None,
    device: str | None,
    problems: Problems,
    with_base: bool = False,
) -> None:
    """Note every value that no trial can use.

    Args:
        space: The space.
        base: What all trials share.
        data: The text, where it could be read and is needed.
        device: Where to train.
        problems: Takes what is wrong.
        with_base: Whether the base's own values of searched settings are tried, too.
    """
    depth = encoder_depth(base.encoder, problems)
    if data is not None and (len(data.dataset.column_names) == 1) != (base.views == "dropout"):
        problems.add(f"views are {base.views}, but the data has the columns {', '.join(data.dataset.column_names)}.")
    tried = {name: value for name, value in base.to_dict().items() if with_base or name not in space.names}
    _check_settings(tried, depth, data, device, problems)
    for dimension in space.dimensions:
        values = dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)
        for value in values:
            changes = value if dimension.name == JOINT else {dimension.name: value}
            with problems.collected():
                try:
                    replace(base, **changes)
                except TypeError:
                    continue  # of the wrong type, which was said when it was read
            _check_settings(changes, depth, data, device, problems)


def encoder_depth(encoder: str, problems: Problems) -> int | None:
    """The encoder's number of layers; None, and a problem, where it cannot be opened."""
    with problems.collected():
        return int(build_model(encoder, layers="last", device="cpu")[0].config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    return None


def _check_settings(
    settings: dict[str, Any], depth: int | None, data: TextData | None, device: str | None, problems: Problems
) -> None:
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
        "lr_scheduler_type": ([settings.get("lr_scheduler_type")], tuple(schedule.value for schedule in SchedulerType)),
    }
    for name, (values, choices) in allowed.items():
        wrong = [value for value in values if value not in choices]
        if name in settings and wrong:
            problems.add(f"{name} has {wrong[0]!r}: allowed are {', '.join(choices)}.")
    batch = settings.get("batch_size", 0)
    if data is not None and isinstance(batch, int) and batch > len(data.dataset):
        problems.add(f"batch_size has {batch}, but {data.source} gives {len(data.dataset)} rows.")
    if settings.get("precision") == "fp16":
        import torch

        kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
        with problems.collected():
            resolve_precision("fp16", torch.device(kind).type)
