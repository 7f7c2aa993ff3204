"""What tells one encoder's embeddings from another's."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from ..inference.edge_encoder import EdgeEncoder

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

    Args:
        encoder: An ``EdgeEncoder``, a ``SentenceTransformer``, or an object that shows no weights, which is known by
            its name alone.
        name: The encoder's name.
    """
    if not _shows_weights(encoder):
        return _digest(f"name {name}")
    known: Any = encoder
    modules = [] if isinstance(known, EdgeEncoder) else [[getattr(m, k, None) for k in _DECISIVE] for m in known]
    return _digest(json.dumps([*_parts(known), modules, known.max_seq_length]))


def fingerprints_of(encoder: Encoder, name: str = "") -> set[str]:
    """:func:`encoder_fingerprint`, and that of version 0.1, which left out the longest input: an index may hold it."""
    former = [_digest(json.dumps(_parts(encoder)))] if _shows_weights(encoder) else []
    return {encoder_fingerprint(encoder, name), *former}


def _shows_weights(encoder: Encoder) -> bool:
    return isinstance(encoder, EdgeEncoder) or hasattr(encoder, "state_dict")


def _parts(encoder: Any) -> list[Any]:
    if isinstance(encoder, EdgeEncoder):
        sums = [entry["sha256"] for graph in encoder.manifest.graphs.values() for entry in graph.files.values()]
        parts = [encoder.manifest.model["fingerprint"], *sorted(sums)]
    else:
        parts = [model_fingerprint(encoder), *(type(module).__name__ for module in encoder)]
    return [*parts, dict(encoder.prompts), encoder.default_prompt_name, encoder.truncate_dim]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
