"""Making an encoder shallower where its upper layers are not used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import InputError
from ..modules import MultiLayerPooling

if TYPE_CHECKING:
    from sentence_transformers.sentence_transformer.modules import Transformer


def trim_encoder(transformer: Transformer, pooling: MultiLayerPooling) -> MultiLayerPooling:
    """Drop the encoder's layers above the highest one used, and check that the ones below give what they gave.

    Args:
        transformer: The encoder, changed in place.
        pooling: Its pooling.

    Returns:
        The same pooling for the shallower encoder.

    Raises:
        InputError: The encoder's layers are not one list, or its hidden states depend on the layers above them.
    """
    depth = max(1, *pooling.layer_indices)
    encoder = transformer.model
    stacks = [
        module
        for module in encoder.modules()
        if isinstance(module, nn.ModuleList) and len(module) == pooling.num_hidden_layers
    ]
    if len(stacks) != 1:
        raise InputError(f"Cannot trim {type(encoder).__name__}: found {len(stacks)} stacks of its layers, not one.")
    before = _probe(encoder)
    del stacks[0][depth:]
    encoder.config.num_hidden_layers = depth
    after = _probe(encoder)
    if not all(torch.allclose(before[index], after[index], atol=1e-5) for index in pooling.layer_indices):
        raise InputError(f"Cannot trim {type(encoder).__name__}: its hidden states depend on the layers above them.")
    return MultiLayerPooling(
        pooling.embedding_dimension,
        depth,
        layers=list(pooling.layer_indices),
        layer_reduction=pooling.layer_reduction,
        pooling_mode=pooling.pooling_mode,
        include_prompt=pooling.include_prompt,
    )


@torch.no_grad()
def _probe(encoder: Any) -> tuple[torch.Tensor, ...]:
    was_training = encoder.training
    encoder.eval()
    ids = torch.arange(1, 9, device=encoder.device)[None] % encoder.config.vocab_size
    hidden_states = encoder(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
    encoder.train(was_training)
    return tuple(hidden_states)
