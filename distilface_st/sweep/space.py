"""The space a sweep searches, for each field a list of values or a range, and the configurations taken from it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import CategoricalChoiceType
    from optuna.trial import Trial

    from ..training.config import TrainingConfig

Label = str | int | float | bool | None
"""A value as tables, figures and Optuna hold it."""

Configuration = dict[str, Label]
"""A label for each searched field."""

SAMPLERS = ("grid", "one-at-a-time", "random", "tpe")
"""Ways to choose configurations."""

POOLING_FIELDS = ("layers", "layer_reduction", "pooling_mode")
"""The fields that describe a pooling."""

JOINT = "pooling"
"""A field of a space, not of a TrainingConfig: several of :data:`POOLING_FIELDS` at once."""


def label_of(value: Any) -> Label:
    """A value as a label: lists joined by commas, tables by spaces.

    Example:
        >>> label_of([0, -1]), label_of({"layers": "last_four", "layer_reduction": "concat"}), label_of(0.05)
        ('0,-1', 'last_four concat', 0.05)
    """
    if isinstance(value, dict):
        return " ".join(str(label_of(part)) for part in value.values())
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    label: Label = value
    return label


@dataclass(frozen=True)
class Choice:
    """A field with a list of values.

    Attributes:
        name: The field.
        values: The values, as a TrainingConfig takes them; a table of fields for ``pooling``.
    """

    name: str
    values: tuple[Any, ...]

    @property
    def labels(self) -> tuple[Label, ...]:
        """The values as labels."""
        return tuple(label_of(value) for value in self.values)

    def suggest(self, trial: Trial) -> Label:
        """Have Optuna choose a label."""
        choices: tuple[CategoricalChoiceType, ...] = self.labels
        return trial.suggest_categorical(self.name, choices)


@dataclass(frozen=True)
class Range:
    """A field with a range of numbers, whole ones where both ends are.

    Attributes:
        name: The field.
        low: Lower end, included.
        high: Upper end, included.
        log: Whether orders of magnitude are equally likely.
        points: How many values of it a grid or a one-at-a-time design takes.
    """

    name: str
    low: float
    high: float
    log: bool = False
    points: int | None = None

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, part: float) -> float:
        """The value at a part of the way, from 0 to 1.

        Example:
            >>> Range("learning_rate", 0.01, 1.0, log=True).at(0.5)
            0.1
        """
        if self.log:
            found = math.exp(math.log(self.low) + part * (math.log(self.high) - math.log(self.low)))
        else:
            found = self.low + part * (self.high - self.low)
        return round(found) if self.whole else float(f"{min(max(found, self.low), self.high):.6g}")

    def suggest(self, trial: Trial) -> Label:
        """Have Optuna choose a number."""
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        found = trial.suggest_float(self.name, self.low, self.high, log=self.log)
        # Four digits are enough for a setting, and readable in tables; rounding must not leave the range.
        return min(max(float(f"{found:.4g}"), self.low), self.high)


@dataclass(frozen=True)
class Space:
    """All dimensions of a sweep.

    Attributes:
        dimensions: One for each searched field.
    """

    dimensions: tuple[Choice | Range, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The searched fields."""
        return tuple(dimension.name for dimension in self.dimensions)

    @property
    def size(self) -> int | None:
        """Number of configurations; None where a range makes it infinite."""
        counts = [len(d.values) for d in self.dimensions if isinstance(d, Choice)]
        return math.prod(counts) if len(counts) == len(self.dimensions) else None

    def changes(self, configuration: Configuration) -> dict[str, Any]:
        """The settings of a TrainingConfig that a configuration stands for."""
        found: dict[str, Any] = {}
        for dimension in self.dimensions:
            value: Any = configuration[dimension.name]
            if isinstance(dimension, Choice):
                value = dimension.values[dimension.labels.index(value)]
            found |= value if dimension.name == JOINT else {dimension.name: value}
        return found

    def suggest(self, trial: Trial) -> Configuration:
        """Have Optuna choose a configuration; what it chose for this trial before is kept."""
        return {dimension.name: dimension.suggest(trial) for dimension in self.dimensions}

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            d.name: list(d.values) if isinstance(d, Choice) else {"low": d.low, "high": d.high, "log": d.log}
            for d in self.dimensions
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Space:
        """The space that :meth:`to_dict` wrote.

        Example:
            >>> space = Space((Choice("layers", ("last", (0, -1))), Range("temperature", 0.01, 1.0, log=True)))
            >>> Space.from_dict(space.to_dict()) == space
            True
        """

        def immutable(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: immutable(part) for name, part in value.items()}
            return tuple(value) if isinstance(value, list) else value

        return cls(
            tuple(
                Range(name, **values) if isinstance(values, dict) else Choice(name, tuple(map(immutable, values)))
                for name, values in content.items()
            )
        )


def listed(space: Space) -> Space:
    """The space with ``points`` values, evenly spread, in place of each range."""
    choices = []
    for dimension in space.dimensions:
        if isinstance(dimension, Range):
            last = (dimension.points or 2) - 1
            values = dict.fromkeys(dimension.at(index / last) for index in range(last + 1))
            choices.append(Choice(dimension.name, tuple(values)))
        else:
            choices.append(dimension)
    return Space(tuple(choices))


def with_base(space: Space, base: TrainingConfig) -> Space:
    """The space of lists with the base's own value first in each."""
    choices = []
    for dimension in listed(space).dimensions:
        values = list(dimension.values)  # type: ignore[union-attr]
        fields = list(values[0]) if dimension.name == JOINT else []
        own = {name: getattr(base, name) for name in fields} if fields else getattr(base, dimension.name)
        others = [value for value in values if label_of(value) != label_of(own)]
        choices.append(Choice(dimension.name, (own, *others)))
    return Space(tuple(choices))


def grid(space: Space) -> list[Configuration]:
    """Every combination.

    Example:
        >>> len(grid(Space((Choice("temperature", (0.05, 0.1)), Choice("batch_size", (64, 128, 256))))))
        6
    """
    labels = [dimension.labels for dimension in listed(space).dimensions if isinstance(dimension, Choice)]
    return [dict(zip(space.names, combination, strict=True)) for combination in product(*labels)]


def one_at_a_time(space: Space) -> list[Configuration]:
    """The paper's design: the configuration of first values, then every single change of it.

    Args:
        space: As :func:`with_base` gives it.

    Example:
        >>> one_at_a_time(Space((Choice("temperature", (0.05, 0.1)), Choice("batch_size", (64, 128)))))[1:]
        [{'temperature': 0.1, 'batch_size': 64}, {'temperature': 0.05, 'batch_size': 128}]
    """
    choices = [dimension for dimension in space.dimensions if isinstance(dimension, Choice)]
    first: Configuration = {choice.name: choice.labels[0] for choice in choices}
    return [first, *({**first, choice.name: label} for choice in choices for label in choice.labels[1:])]


def random_configurations(space: Space, count: int, seed: int) -> list[Configuration]:
    """Different configurations drawn at random, fewer than ``count`` where the space has fewer.

    More of them with the same ``seed`` begin with the same ones.
    """
    chance = random.Random(seed)
    wanted = count if space.size is None else min(count, space.size)
    found: dict[tuple[Any, ...], Configuration] = {}
    while len(found) < wanted:
        drawn: Configuration = {
            d.name: d.at(chance.random()) if isinstance(d, Range) else chance.choice(d.labels) for d in space.dimensions
        }
        found.setdefault(tuple(drawn.values()), drawn)
    return list(found.values())
