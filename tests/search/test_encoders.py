"""Any encoder indexes and searches: a SentenceTransformer, a packed model by either runtime, an object."""

from __future__ import annotations

import pytest

from distilface_st import InputError, build_model, save_model
from distilface_st.models.encoders import open_encoder
from distilface_st.search import IndexSettings, SearchIndex, index_corpus

from .conftest import write_jsonl
from .fakes import WordEncoder


@pytest.fixture(scope="module")
def saved(tiny_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(build_model(tiny_encoder, device="cpu"), folder)
    return folder


def test_a_saved_sentence_transformer_is_opened_again_by_the_index(saved, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(saved.parent)
    index_corpus(corpus, tmp_path / "index", "model")
    monkeypatch.chdir(tmp_path)
    with SearchIndex.open(tmp_path / "index") as index:
        assert index.model == str(saved)
        assert index.search(["The dog barks at night."], 1)[0][0].id == "dogs"


def test_any_sentence_transformer_indexes_and_finds(odd_model, tmp_path):
    records = [
        {"id": "long", "text": "the king . " * 90},
        {"id": "blank", "text": ""},
        {"id": "cats", "text": "the cat"},
    ]
    corpus = write_jsonl(tmp_path / "corpus.jsonl", records)
    save_model(odd_model, tmp_path / "model")
    for name, model in (("object", odd_model), ("folder", tmp_path / "model")):
        index_corpus(corpus, tmp_path / name, model, IndexSettings(tokens=16), model_name=str(tmp_path / "model"))
        with SearchIndex.open(tmp_path / name) as index:  # which opens the folder again
            assert {hit.id for hit in index.search(["the cat"], 5)[0]} == {"cats", "long"}
            assert index.info()["passages"] > 10


def test_a_model_trained_on_is_another_model(saved, corpus, tmp_path):
    import torch

    encoder = open_encoder(saved)
    index_corpus(corpus, tmp_path / "index", encoder, model_name=str(saved))
    with torch.no_grad():
        next(encoder.parameters()).add_(0.01)
    with pytest.raises(InputError, match="is another model"):
        SearchIndex.open(tmp_path / "index", encoder)


def test_an_index_is_searched_with_the_runtime_that_made_it(corpus, tmp_path):
    index_corpus(corpus, tmp_path / "index", open_encoder("micro", runtime="torch"), model_name="distilface-micro")
    with SearchIndex.open(tmp_path / "index") as index:
        assert index.search(["The dog barks at night."], 1)[0][0].id == "dogs"
        assert hasattr(index.encoder, "state_dict")
        with pytest.raises(InputError, match="is another model"):
            index.use(open_encoder("micro"))
    more = write_jsonl(tmp_path / "more.jsonl", [{"id": "sun", "text": "The sun shines."}])
    assert index_corpus(more, tmp_path / "index", "micro", mode="add")["total"] == 6


def test_an_object_is_known_by_its_types_name(corpus, tmp_path):
    index_corpus(corpus, tmp_path / "index", WordEncoder())
    with SearchIndex.open(tmp_path / "index") as index:
        assert index.model == "WordEncoder"
        with pytest.raises(InputError, match="WordEncoder"):
            index.search(["The dog barks at night."])
        index.encoder = WordEncoder()
        assert index.search(["The dog barks at night."], 1)[0][0].id == "dogs"


@pytest.mark.parametrize(
    ("similarity", "normalize", "warns"), [("dot", False, True), ("dot", True, False), ("cosine", False, False)]
)
def test_a_model_that_counts_lengths_is_told_that_an_index_does_not(
    tiny_encoder, corpus, tmp_path, caplog, similarity, normalize, warns
):
    encoder = build_model(tiny_encoder, normalize=normalize, device="cpu")
    encoder.similarity_fn_name = similarity
    with caplog.at_level("WARNING", logger="distilface_st"):
        index_corpus(corpus, tmp_path / "index", encoder)
    assert ("compares embeddings by dot, an index by cosine" in caplog.text) is warns
