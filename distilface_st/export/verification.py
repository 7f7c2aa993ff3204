"""Comparing a graph with the torch model it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..inference.engines import Engine
    from .sentence_graph import SentenceGraph

MIN_COSINE = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.5}
"""A graph with a lower cosine on any row of a random batch is refused. Random tokens are far from text."""

MIN_COSINE_ON_TEXT = 0.9
"""The same for int8 on real text."""

_RANDOM_BATCHES = 6
_TEXT_BATCHES = 8


def random_batches(graph: SentenceGraph, max_tokens: int) -> list[dict[str, np.ndarray]]:
    """Random tokens in batches of many shapes, padded ones, a single row and the longest input included."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(1, min(3, max_tokens), 0), (2, max_tokens, max_tokens // 2)]
    while len(shapes) < _RANDOM_BATCHES:
        rows, tokens = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((1, 9), (3, 49)))
        tokens = min(tokens, max_tokens)
        shapes.append((rows, tokens, int(torch.randint(0, tokens - 1, (), generator=generator))))
    examples = (graph.example(rows, tokens, generator, padding) for rows, tokens, padding in shapes)
    return [{name: tensor.numpy() for name, tensor in example.items()} for example in examples]


def verify(
    graph: SentenceGraph,
    engine: Engine,
    precision: str,
    max_tokens: int,
    text: Sequence[dict[str, np.ndarray]] = (),
) -> dict[str, float]:
    """Compare embeddings of random batches and, for int8, of text.

    Args:
        graph: The model in torch.
        engine: The exported graph.
        precision: ``fp32``, ``fp16`` or ``int8``, which says how alike they must be.
        max_tokens: The model's longest input.
        text: Batches of real text; a few of them are compared.

    Returns:
        ``max_abs_difference``, ``min_cosine`` and ``mean_cosine`` over random batches, with text also
        ``min_cosine_on_text`` and ``mean_cosine_on_text``.

    Raises:
        InputError: The graph is not the model.
    """
    difference, cosines = _compare(graph, engine, random_batches(graph, max_tokens))
    _refuse_below(MIN_COSINE[precision], cosines, f"The {precision} graph is not the model: on random batches")
    found = {
        "max_abs_difference": difference,
        "min_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
    }
    if text and precision == "int8":
        _, cosines = _compare(graph, engine, text[:: max(1, len(text) // _TEXT_BATCHES)])
        _refuse_below(MIN_COSINE_ON_TEXT, cosines, "Int8 changes this model too much: on text")
        found |= {"min_cosine_on_text": float(cosines.min()), "mean_cosine_on_text": float(cosines.mean())}
    return found


@torch.no_grad()
def _compare(
    graph: SentenceGraph, engine: Engine, batches: Sequence[dict[str, np.ndarray]]
) -> tuple[float, np.ndarray]:
    """The largest difference, and the cosine of every row."""
    difference, cosines = 0.0, []
    for batch in batches:
        expected = graph(**{name: torch.from_numpy(values) for name, values in batch.items()}).numpy()
        found = engine.run(batch)
        if found.shape != expected.shape:
            raise InputError(f"The graph gives embeddings of shape {found.shape} instead of {expected.shape}: refused.")
        difference = max(difference, float(np.abs(found - expected).max()))
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        cosines.append((found * expected).sum(axis=1) / np.maximum(lengths, 1e-12))
    return difference, np.concatenate(cosines)


def _refuse_below(least: float, cosines: np.ndarray, what: str) -> None:
    if not cosines.min() >= least:
        raise InputError(f"{what} the lowest cosine is {cosines.min():.5f}, and {least} is asked for: refused.")
