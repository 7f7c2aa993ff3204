"""Compose a DistilFACE model: a plain ``SentenceTransformer`` of an encoder and a pooling over its hidden states."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any, cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from sentence_transformers.util import load_file_path
from torch import nn

from ..errors import InputError
from ..modules import MultiLayerPooling
from ..pretrained import find_model
from .encoders import check_model
from .load import load_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..modules.multi_layer_pooling import LayerReduction, LayerSelection


def build_model(
    encoder: str | os.PathLike[str] | SentenceTransformer = "distilbert-base-uncased",
    layers: LayerSelection | Sequence[int] | None = "last_four",
    layer_reduction: LayerReduction = "mean",
    pooling_mode: str | tuple[str, ...] = "mean",
    normalize: bool = False,
    trim: bool = False,
    device: str | None = None,
) -> SentenceTransformer:
    """Compose an encoder with pooling over several hidden layers.

    Args:
        encoder: A Hub name or a local folder of a BERT-like encoder, or of a sentence-transformers model; a shipped
            model's name or ``bundled``; or a ``SentenceTransformer``, which stays as it is. From all but the first the
            length limit, prompts and the prompt's part in pooling are kept; modules after the pooling are not. By
            default the paper's.
        layers: Hidden states to pool, see :func:`distilface_st.modules.multi_layer_pooling.resolve_layers`. None
            keeps a sentence-transformers model as it is, all of its modules; of a bare encoder it is ``first_last``.
        layer_reduction: ``mean``, ``max`` or ``concat`` over the layers.
        pooling_mode: Token pooling: ``mean``, ``max``, ``cls``, ... or a tuple of modes.
        normalize: Append a module that scales embeddings to length 1.
        trim: Drop the encoder's layers above the highest one used. No embedding changes.
        device: Where to put the model; the best there is by default.

    Returns:
        A ``SentenceTransformer`` of encoder, ``MultiLayerPooling`` and, if asked for, ``Normalize``.

    Raises:
        InputError: A selection that does not fit the encoder; an encoder that cannot be read or cannot be trimmed.

    Example:
        ::

            model = build_model("distilbert-base-uncased", layers="last_four")
            embeddings = model.encode(["It is sunny.", "He drove to work."])  # (2, 768)
    """
    source = _open(encoder)
    transformer = cast("Transformer", source[0])
    if layers is None:
        if any(isinstance(module, Pooling) for module in source):
            own = [*source, *([Normalize()] if normalize and not isinstance(source[-1], Normalize) else [])]
            return compose(source, own, device)
        layers = "first_last"
    try:
        pooling = MultiLayerPooling(
            transformer.get_embedding_dimension(),
            transformer.config.num_hidden_layers,
            layers=layers,
            layer_reduction=layer_reduction,
            pooling_mode=pooling_mode,
            include_prompt=all(module.include_prompt for module in source if isinstance(module, Pooling)),
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    if trim:
        pooling = trim_encoder(transformer, pooling)
    return compose(source, [transformer, pooling, *([Normalize()] if normalize else [])], device)


def compose(source: SentenceTransformer, modules: list[nn.Module], device: str | None) -> SentenceTransformer:
    """A model of other modules with the prompts and settings of ``source``."""
    model = SentenceTransformer(
        modules=modules,
        device=device,
        prompts=cast("dict[str, str]", dict(source.prompts)),
        default_prompt_name=source.default_prompt_name,
        similarity_fn_name=source.similarity_fn_name,
        truncate_dim=source.truncate_dim,
    )
    model.model_card_data.base_model = source.model_card_data.base_model
    return model


def layer_stack(encoder: Any, verb: str) -> nn.ModuleList:
    """The list of an encoder's layers; ``verb`` says in the error what cannot be done where that is not one list."""
    depth = encoder.config.num_hidden_layers
    stacks = [module for module in encoder.modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    if len(stacks) != 1:
        raise InputError(f"Cannot {verb} {type(encoder).__name__}: found {len(stacks)} stacks of its layers, not one.")
    return stacks[0]


def trim_encoder(transformer: Transformer, pooling: MultiLayerPooling) -> MultiLayerPooling:
    """Drop the encoder's layers above the highest one used, in place; returned is the same pooling for what is left.

    Raises:
        InputError: The encoder's layers are not one list, or its hidden states depend on the layers above them.
    """
    depth = max(1, *pooling.layer_indices)
    encoder = transformer.model
    stack = layer_stack(encoder, "trim")
    before = _probe(encoder)
    del stack[depth:]
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


def _open(encoder: str | os.PathLike[str] | SentenceTransformer) -> SentenceTransformer:
    if isinstance(encoder, SentenceTransformer):
        check_model(encoder)
        return compose(encoder, copy.deepcopy(list(encoder)), str(encoder.device))
    name = find_model(encoder)
    if load_file_path(name, "modules.json") is not None:
        model = load_model(name, device="cpu")
    else:
        try:
            transformer = Transformer(name, model_kwargs={"use_safetensors": True})
        except (OSError, ValueError) as error:
            raise InputError(f"Cannot open {name} as a transformer encoder: {error}") from error
        model = SentenceTransformer(modules=[transformer], device="cpu")
    if not isinstance(model[0], Transformer):
        raise InputError(f"{encoder} does not begin with a transformer encoder, but with {type(model[0]).__name__}.")
    check_model(model)
    if not os.path.isdir(name):
        model.model_card_data.base_model = name
    return model


@torch.no_grad()
def _probe(encoder: Any) -> tuple[torch.Tensor, ...]:
    was_training = encoder.training
    encoder.eval()
    ids = torch.arange(1, 9, device=encoder.device)[None] % encoder.config.vocab_size
    hidden_states = encoder(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
    encoder.train(was_training)
    return tuple(hidden_states)
