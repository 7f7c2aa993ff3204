"""The space a sweep searches, read from a file or the paper's, and the configurations taken from it."""

from __future__ import annotations

import math
import random
import sys
from contextlib import suppress
from dataclasses import dataclass, fields
from importlib import import_module
from itertools import product
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..modules.multi_layer_pooling import LAYER_REDUCTIONS, resolve_layers
from ..training.config import OLD_NAMES, TrainingConfig
from ..utils.deprecation import current_names

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.distributions import CategoricalChoiceType
    from optuna.trial import Trial

    from .plan import Problems

Label = str | int | float | bool | None
"""A value as tables, figures and Optuna hold it."""

Configuration = dict[str, Label]
"""A label for each searched field."""

SAMPLERS = ("grid", "one-at-a-time", "random", "tpe")
JOINT = "pooling"
"""A field of a space, not of a TrainingConfig: several of the fields of a pooling at once."""

_POOLING_FIELDS = ("layers", "layer_reduction", "pooling_mode")
_KINDS = {field.name: str(field.type).removesuffix(" | None") for field in fields(TrainingConfig)}
_SEARCHABLE = tuple(name for name in _KINDS if name not in ("encoder", "views"))
_KIND_NAMES = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_RANGE_KEYS = ("low", "high", "log", "points")


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
    return value  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Choice:
    """A field with a list of values, as a TrainingConfig takes them; for ``pooling`` they are tables of fields."""

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
        low: Lower end; both ends are included.
        high: Upper end.
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
    """What a sweep searches: a dimension for each field."""

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
        name, values = dimension.name, dimension.values  # type: ignore[union-attr]
        own = {part: getattr(base, part) for part in values[0]} if name == JOINT else getattr(base, name)
        choices.append(Choice(name, (own, *(value for value in values if label_of(value) != label_of(own)))))
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
    """The paper's design on a space of :func:`with_base`: the configuration of first values, then every single change.

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


def read_space(path: Path, problems: Problems) -> tuple[Space, dict[str, Any], tuple[int, ...]]:
    """Read a space: ``field = [values]`` or ``field = { low = ..., high = ..., log = true, points = 5 }``.

    ``pooling = [{ layers = "last_four", layer_reduction = "concat" }, ...]`` varies poolings as a whole, ``seed`` lists
    seeds, and a table ``[base]`` holds settings that all trials share.

    Args:
        path: The TOML file.
        problems: Takes every mistake in it.

    Returns:
        What could be read: the space, the shared settings, the seeds.
    """
    try:
        content = current_names(_parse(path.read_text(encoding="utf-8-sig")), OLD_NAMES)
    except (OSError, ValueError) as error:
        problems.add(f"{path} cannot be read as a space: {error}")
        return Space(()), {}, ()
    base = content.pop("base", {})
    if not isinstance(base, dict):
        problems.add("base must be a table of settings.")
        base = {}
    base = current_names(base, OLD_NAMES)
    unknown = [f"base.{name}" for name in base if name not in (*_SEARCHABLE, "views")]
    unknown += [name for name in content if name not in (*_SEARCHABLE, JOINT)]
    if unknown:
        problems.add(f"Unknown: {', '.join(unknown)}. Fields are {', '.join((*_SEARCHABLE, JOINT))}.")
    base = {name: _typed(name, value, problems) for name, value in base.items() if f"base.{name}" not in unknown}
    given = {name: value for name, value in content.items() if name not in unknown}
    seeds = given.pop("seed", [])
    if not isinstance(seeds, list) or not all(_is_a("int", seed) and seed >= 0 for seed in seeds):
        problems.add("seed must be a list of whole numbers of at least 0.")
        seeds = []
    dimensions = []
    for name, value in given.items():
        with problems.collected():
            dimensions.append(_dimension(name, value, problems))
    if not dimensions and not problems.found:
        problems.add(f"{path} names no field to search.")
    if JOINT in given and (twice := sorted({*_POOLING_FIELDS} & {*given})):
        problems.add(f"{JOINT} and {', '.join(twice)} decide the same settings: name one of them.")
    return Space(tuple(dimensions)), base, tuple(dict.fromkeys(seeds))


def paper_space(num_hidden_layers: int) -> Space:
    """What the paper tried (Figures 5 to 8).

    Selections that need more layers than the encoder has, or come to the same layers in it, are left out.

    Example:
        >>> [len(dimension.values) for dimension in paper_space(6).dimensions]
        [5, 3, 3, 14]
        >>> len(paper_space(4).dimensions[-1].values)
        11
    """
    selections: dict[tuple[int, ...], str] = {}
    for name in ("first_last", "last_four", "last_two", "all", "last", "second_to_last"):
        with suppress(ValueError):  # too few layers
            selections.setdefault(resolve_layers(name, num_hidden_layers), name)
    poolings = [
        {"layers": name, "layer_reduction": reduction}
        for indices, name in selections.items()
        for reduction in (LAYER_REDUCTIONS if len(indices) > 1 else ("mean",))
    ]
    return Space(
        (
            Choice("temperature", (0.001, 0.01, 0.05, 0.1, 1.0)),
            Choice("learning_rate", (1e-5, 3e-5, 5e-5)),
            Choice("batch_size", (64, 128, 256)),
            Choice(JOINT, tuple(poolings)),
        )
    )


def _parse(text: str) -> dict[str, Any]:
    try:
        toml: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ImportError as error:
        raise InputError("Python 3.10 needs `pip install tomli` to read it.") from error
    return dict(toml.loads(text))


def _dimension(name: str, value: Any, problems: Problems) -> Choice | Range:
    if isinstance(value, dict):
        return _range(name, value, problems)
    if not isinstance(value, list):
        raise InputError(f"{name} is {value!r}: give a list of values, or a range with low and high.")
    if not value:
        raise InputError(f"{name} is an empty list: give one value or more.")
    if name == JOINT:
        named = tuple(value[0]) if isinstance(value[0], dict) else ()
        alike = all(isinstance(table, dict) and set(table) == set(named) for table in value)
        if not named or not alike or not set(named) <= set(_POOLING_FIELDS):
            raise InputError(f"{JOINT} must list tables, all with the same fields of {', '.join(_POOLING_FIELDS)}.")
        typed = [{part: _typed(part, table[part], problems) for part in named} for table in value]
    else:
        typed = [_typed(name, each, problems) for each in value]
    return Choice(name, tuple({label_of(each): each for each in typed}.values()))


def _range(name: str, value: dict[str, Any], problems: Problems) -> Range:
    if wrong := [key for key in value if key not in _RANGE_KEYS]:
        problems.add(f"{name} has {', '.join(wrong)}: a range has {', '.join(_RANGE_KEYS)}.")
    kind = _KINDS.get(name)
    if kind not in ("int", "float"):
        raise InputError(f"{name} takes a list, not a range.")
    low, high, log, points = (value.get(key) for key in _RANGE_KEYS)
    if not _is_a(kind, low) or not _is_a(kind, high):
        raise InputError(f"{name} needs low and high, both {'whole numbers' if kind == 'int' else 'numbers'}.")
    if kind == "float":
        low, high = float(low), float(high)  # type: ignore[arg-type]
    if not low < high or (log and low <= 0):  # type: ignore[operator]
        raise InputError(f"{name} goes from {low} to {high}: low must be below high{', and above 0' if log else ''}.")
    if points is not None and not (_is_a("int", points) and points >= 2):
        raise InputError(f"{name} has points = {points!r}: give a whole number of at least 2.")
    return Range(name, low, high, bool(log), points)  # type: ignore[arg-type]


def _typed(name: str, value: Any, problems: Problems) -> Any:
    """The value as a TrainingConfig takes it."""
    kind = _KINDS[name]
    if kind in _KIND_NAMES and not _is_a(kind, value):
        problems.add(f"{name} has {value!r}, which is not {_KIND_NAMES[kind]}.")
    elif kind == "float":
        return float(value)
    elif name in ("layers", "pooling_mode") and isinstance(value, list):
        return tuple(value)
    elif kind not in _KIND_NAMES and not isinstance(value, str):
        problems.add(f"{name} has {value!r}, which is not a name.")
    return value


def _is_a(kind: str, value: Any) -> bool:
    if kind == "bool" or isinstance(value, bool):  # to Python, True is a number
        return kind == "bool" and isinstance(value, bool)
    return isinstance(value, int if kind == "int" else int | float)
