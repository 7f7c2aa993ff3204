"""All poolings of an encoder at once, inside its one forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ...modules import MultiLayerPooling

if TYPE_CHECKING:
    from collections.abc import Sequence

_TAKES_ONE_TOKEN = ("cls", "lasttoken")


class PoolingKey(NamedTuple):
    """What one pooling is."""

    layer_indices: tuple[int, ...]
    layer_reduction: str
    pooling_mode: str


def pooling_key(indices: tuple[int, ...], reduction: str, mode: str) -> PoolingKey:
    """The key of a pooling; the same for all reductions of a single layer, since they are the same pooling."""
    return PoolingKey(indices, reduction if len(indices) > 1 else "mean", mode)


class PoolingBank(nn.Module):
    """Pools the hidden states of one forward pass in every way that the poolings asked for cannot share.

    The sentence embedding it gives is the concatenation of slots, each of the encoder's hidden size d. A reduction that
    commutes with the token pooling shares the slots of its single layers: the mean over two layers, then over tokens,
    is the mean of the two layers' means over tokens. One that does not commute has a slot of its own, pooled token by
    token: the mean over two layers, then the maximum over tokens, is not the mean of two maxima. For layers 1 and 2:

    ========== ======================== ================================================
    reduction  token pooling            slots
    ========== ======================== ================================================
    concat     any                      (1,) and (2,), side by side
    mean       max                      (1, 2), token by token
    mean       any other                (1,) and (2,), averaged
    max        cls, lasttoken, max      (1,) and (2,), the greater
    max        any other, such as mean  (1, 2), token by token
    ========== ======================== ================================================

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
        needed: dict[tuple[tuple[int, ...], str], dict[str, None]] = {}
        for part in (part for key in keys for part in _parts(key)):
            needed.setdefault(part[:2], {})[part.pooling_mode] = None
        poolings = [
            MultiLayerPooling(
                self.dimension,
                template.num_hidden_layers,
                layers=indices,
                layer_reduction=cast("Any", reduction),
                pooling_mode=tuple(modes),
                include_prompt=template.include_prompt,
            )
            for (indices, reduction), modes in needed.items()
        ]
        self.poolings = nn.ModuleList(poolings)
        found = (PoolingKey(*layers, mode) for layers, modes in needed.items() for mode in modes)
        self.slots = {part: slot for slot, part in enumerate(found)}

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """The features with ``sentence_embedding`` of shape (batch, slots x d), float32."""
        pooled = [pooling(dict(features))["sentence_embedding"].float() for pooling in self.poolings]
        return {**features, "sentence_embedding": torch.cat(pooled, dim=-1)}

    def combine(self, slots: Tensor, key: PoolingKey) -> Tensor:
        """The embedding one pooling gives: from slots of shape (n, slots, d), shape (n, d or layers x d)."""
        parts = slots[:, [self.slots[part] for part in _parts(key)]]
        if parts.shape[1] == 1:
            return parts[:, 0]
        if key.layer_reduction == "concat":
            return parts.flatten(1)
        return parts.amax(dim=1) if key.layer_reduction == "max" else parts.mean(dim=1)


def _parts(key: PoolingKey) -> list[PoolingKey]:
    """The slots that a pooling is put together from, see :class:`PoolingBank`."""
    indices, reduction, mode = key
    commutes = {"concat": True, "mean": mode != "max", "max": mode in (*_TAKES_ONE_TOKEN, "max")}
    if len(indices) == 1 or not commutes[reduction]:
        return [key]
    return [PoolingKey((index,), "mean", mode) for index in indices]
