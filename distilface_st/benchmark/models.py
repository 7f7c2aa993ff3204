"""Opening the models of a benchmark; encoders that cannot be had are built with random weights, which cost the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from ..errors import InputError
from ..models.load import load_model
from ..modules import OnnxEncoder
from ..pretrained import bundled_encoder, resolve_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PretrainedConfig, PreTrainedModel

MAX_SEQ_LENGTH = 256
"""Longest input of encoders that say nothing of it themselves."""


def open_model(name: str, folder: Path) -> tuple[SentenceTransformer, Path, bool]:
    """Open a model in torch, on the CPU.

    Args:
        name: A folder; a shipped model's name; ``bundled``; one of :func:`plain_encoders`, which gets a mean over
            tokens; or a Hub name.
        folder: Where to save what has no folder yet.

    Returns:
        The model, its folder, and whether its weights are random because the encoder could not be had.

    Raises:
        InputError: It cannot be opened.
    """
    home = resolve_name(name)
    if os.path.isdir(home):
        return load_model(home, device="cpu"), Path(home), False
    encoders = plain_encoders()
    is_random = False
    if name in encoders:
        model, is_random = _mean_pooled(name, encoders[name], folder.with_name("encoder"))
    else:
        model = load_model(name, device="cpu")
    if isinstance(model[0], OnnxEncoder):
        raise InputError(f"{name} is an exported model on the Hub: download it and give its folder.")
    model.save(str(folder), create_model_card=False)
    return model, folder, is_random


def plain_encoders() -> dict[str, Callable[[], PreTrainedModel]]:
    """The paper's encoders by name, each a function that builds it with random weights in its public configuration."""
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    def build(kind: Callable[[Any], PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return kind(config)

    return {
        "bert-base-uncased": lambda: build(BertModel, BertConfig()),
        "distilbert-base-uncased": lambda: build(DistilBertModel, DistilBertConfig()),
    }


def _mean_pooled(name: str, build: Callable[[], PreTrainedModel], folder: Path) -> tuple[SentenceTransformer, bool]:
    """The encoder with a mean over tokens, and whether its weights are random."""
    is_random = False
    try:
        encoder = Transformer(name, max_seq_length=MAX_SEQ_LENGTH, model_kwargs={"use_safetensors": True})
    except (OSError, ValueError):
        is_random = True
        encoder = _random_encoder(build, folder)
    pooling = Pooling(encoder.get_embedding_dimension(), "mean")
    return SentenceTransformer(modules=[encoder, pooling], device="cpu"), is_random


def _random_encoder(build: Callable[[], PreTrainedModel], folder: Path) -> Transformer:
    """Random weights, and the tokenizer of the bundled encoder, which has the same 30,522 word pieces."""
    from transformers import AutoTokenizer

    build().save_pretrained(folder)
    AutoTokenizer.from_pretrained(bundled_encoder()).save_pretrained(folder)
    encoder: Transformer = Transformer(str(folder), max_seq_length=MAX_SEQ_LENGTH)
    return encoder
