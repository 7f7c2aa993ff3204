"""Models that version 0.1 saved open as they did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from distilface_st import EdgeEncoder, load_model
from distilface_st.models.encoders import open_encoder

SAVED = Path(__file__).parents[1] / "fixtures" / "0.1"
KNOWN = json.loads((SAVED / "embeddings.json").read_text(encoding="utf-8"))


def check(model, name: str, tolerance: float = 1e-5) -> None:
    found = np.asarray(model.encode(KNOWN["texts"], normalize_embeddings=True))
    np.testing.assert_allclose(found, KNOWN["embeddings"][name], atol=tolerance)


@pytest.mark.parametrize("name", ["portable", "max", "exported", "packed"])
def test_a_saved_model_opens(name):
    check(load_model(SAVED / name, device="cpu"), name)


def test_a_portable_one_opens_in_stock_sentence_transformers():
    check(SentenceTransformer(str(SAVED / "portable"), device="cpu"), "portable")


@pytest.mark.parametrize(("name", "known"), [("exported", "exported"), ("packed", "packed-edge")])
def test_an_exported_one_opens_without_torch(name, known):
    assert isinstance(open_encoder(SAVED / name), EdgeEncoder)
    # int8 activations have one scale a batch, which another processor may round otherwise
    check(EdgeEncoder(SAVED / name, "onnxruntime"), known, 1e-5 if name == "exported" else 0.02)
