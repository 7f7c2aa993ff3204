"""Optional dependencies, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import MissingExtraError


def require(module: str, what: str, extra: str) -> Any:
    """Import a library that an extra brings.

    Args:
        module: Name of the module.
        what: The capability that needs it, as a user would name it.
        extra: The extra of this package that brings it.

    Returns:
        The module.

    Raises:
        MissingExtraError: It is not installed.

    Example:
        >>> require("json", "Reading", "plots").loads("[1]")
        [1]
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(what, extra) from error
