"""Narrow word embeddings with a projection to the hidden width: a BERT-like encoder becomes an ELECTRA model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import ElectraConfig, ElectraModel

from ..errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SHARED = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act hidden_dropout_prob "
    "attention_probs_dropout_prob max_position_embeddings type_vocab_size initializer_range layer_norm_eps pad_token_id"
).split()


def factorised_encoder(encoder: PreTrainedModel, embedding_size: int) -> ElectraModel:
    """The same encoder with word embeddings of ``embedding_size`` dimensions, as an ``ElectraModel``.

    BERT's embedding of a token is the layer normalization of the sum of a word's, a position's and a segment's vector.
    All three are projected onto the leading singular vectors of the centred table, words weighted alike, as ALBERT
    (Lan et al., 2020) factorises its table in training. They are laid across the all-ones vector, so that the
    normalization in the narrow space takes nothing away, and the gain and bias of the wide one go into the projection.

    Args:
        encoder: A BERT or ELECTRA model, whose layers become the new model's; it is left unusable.
        embedding_size: Width of the word embeddings, below the encoder's own.

    Raises:
        InputError: Another kind of encoder, or a size that does not fit.
    """
    config = cast("Any", encoder.config)
    if config.model_type not in ("bert", "electra"):
        raise InputError(f"Word embeddings are factorised in BERT and ELECTRA encoders, not in {config.model_type}.")
    table = cast("Any", encoder).embeddings.word_embeddings.weight.detach()
    if not 8 <= embedding_size < table.shape[1]:
        raise InputError(f"The embedding size is {embedding_size}: it must be from 8 to {table.shape[1] - 1}.")
    if hasattr(encoder, "embeddings_project"):
        raise InputError("The encoder's word embeddings are factorised already.")
    shared = {name: getattr(config, name) for name in _SHARED}
    electra = ElectraModel(ElectraConfig(**shared, embedding_size=embedding_size))
    electra.encoder.load_state_dict(cast("Any", encoder).encoder.state_dict())
    _fill(electra, cast("Any", encoder).embeddings, embedding_size)
    electra.config._attn_implementation = config._attn_implementation
    return electra


@torch.no_grad()
def _fill(electra: Any, wide: Any, size: int) -> None:
    words = _centred(wide.word_embeddings.weight)
    positions = _centred(wide.position_embeddings.weight + wide.token_type_embeddings.weight[0])
    typical = words + positions.mean(dim=0)
    _, vectors = torch.linalg.eigh(typical.T.double() @ typical.double())
    leading = vectors.flip(1)[:, : size - 1].float()
    across = _across_ones(size)
    narrow, narrow_positions = words @ leading @ across, positions @ leading @ across
    scale = (narrow + narrow_positions.mean(dim=0)).std(dim=1, unbiased=False).mean()
    wide_scale = typical.std(dim=1, unbiased=False).mean()
    table = electra.embeddings
    table.word_embeddings.weight.copy_(narrow)
    table.position_embeddings.weight.copy_(narrow_positions)
    table.token_type_embeddings.weight.zero_()
    table.LayerNorm.weight.fill_(1)
    table.LayerNorm.bias.zero_()
    projection = electra.embeddings_project
    gain = wide.LayerNorm.weight * scale / wide_scale
    projection.weight.copy_(gain[:, None] * (leading @ across))
    projection.bias.copy_(wide.LayerNorm.bias)


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(dim=1, keepdim=True)


def _across_ones(size: int) -> Tensor:
    """An orthonormal basis, shape (size - 1, size), of the vectors whose elements sum to 0."""
    square = torch.eye(size, dtype=torch.float64)
    square[:, 0] = 1
    basis, _ = torch.linalg.qr(square)
    return cast("Tensor", basis[:, 1:].T.float())
