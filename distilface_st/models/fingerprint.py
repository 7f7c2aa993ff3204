"""What tells one encoder's embeddings from another's."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

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
    """:func:`encoder_fingerprint`, and that of version 0.1, which left out the longest input: an index may hold it."""
    return set(_fingerprints(encoder, name))


def _fingerprints(encoder: Any, name: str) -> list[str]:
    """The fingerprint of today and, of an encoder that shows its weights, that of version 0.1."""
    if manifest := manifest_of(encoder):
        # A graph that was written anew keeps the checksum of the first, with which its embeddings can be compared.
        files = [entry for graph in manifest.graphs.values() for entry in graph.files.values()]
        sums = [known for entry in files for known in entry.get("formerly", [entry["sha256"]])[:1]]
        parts, modules = [manifest.model["fingerprint"], *sorted(sums)], []
    elif hasattr(encoder, "state_dict"):
        parts = [model_fingerprint(encoder), *(type(module).__name__ for module in encoder)]
        modules = [[getattr(module, key, None) for key in _DECISIVE] for module in encoder]
    else:
        return [_digest(f"name {name}")]
    former = [*parts, dict(encoder.prompts), encoder.default_prompt_name, encoder.truncate_dim]
    today = json.dumps([*former, modules, longest_input(encoder)], sort_keys=True)  # prompts have no order
    return [_digest(today), _digest(json.dumps(former))]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
