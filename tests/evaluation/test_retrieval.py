from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilface_st.errors import InputError
from distilface_st.evaluation import retrieval
from distilface_st.evaluation.retrieval import RetrievalEvaluator, bm25_ranks, ranks_of_own
from distilface_st.models.build import build_model


class Dictionary:
    """An encoder that looks texts up, and counts how often and on what it was called."""

    def __init__(self, vectors):
        self.vectors = vectors
        self.calls = []

    def encode(self, texts, **_):
        self.calls.append(list(texts))
        return np.array([self.vectors[text] for text in texts], dtype=np.float32)


def brute_force_rank(query, documents, own):
    similarities = [float(np.dot(query, document)) for document in documents]
    others = [s for i, s in enumerate(similarities) if i != own]
    return 1 + sum(s > similarities[own] - 1e-6 for s in others)


def unit(rng, *shape):
    vectors = rng.normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), queries=st.integers(1, 30), extra=st.integers(0, 10))
def test_ranks_agree_with_counting_by_hand(seed, queries, extra):
    rng = np.random.default_rng(seed)
    query_vectors, documents = unit(rng, queries, 5), unit(rng, queries + extra, 5)
    own = rng.permutation(queries + extra)[:queries]
    expected = [brute_force_rank(q, documents, o) for q, o in zip(query_vectors, own, strict=True)]
    assert ranks_of_own(query_vectors, documents, own).tolist() == expected


def test_ranks_do_not_depend_on_how_many_queries_are_taken_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    queries, documents = unit(rng, 50, 8), unit(rng, 50, 8)
    whole = ranks_of_own(queries, documents)
    monkeypatch.setattr(retrieval, "_QUERIES_AT_ONCE", 7)
    assert ranks_of_own(queries, documents).tolist() == whole.tolist()


def test_a_model_that_cannot_tell_texts_apart_finds_nothing():
    same = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (20, 1))
    assert ranks_of_own(same, same).tolist() == [20] * 20


def test_metrics_of_known_ranks():
    axis = np.eye(12)
    # Query i has similarity 1, 11/12, 10/12, ... with the documents from its best to its worst.
    documents = {f"d{i}": axis[i] for i in range(12)}
    order = [[0, *range(1, 12)], [0, 1, *range(2, 12)], [*[i for i in range(12) if i != 2], 2]]
    queries = {}
    for i, best_first in enumerate(order):
        vector = np.zeros(12)
        vector[best_first] = np.linspace(1, 0.1, 12)
        queries[f"q{i}"] = vector
    fillers = {f"q{i}": axis[i] for i in range(3, 12)}
    model = Dictionary(documents | queries | fillers)
    evaluator = RetrievalEvaluator([f"q{i}" for i in range(12)], list(documents))
    score = evaluator.score(model)
    assert score["mrr@10"] == pytest.approx((1 + 1 / 2 + 0 + 9) / 12)
    assert score["recall@1"] == pytest.approx(10 / 12)
    assert score["recall@10"] == pytest.approx(11 / 12)


def test_queries_and_documents_are_encoded_once_each_and_equal_documents_are_one():
    model = Dictionary({"a": [1, 0], "b": [0, 1], "x": [1, 0.1], "y": [0.1, 1]})
    evaluator = RetrievalEvaluator(["a", "b", "a"], ["x", "y", "x"], name="")
    assert evaluator.score(model) == {"mrr@10": 1.0, "recall@1": 1.0, "recall@10": 1.0}
    assert model.calls == [["a", "b"], ["x", "y"]]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_embeddings_that_are_not_numbers_are_an_error_and_no_score(broken):
    model = Dictionary({"a": [1, 0], "x": [broken, 0]})
    with pytest.raises(InputError, match="not finite"):
        RetrievalEvaluator(["a"], ["x"]).score(model)


@pytest.mark.parametrize(("queries", "documents"), [([], []), (["a"], ["x", "y"])])
def test_queries_without_their_documents_are_refused(queries, documents):
    with pytest.raises(InputError, match=f"{len(queries)} queries and {len(documents)} documents"):
        RetrievalEvaluator(queries, documents)


def test_a_sentence_transformer_is_scored_with_csv_and_model_card(tiny_encoder, tmp_path):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_encoder), device="cpu")
    texts = ["the old dog", "a new car", "school and music"]
    evaluator = RetrievalEvaluator(texts, texts, name="self")
    metrics = evaluator(model, output_path=str(tmp_path), epoch=1, steps=5)
    assert metrics == {"self_mrr@10": 1.0, "self_recall@1": 1.0, "self_recall@10": 1.0}
    assert evaluator.primary_metric == "self_mrr@10"
    with open(tmp_path / evaluator.csv_file, newline="") as file:
        assert next(csv.DictReader(file))["self_recall@1"] == "1.0"
    assert evaluator in model.model_card_data.eval_results_dict


def test_queries_and_documents_are_embedded_with_their_prompts(tiny_encoder):
    model = build_model(tiny_encoder, device="cpu")
    queries, documents = ["a cat", "the war", "music"], ["a small cat", "the war of the states", "she plays music"]
    model.prompts = {"query": "the query of ", "document": "", "passage": "the house of "}
    sides = ((queries, "the query of "), (documents, "the house of "))
    expected = ranks_of_own(*(model.encode(texts, prompt=prompt, normalize_embeddings=True) for texts, prompt in sides))
    seen = []
    encode = model.encode
    model.encode = lambda inputs, **options: seen.append(options["prompt_name"]) or encode(inputs, **options)
    score = RetrievalEvaluator(queries, documents).score(model)
    assert score == retrieval.scores_of_ranks(expected)
    assert seen == ["query", "passage"]


def test_bm25_ranks_by_shared_words_and_ties_count_against_the_query():
    documents = ["the cat sleeps", "a dog barks", "a dog barks", "rain"]
    ranks = bm25_ranks(["cat unheard", "dog", "dog", "the of"], documents)
    assert ranks.tolist() == [1, 2, 2, 4]
