"""Pooling over several hidden layers, then over tokens."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor

from .hidden_states import give_hidden_states, hidden_states_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentence_transformers.base.model import BaseModel

LayerSelection = Literal["last", "second_to_last", "all", "first_last", "last_two", "last_four"]
LayerReduction = Literal["mean", "max", "concat"]

LAYER_SELECTIONS: tuple[str, ...] = get_args(LayerSelection)
LAYER_REDUCTIONS: tuple[str, ...] = get_args(LayerReduction)


def resolve_layers(layers: str | Sequence[int], num_hidden_layers: int) -> tuple[int, ...]:
    """Turn a layer selection into hidden-state indices from 0 to n, in the order given.

    Index 0 is the embedding output, 1 to n are the transformer layers, negative numbers count from the end.
    "First" is layer 1, as SimCSE corrected it, not the embedding output.

    Args:
        layers: A name (``last``, ``second_to_last``, ``all``, ``first_last``, ``last_two``, ``last_four``) or indices.
        num_hidden_layers: The encoder's number of transformer layers, n.

    Raises:
        ValueError: An unknown name, an empty list, an index out of range or one that occurs twice.

    Example:
        >>> resolve_layers("last_four", 6), resolve_layers([0, -1], 6)
        ((3, 4, 5, 6), (0, 6))
    """
    allowed = f"allowed are {-num_hidden_layers - 1} to {num_hidden_layers} (0 is the embedding output)"
    if isinstance(layers, str):
        return _resolve_name(layers, num_hidden_layers)
    if not layers:
        raise ValueError(f"layers is empty: name one of {', '.join(LAYER_SELECTIONS)}, or list indices; {allowed}.")
    indices = []
    for layer in layers:
        if not isinstance(layer, int) or isinstance(layer, bool):
            raise ValueError(f"layers holds {layer!r}, which is not a whole number; {allowed}.")
        if not -num_hidden_layers - 1 <= layer <= num_hidden_layers:
            raise ValueError(f"layer {layer} is out of range for {num_hidden_layers} hidden layers; {allowed}.")
        indices.append(layer % (num_hidden_layers + 1))
    if len(set(indices)) < len(indices):
        raise ValueError(f"layers {list(layers)} selects a layer twice; {allowed}, each at most once.")
    return tuple(indices)


def _resolve_name(name: str, n: int) -> tuple[int, ...]:
    selections = {
        "last": (n,),
        "second_to_last": (n - 1,),
        "all": tuple(range(1, n + 1)),
        "first_last": (1, n),
        "last_two": (n - 1, n),
        "last_four": tuple(range(n - 3, n + 1)),
    }
    if name not in selections:
        raise ValueError(
            f"layers is {name!r}: allowed are the names {', '.join(selections)}, or a list of indices "
            f"from {-n - 1} to {n}."
        )
    indices = selections[name]
    if indices[0] < 1 or len(set(indices)) < len(indices):
        raise ValueError(
            f"layers {name!r} needs more layers than the encoder's {n}; indices from {-n - 1} to {n} are allowed."
        )
    return indices


class MultiLayerPooling(Pooling):
    """Reduces several hidden layers to one, token by token, then pools the tokens as its base class does.

    Pooling of "Distilling Contrastive Learning Models" (Lim, Ng, Lim, 2022), section on pooling. It needs the encoder's
    hidden states and turns them on by itself when a ``SentenceTransformer`` is composed with it; in copies of the model
    and in other processes they stay on.

    Args:
        embedding_dimension: Hidden size of the encoder, d.
        num_hidden_layers: Number of the encoder's transformer layers, n.
        layers: Hidden states to use: a name or a list of indices, see :func:`resolve_layers`.
        layer_reduction: ``mean``, ``max`` or ``concat`` over the selected layers, for each token.
        pooling_mode: Token pooling, any mode (or tuple of modes) of sentence-transformers' ``Pooling``.
        include_prompt: Whether the prompt's tokens take part in token pooling.

    Raises:
        ValueError: A layer selection, reduction or pooling mode that does not exist or does not fit the encoder.

    Example:
        >>> pooling = MultiLayerPooling(768, 6, layers="last_four", layer_reduction="concat")
        >>> pooling.layer_indices, pooling.get_embedding_dimension()
        ((3, 4, 5, 6), 3072)
    """

    config_keys = [  # noqa: RUF012 (the base class declares it so)
        "embedding_dimension",
        "num_hidden_layers",
        "layers",
        "layer_reduction",
        "pooling_mode",
        "include_prompt",
    ]

    def __init__(
        self,
        embedding_dimension: int,
        num_hidden_layers: int,
        layers: LayerSelection | Sequence[int] = "last_four",
        layer_reduction: LayerReduction = "mean",
        pooling_mode: str | tuple[str, ...] | list[str] = "mean",
        include_prompt: bool = True,
    ) -> None:
        super().__init__(embedding_dimension, pooling_mode=pooling_mode, include_prompt=include_prompt)
        if layer_reduction not in LAYER_REDUCTIONS:
            raise ValueError(f"layer_reduction is {layer_reduction!r}: allowed are {', '.join(LAYER_REDUCTIONS)}.")
        self.num_hidden_layers = num_hidden_layers
        self.layers = layers if isinstance(layers, str) else list(layers)
        self.layer_reduction = layer_reduction
        self.layer_indices = resolve_layers(layers, num_hidden_layers)
        if layer_reduction == "concat":
            self.pooling_output_dimension *= len(self.layer_indices)

    def on_model_ready(self, model: BaseModel) -> None:
        """Turn on the encoder's hidden states, once its depth is known to be the one this module was made for."""
        encoder = cast("Any", model[0]).model
        config = encoder.config
        if config.num_hidden_layers != self.num_hidden_layers:
            raise ValueError(
                f"MultiLayerPooling was made for {self.num_hidden_layers} hidden layers, "
                f"but the encoder has {config.num_hidden_layers}."
            )
        give_hidden_states(encoder)

    def forward(self, features: dict[str, Tensor | Any], **kwargs: Any) -> dict[str, Tensor | Any]:
        """Pool layers, then tokens.

        Args:
            features: ``all_layer_embeddings``: n + 1 tensors of shape (batch, tokens, d), or (1, all tokens, d) with
                ``cu_seq_lens_q`` for flattened input; ``attention_mask`` of shape (batch, tokens).
            **kwargs: Unused, as in the base class.

        Returns:
            The features with ``sentence_embedding`` of shape (batch, ``get_embedding_dimension()``), in the hidden
            states' dtype, and ``token_embeddings`` reduced over layers.
        """
        hidden_states = hidden_states_of(features, self)
        if len(hidden_states) != self.num_hidden_layers + 1:
            raise ValueError(
                f"MultiLayerPooling was made for {self.num_hidden_layers} hidden layers, "
                f"but the encoder gave {len(hidden_states) - 1}."
            )
        dtype = hidden_states[0].dtype
        features["token_embeddings"] = self._reduce([hidden_states[index] for index in self.layer_indices])
        features = super().forward(features, **kwargs)
        features["sentence_embedding"] = features["sentence_embedding"].to(dtype)
        return features

    def _reduce(self, hidden_states: list[Tensor]) -> Tensor:
        if len(hidden_states) == 1:
            return hidden_states[0]
        if self.layer_reduction == "concat":
            return torch.cat(hidden_states, dim=-1)
        if self.layer_reduction == "max":
            return reduce(torch.maximum, hidden_states)
        # Half precision is summed in, and kept at, fp32; rounding waits for the sentence embedding.
        dtype = torch.promote_types(hidden_states[0].dtype, torch.float32)
        total = reduce(torch.add, hidden_states[1:], hidden_states[0].to(dtype))
        return total / len(hidden_states)
