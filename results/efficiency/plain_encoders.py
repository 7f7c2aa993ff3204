"""The paper's encoders with a mean over tokens, to measure what they cost.

    python results/efficiency/plain_encoders.py FOLDER

Writes FOLDER/bert-base-uncased and FOLDER/distilbert-base-uncased, for ``distilface benchmark``. Where an encoder
cannot be had, one of the same size with random weights takes its place: it costs the same and its scores mean nothing.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoTokenizer, BertConfig, BertModel, DistilBertConfig, DistilBertModel

from distilface_st.pretrained import bundled_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENCODERS = {
    "bert-base-uncased": (BertModel, BertConfig, 109_482_240),
    "distilbert-base-uncased": (DistilBertModel, DistilBertConfig, 66_362_880),
}
"""Class, configuration (whose defaults are the public encoder's) and parameters, by name."""

MAX_SEQ_LENGTH = 256


def mean_pooled(name: str) -> SentenceTransformer:
    """The encoder, or one with random weights, as a SentenceTransformer on the CPU."""
    try:
        encoder = Transformer(name, max_seq_length=MAX_SEQ_LENGTH, model_kwargs={"use_safetensors": True})
    except (OSError, ValueError):
        print(f"{name} cannot be had: its weights are random")
        with tempfile.TemporaryDirectory() as folder:
            random_encoder(name).save_pretrained(folder)
            AutoTokenizer.from_pretrained(bundled_encoder()).save_pretrained(folder)  # the same 30,522 word pieces
            encoder = Transformer(folder, max_seq_length=MAX_SEQ_LENGTH)
    return SentenceTransformer(modules=[encoder, Pooling(encoder.get_embedding_dimension(), "mean")], device="cpu")


def random_encoder(name: str) -> PreTrainedModel:
    """The same weights each time."""
    model_class, config, parameters = ENCODERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = model_class(config())
    assert encoder.num_parameters() == parameters
    return encoder


if __name__ == "__main__":
    for encoder_name in ENCODERS:
        mean_pooled(encoder_name).save(str(Path(sys.argv[1], encoder_name)), create_model_card=False)
