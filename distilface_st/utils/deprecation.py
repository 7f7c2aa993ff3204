"""Old names of settings, which work for one release more and warn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, TypeVar

C = TypeVar("C", bound=Callable[..., Any])


def renamed(**names: str) -> Callable[[C], C]:
    """Decorate a class or function whose keyword arguments have new names, so that it takes the old ones, too.

    ``names`` holds the new name of each old one. A class keeps them as ``RENAMED``, and its instances answer to them;
    ``dataclasses.replace`` takes them, too.

    Example:
        >>> @renamed(steps="max_steps")
        ... def train(max_steps=1):
        ...     return max_steps
        >>> train(steps=3)
        3
    """

    def decorate(target: C) -> C:
        is_class = isinstance(target, type)
        function: Any = getattr(target, "__init__") if is_class else target  # noqa: B009 (else mypy objects)

        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **current_names(kwargs, names))

        if not is_class:
            return wrapper  # type: ignore[return-value]

        def read(self: Any, old: str) -> Any:
            return getattr(self, _current(old, names[old]))

        properties = {old: property(partial(read, old=old)) for old in names}
        for name, value in {"__init__": wrapper, "RENAMED": names, **properties}.items():
            setattr(target, name, value)
        return target

    return decorate


def current_names(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A dictionary with its old keys replaced by the new ones.

    A value under an old name is the one that counts, because ``dataclasses.replace`` fills in the new names that it was
    not given.
    """
    found = dict(values)
    for old in names.keys() & values.keys():
        found[_current(old, names[old])] = found.pop(old)
    return found


def _current(old: str, new: str) -> str:
    warnings.warn(f"{old} is now called {new}; the next release drops the old name.", DeprecationWarning, stacklevel=4)
    return new
