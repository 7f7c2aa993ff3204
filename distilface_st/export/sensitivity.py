"""Which linear layers suffer most from int8, found in torch, whatever the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .sentence_graph import SentenceGraph


def linear_layers(graph: SentenceGraph) -> dict[str, nn.Linear]:
    """The encoder's linear layers by name, such as ``0.model.encoder.layer.3.output.dense``."""
    return {f"0.{name}": layer for name, layer in graph.parts[0].named_modules() if isinstance(layer, nn.Linear)}


@torch.no_grad()
def most_sensitive_first(graph: SentenceGraph, batches: Sequence[dict[str, Tensor]]) -> list[str]:
    """Order the linear layers by how far embeddings turn when that layer alone computes in int8.

    Args:
        graph: The model.
        batches: What the graph takes.

    Returns:
        Names of all linear layers, the one that turns embeddings most first.
    """
    reference = torch.cat([graph(**batch) for batch in batches])
    distance = {}
    for name, layer in linear_layers(graph).items():
        weight = layer.weight.data
        layer.weight.data = _rounded(weight, signed=True)
        hook = layer.register_forward_pre_hook(lambda _, inputs: (_rounded(inputs[0], signed=False),))
        found = torch.cat([graph(**batch) for batch in batches])
        hook.remove()
        layer.weight.data = weight
        distance[name] = 1 - float(torch.cosine_similarity(found, reference).mean())
    return sorted(distance, key=distance.__getitem__, reverse=True)


def _rounded(values: Tensor, signed: bool) -> Tensor:
    """Values after a round trip through 8 bits: symmetric a row, or with a zero point over all of them."""
    if signed:
        scale = values.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
        return (values / scale).round() * scale
    low, high = values.min().clamp(max=0), values.max().clamp(min=0)
    scale = ((high - low) / 255).clamp(min=1e-12)
    return ((values - low) / scale).round() * scale + low
