"""All poolings of an encoder at once, inside its one forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ...modules import MultiLayerPooling

if TYPE_CHECKING:
    from collections.abc import Sequence

PoolingKey = tuple[tuple[int, ...], str, str]
"""Layer indices, layer reduction, token pooling."""

_TAKES_ONE_TOKEN = ("cls", "lasttoken")


def pooling_key(indices: tuple[int, ...], reduction: str, mode: str) -> PoolingKey:
    """The key of a pooling; the same for all reductions of a single layer, since they are the same pooling."""
    return indices, reduction if len(indices) > 1 else "mean", mode


class PoolingBank(nn.Module):
    """Pools the hidden states of one forward pass in every way that the poolings asked for cannot share.

    The sentence embedding it gives is the concatenation of slots, each of the encoder's hidden size d: every selected
    layer under every token pooling, then every reduction that does not commute with a token pooling, token by token.

    Args:
        template: A pooling over the last layer: the encoder's size and depth, and whether prompts take part.
        keys: The poolings.

    Raises:
        ValueError: A token pooling that does not exist.
    """

    def __init__(self, template: MultiLayerPooling, keys: Sequence[PoolingKey]) -> None:
        super().__init__()
        self.keys = tuple(keys)
        self.dimension = template.embedding_dimension
        self.slots: dict[PoolingKey, int] = {}
        needed: dict[tuple[tuple[int, ...], str], dict[str, None]] = {}
        for key in keys:
            for indices, reduction, mode in _parts(key):
                needed.setdefault((indices, reduction), {})[mode] = None
        self.poolings = nn.ModuleList()
        for (indices, reduction), modes in needed.items():
            for mode in modes:
                self.slots[indices, reduction, mode] = len(self.slots)
            self.poolings.append(
                MultiLayerPooling(
                    self.dimension,
                    template.num_hidden_layers,
                    layers=indices,
                    layer_reduction=cast("Any", reduction),
                    pooling_mode=tuple(modes),
                    include_prompt=template.include_prompt,
                )
            )

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """The features with ``sentence_embedding`` of shape (batch, slots x d), float32."""
        pooled = [pooling(dict(features))["sentence_embedding"].float() for pooling in self.poolings]
        return {**features, "sentence_embedding": torch.cat(pooled, dim=-1)}

    def combine(self, slots: Tensor, key: PoolingKey) -> Tensor:
        """The embedding one pooling gives: from slots of shape (n, slots, d), shape (n, d or layers x d)."""
        parts = slots[:, [self.slots[part] for part in _parts(key)]]
        if parts.shape[1] == 1:
            return parts[:, 0]
        reduction = key[1]
        if reduction == "concat":
            return parts.flatten(1)
        return parts.amax(dim=1) if reduction == "max" else parts.mean(dim=1)


def _parts(key: PoolingKey) -> list[PoolingKey]:
    """What a pooling is put together from: single layers if its reduction commutes with token pooling, else itself."""
    indices, reduction, mode = key
    token_by_token = {"mean": mode == "max", "max": mode not in (*_TAKES_ONE_TOKEN, "max"), "concat": False}
    if len(indices) == 1 or token_by_token[reduction]:
        return [key]
    return [((index,), "mean", mode) for index in indices]
