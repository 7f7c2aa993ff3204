"""An EdgeEncoder goes wherever a SentenceTransformer does: same arguments, same answers, stock evaluators, MTEB."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import (
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    TripletEvaluator,
)

from distilface_st import EdgeEncoder, InputError, load_model

TEXTS = ["a cat", "the king of the state", "a small red car in the city", "music", "she plays a game at night"]
NOT_FOR_A_GRAPH = {"device", "pool", "chunk_size", "kwargs"}
"""Where to run is said when an EdgeEncoder is opened; it uses all cores in one process."""


@pytest.fixture(scope="module")
def encoder(exported):
    return EdgeEncoder(exported, "onnxruntime")


@pytest.fixture(scope="module")
def model(exported):
    return load_model(exported, runtime="onnxruntime")


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_it_takes_what_a_sentence_transformer_takes_in_the_same_order(method):
    stock = list(inspect.signature(SentenceTransformer.encode).parameters)
    wanted = [name for name in stock if name not in NOT_FOR_A_GRAPH]
    ours = list(inspect.signature(EdgeEncoder.encode).parameters)
    assert ours[: len(wanted)] == wanted
    passed_on = inspect.signature(getattr(EdgeEncoder, method)).parameters
    assert method == "encode" or passed_on["options"].kind is inspect.Parameter.VAR_KEYWORD


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 2},
        {"batch_size": 1, "show_progress_bar": False, "convert_to_numpy": True},
        {"normalize_embeddings": True},
        {"truncate_dim": 8},
        {"truncate_dim": 8, "normalize_embeddings": True},
        {"prompt_name": "query"},
        {"prompt": "the music of "},
        {"precision": "int8"},
        {"precision": "ubinary", "normalize_embeddings": True},
    ],
    ids=str,
)
def test_every_option_does_what_it_does_there(encoder, model, options):
    found, expected = (np.asarray(each.encode(TEXTS, **options)) for each in (encoder, model))
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=1 if found.dtype == np.int8 else 1e-5)


def test_queries_and_documents_get_their_prompts(encoder, model):
    for name in ("encode_query", "encode_document"):
        found = getattr(encoder, name)(TEXTS, batch_size=2)
        np.testing.assert_allclose(found, getattr(model, name)(TEXTS), atol=1e-5)
        np.testing.assert_allclose(getattr(encoder, name)(TEXTS[1]), found[1], atol=1e-5)
    assert np.abs(encoder.encode_query(TEXTS) - encoder.encode_document(TEXTS)).max() > 0.01


def test_torch_tensors_where_they_are_asked_for(encoder):
    expected = encoder.encode(TEXTS)
    as_tensor = encoder.encode(TEXTS, convert_to_tensor=True)
    as_list = encoder.encode(TEXTS, convert_to_numpy=False)
    assert isinstance(as_tensor, torch.Tensor)
    assert isinstance(as_list, list)
    np.testing.assert_array_equal(as_tensor.numpy(), expected)
    np.testing.assert_array_equal(torch.stack(as_list).numpy(), expected)
    np.testing.assert_array_equal(encoder.encode(TEXTS[0], convert_to_tensor=True).shape, (32,))


def test_batch_size_bounds_what_runs_at_once(exported, monkeypatch):
    encoder = EdgeEncoder(exported, "onnxruntime")
    rows: list[int] = []
    run = encoder._engine.run
    monkeypatch.setattr(encoder._engine, "run", lambda feeds: rows.append(len(feeds["input_ids"])) or run(feeds))
    encoder.encode(TEXTS, batch_size=2)
    assert max(rows) == 2
    assert sum(rows) == len(TEXTS)


def test_progress_shows_where_it_is_asked_for_and_only_there(encoder, capsys):
    encoder.encode(TEXTS)
    assert capsys.readouterr().err == ""
    encoder.encode(TEXTS, show_progress_bar=True)
    assert "5/5" in capsys.readouterr().err


def test_what_a_graph_cannot_do_is_refused_and_not_ignored(encoder):
    with pytest.raises(InputError, match="gives sentence_embedding alone"):
        encoder.encode(TEXTS, output_value="token_embeddings")
    with pytest.raises(InputError, match="batch_size is 0"):
        encoder.encode(TEXTS, batch_size=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'chunk_size'"):
        encoder.encode(TEXTS, chunk_size=4)


@pytest.mark.parametrize("function", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities_are_sentence_transformers_own(encoder, model, function, monkeypatch):
    monkeypatch.setattr(encoder, "similarity_fn_name", function)
    monkeypatch.setattr(model, "similarity_fn_name", function)
    a, b = encoder.encode(TEXTS), encoder.encode(TEXTS[::-1])
    np.testing.assert_allclose(encoder.similarity(a, b), model.similarity(a, b).numpy(), rtol=1e-4, atol=1e-3)
    pairs = encoder.similarity_pairwise(a, b)
    np.testing.assert_allclose(pairs, model.similarity_pairwise(a, b).numpy(), rtol=1e-4, atol=1e-3)
    assert isinstance(encoder.similarity(torch.from_numpy(a), b), torch.Tensor)


def test_a_similarity_that_does_not_exist_is_refused(exported):
    encoder = EdgeEncoder(exported, "onnxruntime")
    encoder.similarity_fn_name = "taste"
    with pytest.raises(InputError, match="no similarity 'taste': choose from cosine"):
        encoder.similarity(np.ones((1, 2)), np.ones((1, 2)))


def evaluators():
    queries = {str(i): text for i, text in enumerate(TEXTS)}
    corpus = {f"d{i}": f"{text} and the world" for i, text in enumerate(TEXTS)}
    relevant = {str(i): {f"d{i}"} for i in range(len(TEXTS))}
    return [
        EmbeddingSimilarityEvaluator(TEXTS, TEXTS[::-1], [0.1, 0.4, 1.0, 0.3, 0.2], batch_size=2),
        InformationRetrievalEvaluator(queries, corpus, relevant, batch_size=2, truncate_dim=16),
        TripletEvaluator(TEXTS[:3], TEXTS[1:4], TEXTS[2:5], batch_size=2),
    ]


@pytest.mark.parametrize("number", range(3))
def test_stock_evaluators_take_it(encoder, model, number, tmp_path):
    found = evaluators()[number](encoder, output_path=str(tmp_path))
    expected = evaluators()[number](model)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-4), name


@pytest.mark.slow
def test_mteb_takes_it(encoder, model, tmp_path, monkeypatch):
    mteb = pytest.importorskip("mteb")
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mteb"))
    columns = {"sentence1": TEXTS * 4, "sentence2": (TEXTS[::-1] + TEXTS[1:] + TEXTS[:1]) * 2, "score": [*range(20)]}
    monkeypatch.setattr(
        "mteb.abstasks.abstask.load_dataset", lambda **_: DatasetDict({"test": Dataset.from_dict(columns)})
    )
    tasks = mteb.get_tasks(tasks=["STS12"], languages=["eng"])
    scores = []
    for each in (encoder, model):
        result = mteb.evaluate(each, tasks, cache=None)
        scores.append(result.task_results[0].scores["test"][0]["cosine_spearman"])
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
