"""Fields of a config dataclass with limits, which its constructor checks and the command line shows."""

from __future__ import annotations

from dataclasses import field, fields
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def setting(
    default: Any, *, minimum: float | None = None, above: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    """A field of a dataclass: of at least ``minimum``, greater than ``above``, one of ``choices``."""
    return field(default=default, metadata={"minimum": minimum, "above": above, "choices": choices})


def check_settings(config: DataclassInstance) -> None:
    """Refuse a dataclass with a value outside the limits of its field; None always passes."""
    for known in fields(config):
        name, value = known.name, getattr(config, known.name)
        minimum, above, choices = (known.metadata.get(key) for key in ("minimum", "above", "choices"))
        if value is None:
            continue
        if minimum is not None and not value >= minimum:
            raise InputError(f"{name} is {value}: it must be at least {minimum}.")
        if above is not None and not value > above:
            raise InputError(f"{name} is {value}: it must be above {above}.")
        if choices and value not in choices:
            raise InputError(f"{name} is {value!r}: allowed are {', '.join(choices)}.")
