"""Optional dependencies, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import MissingExtraError


def require(module: str, what: str, extra: str) -> Any:
    """Import a module that an extra of this package brings, or say for ``what`` the extra is to be installed.

    Example:
        >>> require("json", "Reading", "plots").loads("[1]")
        [1]
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(what, extra) from error
