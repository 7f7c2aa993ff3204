"""Where a space comes from: a TOML file, or the paper."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..modules.multi_layer_pooling import LAYER_REDUCTIONS, resolve_layers
from ..training.config import OLD_NAMES, TrainingConfig
from ..utils.deprecation import current_names
from .space import JOINT, POOLING_FIELDS, Choice, Range, Space, label_of

if TYPE_CHECKING:
    from pathlib import Path

    from .plan import Problems

KINDS = {field.name: str(field.type).removesuffix(" | None") for field in fields(TrainingConfig)}
"""Types of a TrainingConfig's fields, as its source says them."""

SEARCHABLE = tuple(name for name in KINDS if name not in ("encoder", "views"))
"""Fields of a TrainingConfig that a space may name."""

_KIND_NAMES = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_RANGE_KEYS = ("low", "high", "log", "points")


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
        content = current_names(_parse(path.read_text(encoding="utf-8")), OLD_NAMES)
    except (OSError, ValueError) as error:
        problems.add(f"{path} cannot be read as a space: {error}")
        return Space(()), {}, ()
    base = content.pop("base", {})
    if not isinstance(base, dict):
        problems.add("base must be a table of settings.")
        base = {}
    base = current_names(base, OLD_NAMES)
    unknown = [f"base.{name}" for name in base if name not in (*SEARCHABLE, "views")]
    unknown += [name for name in content if name not in (*SEARCHABLE, JOINT)]
    if unknown:
        problems.add(f"Unknown: {', '.join(unknown)}. Fields are {', '.join((*SEARCHABLE, JOINT))}.")
    base = {name: _typed(name, value, problems) for name, value in base.items() if f"base.{name}" not in unknown}
    given = {name: value for name, value in content.items() if name not in unknown}
    seeds = given.pop("seed", [])
    if not isinstance(seeds, list) or not all(_is_a("int", seed) and seed >= 0 for seed in seeds):
        problems.add("seed must be a list of whole numbers of at least 0.")
        seeds = []
    dimensions = [_dimension(name, value, problems) for name, value in given.items()]
    if not dimensions and not problems.found:
        problems.add(f"{path} names no field to search.")
    if JOINT in given and (twice := sorted({*POOLING_FIELDS} & {*given})):
        problems.add(f"{JOINT} and {', '.join(twice)} decide the same settings: name one of them.")
    return Space(tuple(d for d in dimensions if d)), base, tuple(dict.fromkeys(seeds))


def paper_space(num_hidden_layers: int) -> Space:
    """What the paper tried (Figures 5 to 8).

    Selections that need more layers than the encoder has, or come to the same layers in it, are left out.

    Example:
        >>> [len(dimension.values) for dimension in paper_space(6).dimensions]
        [5, 3, 3, 14]
        >>> len(paper_space(4).dimensions[-1].values)
        11
    """
    poolings, seen = [], set()
    for name in ("first_last", "last_four", "last_two", "all", "last", "second_to_last"):
        try:
            indices = resolve_layers(name, num_hidden_layers)
        except ValueError:
            continue
        if indices not in seen:
            reductions = LAYER_REDUCTIONS if len(indices) > 1 else ("mean",)
            poolings += [{"layers": name, "layer_reduction": reduction} for reduction in reductions]
        seen.add(indices)
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
        import tomllib  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            import tomli as tomllib  # type: ignore[import-not-found,no-redef,unused-ignore]
        except ImportError as error:
            raise InputError("Python 3.10 needs `pip install tomli` to read it.") from error
    content: dict[str, Any] = tomllib.loads(text)
    return content


def _dimension(name: str, value: Any, problems: Problems) -> Choice | Range | None:
    if isinstance(value, dict):
        return _range(name, value, problems)
    if not isinstance(value, list):
        problems.add(f"{name} is {value!r}: give a list of values, or a range with low and high.")
        return None
    if not value:
        problems.add(f"{name} is an empty list: give one value or more.")
        return None
    if name == JOINT:
        named = tuple(value[0]) if isinstance(value[0], dict) else ()
        alike = all(isinstance(table, dict) and set(table) == set(named) for table in value)
        if not named or not alike or not set(named) <= set(POOLING_FIELDS):
            problems.add(f"{JOINT} must list tables, all with the same fields of {', '.join(POOLING_FIELDS)}.")
            return None
        typed = [{part: _typed(part, table[part], problems) for part in named} for table in value]
    else:
        typed = [_typed(name, each, problems) for each in value]
    return Choice(name, tuple({label_of(each): each for each in typed}.values()))


def _range(name: str, value: dict[str, Any], problems: Problems) -> Range | None:
    if wrong := [key for key in value if key not in _RANGE_KEYS]:
        problems.add(f"{name} has {', '.join(wrong)}: a range has {', '.join(_RANGE_KEYS)}.")
    kind = KINDS.get(name)
    if kind not in ("int", "float"):
        problems.add(f"{name} takes a list, not a range.")
        return None
    low, high, log, points = (value.get(key) for key in _RANGE_KEYS)
    if not _is_a(kind, low) or not _is_a(kind, high):
        problems.add(f"{name} needs low and high, both {'whole numbers' if kind == 'int' else 'numbers'}.")
        return None
    if kind == "float":
        low, high = float(low), float(high)  # type: ignore[arg-type]
    if not low < high or (log and low <= 0):  # type: ignore[operator]
        problems.add(f"{name} goes from {low} to {high}: low must be below high" + (", and above 0." if log else "."))
        return None
    if points is not None and not (_is_a("int", points) and points >= 2):
        problems.add(f"{name} has points = {points!r}: give a whole number of at least 2.")
        return None
    return Range(name, low, high, bool(log), points)  # type: ignore[arg-type]


def _typed(name: str, value: Any, problems: Problems) -> Any:
    """The value as a TrainingConfig takes it."""
    kind = KINDS[name]
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
