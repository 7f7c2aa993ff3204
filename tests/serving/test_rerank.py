"""Reranking by embeddings, in the shape of Cohere's and Jina's APIs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from distilface_st import EdgeEncoder, shipped_model
from distilface_st.serving import ServerSettings
from distilface_st.serving.encoder import ServedEncoder
from distilface_st.serving.service import Service

from .fakes import FakeEncoder, fake_service, serving
from .test_limits import logged, sample

QUERY = "Who mends my bike?"
DOCUMENTS = ["Bread rises in the cold.", "We repair bicycles.", "Shares fell on Monday.", "We repair bicycles."]


def test_documents_are_ranked_by_the_models_similarity_and_equal_ones_by_index(micro) -> None:
    answer = micro.post("/v1/rerank", json={"model": "distilface-micro", "query": QUERY, "documents": DOCUMENTS}).json()
    encoder = EdgeEncoder(shipped_model("micro"), threads=1)
    expected = encoder.similarity(encoder.encode_query([QUERY]), encoder.encode_document(DOCUMENTS))[0]
    results = answer["results"]
    assert set(answer) == {"model", "results", "usage"}
    assert answer["model"] == "distilface-micro"
    assert [result["index"] for result in results[:2]] == [1, 3]
    assert sorted(result["index"] for result in results) == [0, 1, 2, 3]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    np.testing.assert_allclose(scores, expected[[result["index"] for result in results]], atol=1e-5)
    assert all(set(result) == {"index", "relevance_score"} for result in results)
    embedded = micro.post("/v1/embeddings", json={"input": [QUERY, *DOCUMENTS]}).json()
    assert answer["usage"] == embedded["usage"]


def test_ties_are_in_the_order_of_the_request(http) -> None:
    results = http.post("/v1/rerank", json={"query": "a", "documents": ["b"] * 40}).json()["results"]
    assert [result["index"] for result in results] == list(range(40))


def test_top_n_and_return_documents(http) -> None:
    documents = ["one", {"text": "two <b>", "id": 7}, "three"]
    asked = {"query": "two <b>", "documents": documents, "return_documents": True}
    results = http.post("/v1/rerank", json={**asked, "top_n": 1}).json()["results"]
    assert results == [{"index": 1, "relevance_score": pytest.approx(1), "document": {"text": "two <b>"}}]
    assert len(http.post("/v1/rerank", json={**asked, "top_n": 50}).json()["results"]) == 3


def test_null_means_the_default(http) -> None:
    asked = {"query": "a", "documents": ["b", "c"]}
    nothing = dict.fromkeys(("model", "top_n", "return_documents", "max_tokens_per_doc"))
    assert http.post("/v1/rerank", json={**asked, **nothing}).json() == http.post("/v1/rerank", json=asked).json()


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"documents": []}, "documents", "empty"),
        ({"documents": ["a", ""]}, "documents", "a document is empty"),
        ({"documents": [{"text": ""}]}, "documents", "a document is empty"),
        ({"documents": [{"title": "a"}]}, "documents", "a list of strings, or of objects"),
        ({"documents": ["a", 1]}, "documents", "a list of strings, or of objects"),
        ({"documents": [None]}, "documents", "a list of strings, or of objects"),
        ({"documents": "a"}, "documents", "a list of strings, or of objects"),
        ({"documents": {"text": "a"}}, "documents", "a list of strings, or of objects"),
        ({"documents": None}, "documents", "a list of strings, or of objects"),
        ({"documents": ["a"] * 2049}, "documents", "2048"),
        ({"documents": ["a" * 100_001]}, "documents", "100,000"),
        ({"query": ""}, "query", "at least 1 character"),
        ({"query": " \t\n"}, "query", "blank"),
        ({"query": ["a"]}, "query", "string"),
        ({"query": None}, "query", "string"),
        ({"query": "a" * 100_001}, "query", "100,000"),
        ({"top_n": 0}, "top_n", "greater than or equal to 1"),
        ({"top_n": -1}, "top_n", "greater than or equal to 1"),
        ({"top_n": "1"}, "top_n", "integer"),
        ({"return_documents": "yes"}, "return_documents", "boolean"),
    ],
)
def test_a_wrong_request_is_400_in_openais_shape(http, body, param, said) -> None:
    answer = http.post("/v1/rerank", json={"query": "a", "documents": ["b"], **body})
    error = answer.json()["error"]
    assert answer.status_code == 400, answer.text
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert said in error["message"]


def test_an_unknown_model_is_404(http) -> None:
    answer = http.post("/v1/rerank", json={"model": "rerank-v3.5", "query": "a", "documents": ["b"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_it_is_described_as_it_answers(http) -> None:
    description = http.get("/openapi.json").json()
    asked = description["components"]["schemas"]["RerankRequest"]
    assert set(asked["required"]) == {"query", "documents"}
    kinds = asked["properties"]["documents"]["items"]["anyOf"]
    assert kinds == [{"type": "string", "minLength": 1}, {"$ref": "#/components/schemas/RerankDocument"}]
    assert "POST /v1/rerank" in http.get("/docs").text


def test_query_and_documents_are_embedded_as_such() -> None:
    encoder = FakeEncoder()
    encoder.query_kind, encoder.document_kind = "query", "document"
    with serving(fake_service(encoder)) as http:
        http.post("/v1/rerank", json={"query": "a", "documents": ["b", "c"]})
    assert list(zip(encoder.kinds, encoder.calls, strict=True)) == [("query", ["a"]), ("document", ["b", "c"])]


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_the_similarity_is_the_models_own_of_embeddings_as_it_gives_them(tiny_model, monkeypatch, name) -> None:
    monkeypatch.setattr(tiny_model, "similarity_fn_name", name)
    texts = ["the cat and the dog", "a", "she walked to the old city and read a big book"]
    expected = tiny_model.similarity(tiny_model.encode_query(["the city"]), tiny_model.encode_document(texts))[0]
    with serving(Service(ServedEncoder(tiny_model, "tiny"), None, ServerSettings())) as http:
        asked = {"query": "the city", "documents": texts}
        results = http.post("/v1/rerank", json=asked).json()["results"]
        lengths = np.linalg.norm(http.post("/v1/embeddings", json={"input": texts}).json()["data"][0]["embedding"])
    given = {result["index"]: result["relevance_score"] for result in results}
    np.testing.assert_allclose([given[index] for index in range(3)], expected, rtol=1e-4, atol=1e-4)
    assert [result["index"] for result in results] == np.argsort(-np.asarray(expected), kind="stable").tolist()
    assert lengths == pytest.approx(1, abs=1e-5)


def test_it_passes_the_gate_that_all_work_passes() -> None:
    encoder = FakeEncoder()
    with serving(fake_service(encoder, max_requests=1, log_text=True)) as http, ThreadPoolExecutor(1) as pool:
        asked = {"query": "a secret", "documents": ["b"]}
        encoder.go.clear()
        first = pool.submit(http.post, "/v1/rerank", json=asked)
        assert encoder.started.wait(10)
        assert http.post("/v1/rerank", json=asked).status_code == 429
        encoder.go.set()
        assert first.result(20).status_code == 200
        with logged() as log:
            http.post("/v1/rerank", json=asked)
        assert "a secret" in log.getvalue()
        assert sample(http, "distilface_requests_total", path="/v1/rerank", status="200") == 2
        assert sample(http, "distilface_texts_total") == 4
