"""Comparing a graph with the torch model it was made from, on random batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import InputError

if TYPE_CHECKING:
    from ..runtime.engines import Engine
    from .sentence_graph import SentenceGraph

MIN_COSINE = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.9}
"""Below this, on any row of a random batch, a graph is refused. Int8 does better on text than on random tokens."""

_BATCHES = 6


def verify(graph: SentenceGraph, engine: Engine, precision: str, max_tokens: int) -> dict[str, float]:
    """Compare embeddings of random batches of many shapes, padded ones and the longest included.

    Args:
        graph: The model in torch.
        engine: The exported graph.
        precision: ``fp32``, ``fp16`` or ``int8``, which says how alike they must be.
        max_tokens: The model's longest input.

    Returns:
        ``max_abs_difference``, ``min_cosine``, ``mean_cosine`` and ``batches``.

    Raises:
        InputError: The graph is not the model.
    """
    generator = torch.Generator().manual_seed(1)
    shapes = [(1, min(3, max_tokens), 0), (2, max_tokens, max_tokens // 2)]
    while len(shapes) < _BATCHES:
        rows, tokens = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((1, 9), (3, 49)))
        tokens = min(tokens, max_tokens)
        shapes.append((rows, tokens, int(torch.randint(0, tokens - 1, (), generator=generator))))
    difference, cosines = 0.0, []
    for rows, tokens, padding in shapes:
        example = graph.example(rows, tokens, generator, padding)
        with torch.no_grad():
            expected = graph(**example).numpy()
        found = engine.run({name: tensor.numpy() for name, tensor in example.items()})
        if found.shape != expected.shape:
            raise InputError(f"The graph gives embeddings of shape {found.shape} instead of {expected.shape}: refused.")
        difference = max(difference, float(np.abs(found - expected).max()))
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        cosines.append((found * expected).sum(axis=1) / np.maximum(lengths, 1e-12))
    cosine = np.concatenate(cosines)
    if not cosine.min() >= MIN_COSINE[precision]:
        raise InputError(
            f"The {precision} graph is not the model: on random batches the lowest cosine is {cosine.min():.5f} "
            f"(at least {MIN_COSINE[precision]} is asked for), the largest difference {difference:.2g}: refused."
        )
    return {
        "max_abs_difference": difference,
        "min_cosine": float(cosine.min()),
        "mean_cosine": float(cosine.mean()),
        "batches": _BATCHES,
    }
