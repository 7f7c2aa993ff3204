"""Designs that are known before the first trial: a grid, one change at a time, random points."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from .space import JOINT, Choice, Point, Range, Space, label_of

if TYPE_CHECKING:
    from ..training.config import TrainingConfig

SAMPLERS = ("grid", "one-at-a-time", "random", "tpe")
"""Ways to choose points."""


def listed(space: Space) -> Space:
    """The space with ``points`` values in place of each range."""
    return replace(space, dimensions=tuple(d.as_choice() if isinstance(d, Range) else d for d in space.dimensions))


def with_base(space: Space, base: TrainingConfig) -> Space:
    """The space of lists with the base's own value first in each."""
    return Space(tuple(_with_value(dimension, base) for dimension in listed(space).dimensions))


def _with_value(dimension: Any, base: TrainingConfig) -> Choice:
    values = list(dimension.values)
    own = (
        {name: getattr(base, name) for name in values[0]} if dimension.name == JOINT else getattr(base, dimension.name)
    )
    label = label_of(own)
    return Choice(dimension.name, (own, *(value for value in values if label_of(value) != label)))


def grid(space: Space) -> list[Point]:
    """Every combination.

    Example:
        >>> len(grid(Space((Choice("temperature", (0.05, 0.1)), Choice("batch_size", (64, 128, 256))))))
        6
    """
    labels = [dimension.labels for dimension in listed(space).dimensions if isinstance(dimension, Choice)]
    return [dict(zip(space.names, combination, strict=True)) for combination in product(*labels)]


def one_at_a_time(space: Space) -> list[Point]:
    """The paper's design: the point of first values, then every single change of it.

    Args:
        space: As :func:`with_base` gives it.

    Example:
        >>> one_at_a_time(Space((Choice("temperature", (0.05, 0.1)), Choice("batch_size", (64, 128)))))[1:]
        [{'temperature': 0.1, 'batch_size': 64}, {'temperature': 0.05, 'batch_size': 128}]
    """
    choices = [dimension for dimension in space.dimensions if isinstance(dimension, Choice)]
    first: Point = {choice.name: choice.labels[0] for choice in choices}
    return [first, *({**first, choice.name: label} for choice in choices for label in choice.labels[1:])]


def random_points(space: Space, count: int, seed: int) -> list[Point]:
    """Different points drawn at random; more of them begin with the same ones.

    Args:
        space: The space.
        count: How many; fewer where the space has fewer.
        seed: Of the draws.
    """
    chance = random.Random(seed)
    wanted = count if space.size is None else min(count, space.size)
    found: dict[tuple[Any, ...], Point] = {}
    while len(found) < wanted:
        point: Point = {
            d.name: d.at(chance.random()) if isinstance(d, Range) else chance.choice(d.labels) for d in space.dimensions
        }
        found.setdefault(tuple(point.values()), point)
    return list(found.values())
