"""A student cut from its teacher: some of its layers, factorised word embeddings, fewer words, fewer dimensions."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from torch import nn
from transformers import ElectraConfig, ElectraModel

from ..errors import InputError
from ..models.build import compose, layer_stack
from ..models.encoders import check_model, unit_embeddings
from ..models.load import load_model
from .vocabulary import trim_vocabulary

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..datasets.text_data import TextData

_PCA_SENTENCES = 4096
_COUNTED_SENTENCES = 200_000
_SHARED_SETTINGS = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act hidden_dropout_prob "
    "attention_probs_dropout_prob max_position_embeddings type_vocab_size initializer_range layer_norm_eps pad_token_id"
).split()
"""Settings that BERT and ELECTRA share."""


def make_student(
    teacher: SentenceTransformer | str | os.PathLike[str],
    layers: int | str | Sequence[int] | None = None,
    embedding_size: int | None = None,
    vocabulary: int | None = None,
    dimension: int | None = None,
    data: TextData | None = None,
    device: str | None = None,
) -> SentenceTransformer:
    """A smaller model that begins with its teacher's weights.

    Args:
        teacher: A model of a transformer encoder and a pooling, or its folder or name. It stays as it is.
        layers: Transformer layers to keep, see :func:`choose_layers`; by default all.
        embedding_size: Width of the word embeddings, by a singular value decomposition of the teacher's; the student is
            then an ``ElectraModel``, whose embeddings are projected to the hidden width. By default they stay whole.
        vocabulary: Tokens to keep, the most frequent ones of ``data``, see
            :func:`distilface_st.distillation.vocabulary.trim_vocabulary`; by default all.
        dimension: Width of the sentence embeddings, by their principal components on ``data``; by default the
            teacher's.
        data: Sentences, for ``vocabulary`` and ``dimension``.
        device: Where to put the student; the best there is by default.

    Returns:
        A stock SentenceTransformer of encoder, pooling and, with ``dimension``, a linear layer. A normalization of the
        teacher's is left out, since distillation compares angles.

    Raises:
        InputError: An encoder that cannot be cut so, layers that it does not have, sizes that do not fit, or no data
            where it is needed.

    Example:
        ::

            student = make_student("sentence-transformers/all-MiniLM-L6-v2", layers=3, embedding_size=128)
    """
    if not isinstance(teacher, SentenceTransformer):
        teacher = load_model(teacher, device="cpu")
    check_model(teacher)
    modules = list(teacher)
    if not isinstance(modules[0], Transformer) or len(modules) < 2 or not isinstance(modules[1], Pooling):
        names = ", ".join(type(module).__name__ for module in modules)
        raise InputError(f"A student is cut from a transformer encoder followed by a pooling; this model has {names}.")
    transformer, pooling = copy.deepcopy(modules[0]).float(), copy.deepcopy(modules[1])
    _keep_layers(transformer.model, layers)
    if vocabulary:
        _keep_words(transformer, _sentences(data, _COUNTED_SENTENCES), vocabulary)
    if embedding_size:
        transformer.model = factorised_encoder(transformer.model, embedding_size)
    student = compose(teacher, [transformer, pooling], device)
    if dimension:
        reduction = _principal_components(student, _sentences(data, _PCA_SENTENCES), dimension)
        student = compose(teacher, [transformer, pooling, reduction], device)
    return student


def choose_layers(layers: int | str | Sequence[int] | None, depth: int) -> list[int]:
    """Which of a teacher's ``depth`` layers to keep.

    ``layers`` is a number of layers, evenly spaced from the first one on, as DistilBERT was cut from BERT (Sanh et al.,
    2019); ``first:N``; or indices of layers, 0 to ``depth`` - 1, in the student's order, a layer perhaps more than
    once. None keeps all.

    Example:
        >>> choose_layers(3, 6), choose_layers("first:2", 6), choose_layers([0, 5], 6)
        ([0, 2, 4], [0, 1], [0, 5])
    """
    if layers is None:
        return list(range(depth))
    if isinstance(layers, str):
        kind, _, number = layers.partition(":")
        if kind != "first" or not number.isdigit():
            raise InputError(f"layers is {layers!r}: give a number, first:N, or indices with commas.")
        chosen = list(range(int(number)))
    elif isinstance(layers, int):
        chosen = [index * depth // layers for index in range(layers)] if 0 < layers <= depth else list(range(layers))
    else:
        chosen = list(layers)
    if not chosen or not all(0 <= index < depth for index in chosen):
        raise InputError(f"layers is {layers!r}, but the teacher has {depth} layers, 0 to {depth - 1}.")
    return chosen


def _keep_layers(encoder: Any, layers: int | str | Sequence[int] | None) -> None:
    chosen = choose_layers(layers, encoder.config.num_hidden_layers)
    stack = layer_stack(encoder, "cut")
    # A layer that is there more than once gets weights of its own each time.
    kept = [
        copy.deepcopy(stack[index]) if index in chosen[:position] else stack[index]
        for position, index in enumerate(chosen)
    ]
    del stack[:]
    stack.extend(kept)
    encoder.config.num_hidden_layers = len(chosen)


def _sentences(data: TextData | None, rows: int) -> list[str]:
    if data is None:
        raise InputError("Trimming the vocabulary or reducing the dimension needs sentences to look at.")
    return list(data.dataset[:rows]["sentence"])


def _keep_words(transformer: Transformer, sentences: list[str], size: int) -> None:
    tokenizer, kept = trim_vocabulary(cast("PreTrainedTokenizerBase", transformer.tokenizer), sentences, size)
    encoder = cast("Any", transformer.model)
    table = encoder.get_input_embeddings().weight.detach()
    padding = tokenizer.pad_token_id
    smaller = nn.Embedding(len(kept), table.shape[1], padding_idx=padding)
    smaller.weight = nn.Parameter(table[torch.from_numpy(kept)].clone())
    encoder.set_input_embeddings(smaller)
    encoder.config.vocab_size, encoder.config.pad_token_id = len(kept), padding
    transformer.processor = tokenizer


def _principal_components(student: SentenceTransformer, sentences: list[str], dimension: int) -> Dense:
    """A linear layer onto the directions in which the student's embeddings of length 1 have the largest squares."""
    width = student.get_embedding_dimension() or 0
    if not 1 <= dimension <= min(width, len(sentences)):
        raise InputError(
            f"dimension is {dimension}: the model has {width}, and {len(sentences)} sentences were given to find it."
        )
    embeddings = unit_embeddings(student, sentences).astype(np.float64)
    _, vectors = np.linalg.eigh(embeddings.T @ embeddings)
    layer = Dense(width, dimension, bias=False, activation_function=nn.Identity())
    layer.linear.weight = nn.Parameter(torch.tensor(vectors[:, ::-1][:, :dimension].T.copy(), dtype=torch.float32))
    return layer


def factorised_encoder(encoder: PreTrainedModel, embedding_size: int) -> ElectraModel:
    """The same encoder with word embeddings of ``embedding_size`` dimensions, as an ``ElectraModel``.

    BERT's embedding of a token is the layer normalization of the sum of a word's, a position's and a segment's vector.
    All three are projected onto the leading singular vectors of the centred table, words weighted alike, as ALBERT
    (Lan et al., 2020) factorises its table in training. They are laid across the all-ones vector, so that the
    normalization in the narrow space takes nothing away, and the gain and bias of the wide one go into the projection.
    """
    wide, config = cast("Any", encoder), cast("Any", encoder.config)
    if config.model_type not in ("bert", "electra"):
        raise InputError(f"Word embeddings are factorised in BERT and ELECTRA encoders, not in {config.model_type}.")
    width = wide.embeddings.word_embeddings.weight.shape[1]
    if not 8 <= embedding_size < width:
        raise InputError(f"The embedding size is {embedding_size}: it must be from 8 to {width - 1}.")
    if hasattr(encoder, "embeddings_project"):
        raise InputError("The encoder's word embeddings are factorised already.")
    shared = {name: getattr(config, name) for name in _SHARED_SETTINGS}
    electra = ElectraModel(ElectraConfig(**shared, embedding_size=embedding_size))
    electra.encoder.load_state_dict(wide.encoder.state_dict())
    _fill(electra, wide.embeddings, embedding_size)
    electra.config._attn_implementation = config._attn_implementation
    return electra


@torch.no_grad()
def _fill(electra: Any, wide: Any, size: int) -> None:
    words = wide.word_embeddings.weight
    positions = wide.position_embeddings.weight + wide.token_type_embeddings.weight[0]
    words, positions = (rows - rows.mean(dim=1, keepdim=True) for rows in (words, positions))
    typical = words + positions.mean(dim=0)
    leading = torch.linalg.eigh(typical.T.double() @ typical.double())[1].flip(1)[:, : size - 1].float()
    # An orthonormal basis, shape (size - 1, size), of the vectors whose elements sum to 0.
    square = torch.eye(size, dtype=torch.float64)
    square[:, 0] = 1
    across = torch.linalg.qr(square)[0][:, 1:].T.float()
    narrow, narrow_positions = words @ leading @ across, positions @ leading @ across
    scale = (narrow + narrow_positions.mean(dim=0)).std(dim=1, unbiased=False).mean()
    wide_scale = typical.std(dim=1, unbiased=False).mean()
    table, projection = electra.embeddings, electra.embeddings_project
    table.word_embeddings.weight.copy_(narrow)
    table.position_embeddings.weight.copy_(narrow_positions)
    table.token_type_embeddings.weight.zero_()
    table.LayerNorm.weight.fill_(1)
    table.LayerNorm.bias.zero_()
    gain = wide.LayerNorm.weight * scale / wide_scale
    projection.weight.copy_(gain[:, None] * (leading @ across))
    projection.bias.copy_(wide.LayerNorm.bias)
