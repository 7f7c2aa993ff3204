"""Any encoder indexes and searches: a SentenceTransformer, an exported model, an object with ``encode``."""

from __future__ import annotations

import numpy as np
import pytest

from distilface_st import EdgeEncoder, InputError, build_model, save_model
from distilface_st.search import SearchIndex, index_corpus
from distilface_st.search.encoders import TextEncoder, open_encoder


@pytest.fixture(scope="module")
def saved(tiny_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(build_model(tiny_encoder, device="cpu"), folder)
    return folder


def test_a_saved_sentence_transformer_is_opened_again_by_the_index(saved, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(saved.parent)
    index_corpus(corpus, tmp_path / "index", open_encoder("model"))
    monkeypatch.chdir(tmp_path)
    with SearchIndex.open(tmp_path / "index") as index:
        assert index.model == str(saved)
        assert index.search(["The dog barks at night."], 1)[0][0].id == "dogs"


def test_a_model_trained_on_is_another_model(saved, corpus, tmp_path):
    import torch

    encoder = open_encoder(saved)
    index_corpus(corpus, tmp_path / "index", encoder)
    with torch.no_grad():
        next(encoder.model.parameters()).add_(0.01)
    with pytest.raises(InputError, match="is another model"):
        SearchIndex.open(tmp_path / "index", encoder.model)


def test_embeddings_have_length_one_and_counts_are_the_tokenizers(saved):
    for encoder in (open_encoder(saved), open_encoder("distilface-micro")):
        found = encoder.encode(["The cat sleeps.", "Profits rose."])
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        assert encoder.encode_documents([]).shape == (0, encoder.dimension)
        assert encoder.token_counts(["the cat", "the"]) == [2, 1]
    long = EdgeEncoder().token_counts(["word " * 1000])
    assert long == [1000]


def test_queries_and_documents_get_their_prompts():
    class Prompted:
        prompts = {"query": "query: ", "document": ""}  # noqa: RUF012

        def encode(self, texts, prompt_name=None):
            self.prompt_name = prompt_name
            return np.ones((len(texts), 4))

    encoder = TextEncoder(Prompted(), "p")
    encoder.encode(["x"])
    assert encoder.model.prompt_name == "query"
    encoder.encode_documents(["x"])
    assert encoder.model.prompt_name is None


def test_names_that_last():
    assert open_encoder("micro").name == "distilface-micro"
    with pytest.raises(InputError, match="not an exported model"):
        open_encoder("bundled", runtime="onnxruntime")
