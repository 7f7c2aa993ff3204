"""DistilFACE for sentence-transformers: small sentence encoders, trained on your own unlabelled text.

A DistilFACE model is a plain ``SentenceTransformer``. This package adds the parts it is composed of
(``MultiLayerPooling``, ``SimCSELoss``), the evaluators of the literature, and one function or command a capability.
Names are imported when first used, so ``import distilface_st`` is quick.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import InputError, MissingExtraError

_HOMES = {
    "InputError": "errors",
    "MissingExtraError": "errors",
}

__all__ = [
    "InputError",
    "MissingExtraError",
]

__version__ = metadata.version("distilface-st")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
