"""The former home of ``EdgeEncoder``, which cards of exported models name. It warns, and goes in the next release."""

from __future__ import annotations

import warnings

from .inference.edge_encoder import EdgeEncoder

__all__ = ["EdgeEncoder"]

warnings.warn("Import EdgeEncoder from distilface_st.", DeprecationWarning, stacklevel=2)
