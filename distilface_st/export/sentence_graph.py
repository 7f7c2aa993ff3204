"""A SentenceTransformer as one function of tensors, ready to be traced."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import (
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    Transformer,
    WeightedLayerPooling,
)
from torch import Tensor, nn

from ..errors import InputError
from ..inference.engines import EMBEDDING
from ..inference.tokenization import TOKENIZER
from ..models.encoders import check_model, longest_input

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_EXPORTABLE = (Pooling, WeightedLayerPooling, Dense, Normalize, LayerNorm, Dropout)


class SentenceGraph(nn.Module):
    """All modules of a model (a transformer encoder and poolings, dense layers, ...) in one forward pass.

    The model stays as it is; one with a module that has no place in a graph is an :class:`InputError`. With
    ``tokens``, the graph gives what is pooled over tokens as well.
    """

    def __init__(self, model: SentenceTransformer, tokens: bool = False) -> None:
        super().__init__()
        self.outputs = (*(("last_hidden_state",) if tokens else ()), EMBEDDING)
        check_model(model)
        encoder = model[0]
        if not isinstance(encoder, Transformer):
            raise InputError(
                f"Only transformer encoders are exported; this model begins with {type(encoder).__name__}."
            )
        strangers = [type(module).__name__ for module in list(model)[1:] if not isinstance(module, _EXPORTABLE)]
        if strangers:
            raise InputError(f"Modules of type {', '.join(strangers)} cannot be exported.")
        if not getattr(encoder.tokenizer, "is_fast", False):
            raise InputError(f"Only fast tokenizers are exported ({TOKENIZER}); this is a {type(encoder.tokenizer)}.")
        if longest_input(model) is None:
            raise InputError("This model states no longest input, which an export needs: set its max_seq_length.")
        self.parts = nn.ModuleList(copy.deepcopy(list(model))).to("cpu").float().eval()
        self.parts.requires_grad_(False)
        self.include_prompt = True
        for part in self.parts:
            if isinstance(part, Pooling) and not part.include_prompt:
                self.include_prompt = False
                part._exclude_prompt_from_mask = self._exclude_prompt
        self._prompt_length: Tensor | None = None
        self._pads_left = encoder.tokenizer.padding_side == "left"

    @property
    def encoder(self) -> Any:
        """The transformer, a ``PreTrainedModel``."""
        return cast("Any", self.parts[0]).model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, prompt_length: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Embed a batch: from ids and mask, each (batch, tokens), int64, to (batch, d), float32.

        Where not ``include_prompt``, pooling leaves out the first ``prompt_length`` tokens, a scalar. With ``tokens``,
        what is pooled, (batch, tokens, width), comes first: of several layers their reduction.
        """
        self._prompt_length = prompt_length
        features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "token_type_ids" in cast("Any", self.parts[0]).tokenizer.model_input_names:
            features["token_type_ids"] = torch.zeros_like(input_ids)
        if prompt_length is not None:
            features["prompt_length"] = 1  # any true number: _exclude_prompt takes the traced one
        for part in self.parts:
            features = part(features)
        embedding = cast("Tensor", features[EMBEDDING])
        return embedding if len(self.outputs) == 1 else (features["token_embeddings"], embedding)

    def embed(self, **batch: Tensor) -> Tensor:
        """The embeddings of a batch alone."""
        found = self(**batch)
        return found if isinstance(found, Tensor) else cast("Tensor", found[-1])

    def example(self, batch: int, tokens: int, generator: torch.Generator, padding: int = 0) -> dict[str, Tensor]:
        """Random input of this graph, ``padding`` tokens of the last row masked, on the side where the model pads."""
        size = self.encoder.config.vocab_size
        ids = torch.randint(0, size, (batch, tokens), generator=generator)
        mask = torch.ones_like(ids)
        if padding:
            mask[-1, slice(padding) if self._pads_left else slice(-padding, None)] = 0
        example = {"input_ids": ids, "attention_mask": mask}
        if not self.include_prompt:
            example["prompt_length"] = torch.tensor(min(2, tokens - padding - 1))
        return example

    def _exclude_prompt(self, attention_mask: Tensor, _: int) -> Tensor:
        """What ``Pooling`` does with the length of a prompt, for a length that is a tensor."""
        assert self._prompt_length is not None
        return attention_mask * (attention_mask.cumsum(1) > self._prompt_length)
