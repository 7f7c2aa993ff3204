"""The space a sweep searches: for each field, a list of values or a range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import CategoricalChoiceType
    from optuna.trial import Trial

Label = str | int | float | bool | None
"""A value as tables, figures and Optuna hold it."""

Point = dict[str, Label]
"""A label for each searched field."""

POOLING_FIELDS = ("layers", "layer_reduction", "pooling_mode")
"""What needs no training to be compared."""

JOINT = "pooling"
"""A field of a space, not of a config: several of :data:`POOLING_FIELDS` at once."""


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

    def value(self, label: Label) -> Any:
        """The value that a label stands for."""
        return self.values[self.labels.index(label)]

    def suggest(self, trial: Trial) -> Label:
        """Have Optuna choose."""
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

    def value(self, label: Label) -> Any:
        """The value that a label stands for: itself."""
        return label

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
        """Have Optuna choose."""
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        found = trial.suggest_float(self.name, self.low, self.high, log=self.log)
        return min(max(float(f"{found:.4g}"), self.low), self.high)

    def as_choice(self) -> Choice:
        """``points`` values, evenly spread."""
        count = self.points or 2
        return Choice(self.name, tuple(dict.fromkeys(self.at(i / (count - 1)) for i in range(count))))


Dimension = Choice | Range


@dataclass(frozen=True)
class Space:
    """All dimensions of a sweep.

    Attributes:
        dimensions: One for each searched field.
    """

    dimensions: tuple[Dimension, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The searched fields."""
        return tuple(dimension.name for dimension in self.dimensions)

    @property
    def size(self) -> int | None:
        """Number of points, None where a range has no end of them."""
        counts = [len(d.values) if isinstance(d, Choice) else None for d in self.dimensions]
        return None if None in counts else math.prod(count for count in counts if count is not None)

    @property
    def pools_only(self) -> bool:
        """Whether nothing but pooling varies."""
        return self.pooling.names == self.names

    @property
    def pooling(self) -> Space:
        """The dimensions of pooling alone."""
        return Space(tuple(d for d in self.dimensions if d.name in (*POOLING_FIELDS, JOINT)))

    def changes(self, point: Point) -> dict[str, Any]:
        """The settings of a TrainingConfig that a point stands for."""
        found: dict[str, Any] = {}
        for dimension in self.dimensions:
            value = dimension.value(point[dimension.name])
            found |= value if dimension.name == JOINT else {dimension.name: value}
        return found

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Space:
        """The space that :meth:`to_dict` wrote.

        Example:
            >>> space = Space((Choice("layers", ("last", (0, -1))), Range("temperature", 0.01, 1.0, log=True)))
            >>> Space.from_dict(space.to_dict()) == space
            True
        """
        return cls(
            tuple(
                Range(name, **values) if isinstance(values, dict) else Choice(name, tuple(map(_immutable, values)))
                for name, values in content.items()
            )
        )

    def suggest(self, trial: Trial) -> Point:
        """Have Optuna choose a point; what it chose for this trial before is kept."""
        return {dimension.name: dimension.suggest(trial) for dimension in self.dimensions}

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            d.name: list(d.values) if isinstance(d, Choice) else {"low": d.low, "high": d.high, "log": d.log}
            for d in self.dimensions
        }


def _immutable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _immutable(part) for name, part in value.items()}
    return tuple(value) if isinstance(value, list) else value
