"""What every room asks of an encoder: unit rows, token counts, prompts, and a name that lasts."""

from __future__ import annotations

import numpy as np
import pytest

from distilface_st import EdgeEncoder, InputError, build_model, save_model
from distilface_st.models.encoders import (
    embedding_dimension,
    lasting_name,
    open_encoder,
    token_counts,
    unit_embeddings,
)


def test_embeddings_have_length_one_and_counts_are_the_tokenizers(tiny_encoder, tmp_path):
    save_model(build_model(tiny_encoder, device="cpu"), tmp_path / "model")
    for encoder in (open_encoder(tmp_path / "model"), open_encoder("distilface-micro")):
        found = unit_embeddings(encoder, ["The cat sleeps.", "Profits rose."])
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        assert unit_embeddings(encoder, [], "document").shape == (0, embedding_dimension(encoder))
        assert token_counts(encoder, ["the cat", "the"]) == [2, 1]
    assert token_counts(EdgeEncoder(), ["word " * 1000]) == [1000]


def test_queries_and_documents_get_their_prompts(tiny_model):
    for kind, prompt in (("query", "the query of "), ("document", "")):
        expected = tiny_model.encode(["x"], prompt=prompt, normalize_embeddings=True)
        np.testing.assert_allclose(unit_embeddings(tiny_model, ["x"], kind), expected, atol=1e-6)
    query, document = (unit_embeddings(tiny_model, ["x"], kind) for kind in ("query", "document"))
    assert np.abs(query - document).max() > 0.01


def test_an_object_with_encode_alone_is_an_encoder():
    class Plain:
        def encode(self, texts, **_):
            return np.full((len(texts), 4), 3.0)

    np.testing.assert_allclose(unit_embeddings(Plain(), ["x", "y"], "query"), 0.5)
    assert embedding_dimension(Plain()) == 4
    assert token_counts(Plain(), ["x" * 8]) == [3]


def test_names_that_last():
    assert lasting_name("micro") == "distilface-micro"
    with pytest.raises(InputError, match="not an exported model"):
        open_encoder("bundled", runtime="onnxruntime")
