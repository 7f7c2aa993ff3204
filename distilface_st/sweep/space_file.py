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

    from .problems import Problems

WHOLE = ("max_steps", "batch_size", "warmup_steps", "max_length", "eval_steps", "patience", "seed", "mini_batch_size")
REAL = ("temperature", "learning_rate", "dropout", "weight_decay", "max_grad_norm")
YES_NO = ("normalize", "trim", "symmetric")
FIXED = ("encoder", "views")
SEARCHABLE = tuple(field.name for field in fields(TrainingConfig) if field.name not in FIXED)
"""Fields of a TrainingConfig that a space may name."""

_RANGE_KEYS = ("low", "high", "log", "points")
_JOINED = ", "


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
    nothing: tuple[Space, dict[str, Any], tuple[int, ...]] = (Space(()), {}, ())
    try:
        content = current_names(_parse(path.read_text(encoding="utf-8")), OLD_NAMES)
    except (OSError, ValueError) as error:
        problems.add(f"{path} cannot be read as a space: {error}")
        return nothing
    base = content.pop("base", {})
    if not isinstance(base, dict):
        problems.add("base must be a table of settings.")
        base = {}
    base = current_names(base, OLD_NAMES)
    unknown = [f"base.{name}" for name in base if name not in (*SEARCHABLE, "views")]
    unknown += [name for name in content if name not in (*SEARCHABLE, JOINT)]
    if unknown:
        problems.add(f"Unknown: {_JOINED.join(unknown)}. Fields are {_JOINED.join((*SEARCHABLE, JOINT))}.")
    base = {name: _typed(name, value, problems) for name, value in base.items() if f"base.{name}" not in unknown}
    given = {name: value for name, value in content.items() if name not in unknown}
    seeds = given.pop("seed", [])
    if not isinstance(seeds, list) or not all(_is_number(seed, True) and seed >= 0 for seed in seeds):
        problems.add("seed must be a list of whole numbers of at least 0.")
        seeds = []
    dimensions = [_dimension(name, value, problems) for name, value in given.items()]
    if not dimensions and not problems.found:
        problems.add(f"{path} names no field to search.")
    twice = sorted({*POOLING_FIELDS} & {*given}) if JOINT in given else []
    if twice:
        problems.add(f"{JOINT} and {_JOINED.join(twice)} decide the same settings: name one of them.")
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
        return _poolings(value, problems)
    values = {label_of(typed): typed for typed in (_typed(name, each, problems) for each in value)}
    return Choice(name, tuple(values.values()))


def _poolings(values: list[Any], problems: Problems) -> Choice | None:
    named = tuple(values[0]) if isinstance(values[0], dict) else ()
    if not named or not all(isinstance(each, dict) and set(each) == set(named) <= {*POOLING_FIELDS} for each in values):
        problems.add(f"{JOINT} must list tables, all with the same fields of {_JOINED.join(POOLING_FIELDS)}.")
        return None
    typed = [{name: _typed(name, each[name], problems) for name in named} for each in values]
    return Choice(JOINT, tuple({label_of(each): each for each in typed}.values()))


def _range(name: str, value: dict[str, Any], problems: Problems) -> Range | None:
    wrong = [key for key in value if key not in _RANGE_KEYS]
    if wrong:
        problems.add(f"{name} has {_JOINED.join(wrong)}: a range has {_JOINED.join(_RANGE_KEYS)}.")
    if name not in (*WHOLE, *REAL):
        problems.add(f"{name} takes a list, not a range.")
        return None
    low, high, log, points = (value.get(key) for key in _RANGE_KEYS)
    if not all(_is_number(end, name in WHOLE) for end in (low, high)):
        kind = "whole numbers" if name in WHOLE else "numbers"
        problems.add(f"{name} needs low and high, both {kind}.")
        return None
    if name in REAL:
        low, high = float(low), float(high)  # type: ignore[arg-type]
    if not low < high or (log and low <= 0):  # type: ignore[operator]
        problems.add(f"{name} goes from {low} to {high}: low must be below high" + (", and above 0." if log else "."))
        return None
    if points is not None and not (_is_number(points, True) and points >= 2):
        problems.add(f"{name} has points = {points!r}: give a whole number of at least 2.")
        return None
    return Range(name, low, high, bool(log), points)  # type: ignore[arg-type]


def _typed(name: str, value: Any, problems: Problems) -> Any:
    """The value as a TrainingConfig takes it."""
    if name in WHOLE and not _is_number(value, True):
        problems.add(f"{name} has {value!r}, which is not a whole number.")
    elif name in REAL and not _is_number(value, False):
        problems.add(f"{name} has {value!r}, which is not a number.")
    elif name in YES_NO and not isinstance(value, bool):
        problems.add(f"{name} has {value!r}: it is true or false.")
    elif name in REAL:
        return float(value)
    elif name in ("layers", "pooling_mode") and isinstance(value, list):
        return tuple(value)
    elif name not in (*WHOLE, *REAL, *YES_NO) and not isinstance(value, str):
        problems.add(f"{name} has {value!r}, which is not a name.")
    return value


def _is_number(value: Any, whole: bool) -> bool:
    return isinstance(value, int if whole else int | float) and not isinstance(value, bool)
