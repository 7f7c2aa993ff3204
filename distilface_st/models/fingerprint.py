"""What tells one encoder's embeddings from another's."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from ..inference.manifest import WEIGHTS
from .encoders import longest_input, manifest_of

if TYPE_CHECKING:
    from torch import nn

    from .encoders import Encoder

_DECISIVE = ("pooling_mode", "layers", "layer_reduction", "include_prompt")
"""Attributes of a module, beside its weights, that decide an embedding."""


def model_fingerprint(model: nn.Module) -> str:
    """64-bit BLAKE2b of all parameters and buffers, by name: equal weights give equal fingerprints."""
    import torch

    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def encoder_fingerprint(encoder: Encoder, name: str = "") -> str:
    """64-bit BLAKE2b of all that decides an embedding: weights, modules, longest input, prompts and dimensions.

    An object that shows no weights, unlike an ``EdgeEncoder`` or a ``SentenceTransformer``, is known by ``name`` alone.
    """
    return _fingerprints(encoder, name)[0]


def fingerprints_of(encoder: Encoder, name: str = "") -> set[str]:
    """:func:`encoder_fingerprint`, and those of version 0.1, which an index may hold.

    That version left out the longest input, and counted the graph of a packed model, though its weights are elsewhere.
    """
    return set(_fingerprints(encoder, name))


def _fingerprints(encoder: Any, name: str) -> list[str]:
    """The fingerprint of today and, of an encoder that shows its weights, those of version 0.1."""
    modules: list[list[Any]] = []
    if manifest := manifest_of(encoder):
        files = [file for graph in manifest.graphs.values() for file in graph.files.items()]
        weights = [entry["sha256"] for name, entry in files if name == WEIGHTS or not manifest.is_packed]
        former = [[entry["sha256"] for _, entry in files]]
        former += [
            [one["sha256"] for other, one in files if other != name] + [graph]
            for name, entry in files
            for graph in entry.get("formerly", ())
        ]
        parts, *earlier = [[manifest.model["fingerprint"], *sorted(sums)] for sums in (weights, *former)]
    elif hasattr(encoder, "state_dict"):
        parts = [model_fingerprint(encoder), *(type(module).__name__ for module in encoder)]
        modules = [[getattr(module, key, None) for key in _DECISIVE] for module in encoder]
        earlier = [parts]
    else:
        return [_digest(f"name {name}")]
    settings = [dict(encoder.prompts), encoder.default_prompt_name, encoder.truncate_dim]
    today = json.dumps([*parts, *settings, modules, longest_input(encoder)], sort_keys=True)  # prompts have no order
    return [_digest(today), *(_digest(json.dumps([*own, *settings])) for own in earlier)]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
