"""DistilFACE for sentence-transformers: small sentence encoders, trained on your own unlabelled text.

A DistilFACE model is a plain ``SentenceTransformer``. This package adds the parts it is composed of
(``MultiLayerPooling``, ``SimCSELoss``), the evaluators of the literature, and one function or command a capability.
The public names stand in ``__init__.pyi`` and are imported when first used, so ``import distilface_st`` is quick.
"""

from __future__ import annotations

import warnings
from importlib import import_module, metadata
from typing import Any

import lazy_loader

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = metadata.version("distilface-st")

# Names that the first releases exported here. They warn, and go in the next release.
_MOVED = {
    "OnnxEncoder": "modules",
    "STSSubset": "datasets.sts",
    "TextData": "datasets.text_data",
    "bundled_encoder": "pretrained",
    "model_from_config": "training.train",
    "portable_model": "models.save",
    "trim_vocabulary": "distillation.vocabulary",
}


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return _public(name)
    home = f"{__name__}.{_MOVED[name]}"
    warnings.warn(f"Import {name} from {home}: the next release drops it here.", DeprecationWarning, stacklevel=2)
    return getattr(import_module(home), name)
