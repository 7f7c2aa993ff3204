from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distilface_st
from distilface_st import InputError
from distilface_st.datasets.corpus import TITLE_FIELDS
from distilface_st.serving import open_service
from distilface_st.serving.service import pca_2d

from .fakes import FakeEncoder, FakeIndex, fake_service, serving

CORPUS = ["Bread rises in the cold.", "We repair bicycles. The shop opens at nine.", "Shares fell on Monday."]
MORE: list[dict[str, Any]] = [{}, {"hybrid": True}, {"filter": {"even": False}}]
TEXTS = [f"passage {number}" for number in range(20)]


def test_search_finds_passages_best_first(http) -> None:
    hits = http.post("/search", json={"query": TEXTS[7], "k": 3}).json()["hits"]
    assert len(hits) == 3
    assert hits[0] == {
        "id": "7",
        "score": pytest.approx(1),
        "text": TEXTS[7],
        "metadata": {"number": 7},
        "passage": 0,
        "highlight": [0, 3],
    }
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


def test_search_gives_ten_hits_unless_told(http) -> None:
    assert len(http.post("/search", json={"query": "a", "hybrid": True}).json()["hits"]) == 10
    nothing = dict.fromkeys(("k", "filter", "hybrid"))
    assert len(http.post("/search", json={"query": "a", **nothing}).json()["hits"]) == 10


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"query": "a", "filter": {"colour": "red"}}, "no such field"),
        ({"query": "a", "filter": []}, "filter"),
        ({"query": ""}, "at least 1 character"),
        ({"query": ["a"]}, "query"),
        ({"query": "a", "k": 0}, "k"),
        ({"query": "a", "k": 101}, "at most 100"),
        ({"query": "a" * 100_001}, "100,000"),
        ({}, "query"),
    ],
)
def test_a_search_that_cannot_be_done_is_400(http, body, said) -> None:
    answer = http.post("/search", json=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "raw",
    [b'{"query": "\\ud800"}', b'{"query": "a", "filter": {"number": ["\\ud800"]}}', b'{"query": "a", "k": NaN}'],
)
def test_what_is_no_proper_json_or_unicode_is_400(http, raw) -> None:
    answer = http.post("/search", content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_a_deeply_nested_filter_is_no_500(http) -> None:
    for depth in (900, 5000):
        nested = b'{"query": "a", "filter": {"number": ' + b"[" * depth + b"]" * depth + b"}}"
        answer = http.post("/search", content=nested, headers={"Content-Type": "application/json"})
        assert answer.status_code < 500


def test_queries_share_batches_with_each_other() -> None:
    encoder = FakeEncoder(seconds=0.05)
    with serving(fake_service(encoder, FakeIndex(TEXTS))) as http, ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda i: http.post("/search", json={"query": f"q {i}"}), range(16))
        assert {answer.status_code for answer in answers} == {200}
    assert sum(map(len, encoder.calls)) == 16
    assert len(encoder.calls) < 12


def test_a_search_that_takes_too_long_is_504(impatient) -> None:
    http, _, encoder = impatient
    encoder.go.clear()
    assert http.post("/search", json={"query": "a"}).status_code == 504
    encoder.go.set()
    assert http.post("/search", json={"query": "a"}).status_code == 200


def test_queries_are_encoded_as_queries() -> None:
    encoder = FakeEncoder()
    encoder.query_kind = "query"
    with serving(fake_service(encoder, FakeIndex(TEXTS))) as http:
        http.post("/search", json={"query": "a"})
        http.post("/v1/embeddings", json={"input": "a"})
    assert encoder.kinds == ["query", None]


def test_the_map_is_a_pca_of_the_sample_and_is_kept(http, index) -> None:
    points = http.get("/map?n=15").json()["points"]
    samples = index.samples
    assert http.get("/map?n=15").json()["points"] == points
    assert index.samples == samples
    assert [point["text"] for point in points] == TEXTS[:15]
    assert set(points[0]) == {"x", "y", "id", "text", "passage", "metadata"}
    assert max(abs(point[axis]) for point in points for axis in "xy") == 1


@pytest.mark.parametrize("n", ["0", "51", "x", "-1", "1e9"])
def test_a_map_of_an_impossible_size_is_400(http, n) -> None:
    assert http.get(f"/map?n={n}").status_code == 400


def test_info_tells_of_model_and_index(http) -> None:
    info = http.get("/info").json()
    assert info["model"] == "fake"
    assert (info["dimension"], info["max_tokens"]) == (8, 64)
    assert info["index"] == {"documents": 20, "passages": 20, "dimension": 8, "model": "fake", "store": "memory"}
    assert info["fields"] == {"number": [0, 1]}


def test_without_an_index_there_is_no_search_and_info_says_so() -> None:
    with serving(fake_service()) as http:
        assert http.post("/search", json={"query": "a"}).json()["error"]["code"] == "no_index"
        assert http.get("/map").status_code == 404
        info = http.get("/info").json()
    assert info["index"] is None
    assert info["fields"] == {}


def test_a_real_index_is_served_with_its_own_model(tmp_path) -> None:
    for name in ("faiss", "bm25s", "onnxruntime"):
        pytest.importorskip(name)
    from distilface_st.search import index_corpus

    corpus = tmp_path / "corpus.jsonl"
    lines = [{"id": f"d{i}", "text": text, "even": i % 2 == 0} for i, text in enumerate(CORPUS)]
    corpus.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    index_corpus(corpus, tmp_path / "index", "micro")
    with serving(open_service(index=tmp_path / "index")) as http:
        assert http.get("/info").json()["index"]["model"] == "distilface-micro"
        asked = {"query": "Who looks after my bike?", "k": 2}
        hits = [http.post("/search", json={**asked, **more}).json()["hits"] for more in MORE]
        assert len(http.get("/map").json()["points"]) == len(CORPUS)
    assert [own[0]["id"] for own in hits] == ["d1", "d1", "d1"]
    start, end = hits[0][0]["highlight"]
    assert CORPUS[1][start:end] == "We repair bicycles."
    with pytest.raises(InputError, match="another model"):
        open_service("mini", tmp_path / "index")


def test_the_index_is_asked_by_vectors_and_words_before_the_first_client_and_not_counted(tmp_path, monkeypatch) -> None:
    for name in ("faiss", "bm25s", "onnxruntime"):
        pytest.importorskip(name)
    from distilface_st.search import SearchIndex, index_corpus

    (tmp_path / "corpus.txt").write_text("\n".join(CORPUS), encoding="utf-8")
    index_corpus(tmp_path / "corpus.txt", tmp_path / "index", "micro")
    asked: list[bool] = []
    search = SearchIndex.search

    def noted(*args: Any, hybrid: bool = False, **options: Any) -> Any:
        asked.append(hybrid)
        return search(*args, hybrid=hybrid, **options)

    monkeypatch.setattr(SearchIndex, "search", noted)
    service = open_service(index=tmp_path / "index")
    assert asked == [True]
    with serving(service) as http:
        counted = http.get("/metrics").text
    for name in ("texts_total", "tokens_total", "batch_seconds_count"):
        assert f"distilface_{name} 0.0" in counted


def test_info_names_the_fields_whose_values_belong_to_one_document_each(tmp_path) -> None:
    pytest.importorskip("faiss")
    pytest.importorskip("onnxruntime")
    from distilface_st.search import index_corpus

    shared: dict[str, Any] = {"lang": "en", "tags": ["all", "x"]}
    lines = [{"text": text, "title": f"T{i}", "own": [i, -i - 1], **shared} for i, text in enumerate(CORPUS)]
    lines[0] |= {"doi": "10.1"}
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    index_corpus(tmp_path / "corpus.jsonl", tmp_path / "index", "micro")
    with serving(open_service(index=tmp_path / "index")) as http:
        info = http.get("/info").json()
    assert info["unique"] == ["doi", "own", "title"]
    assert sorted(info["fields"]) == ["doi", "lang", "own", "tags", "title"]
    assert "unique" not in info["index"]


def test_the_page_knows_the_titles_that_the_readers_of_documents_know() -> None:
    script = (Path(distilface_st.__file__).parent / "serving" / "static" / "search.js").read_text(encoding="utf-8")
    found = re.search(r"const TITLES = (\[.*\]);", script)
    assert found is not None
    assert json.loads(found.group(1)) == [*TITLE_FIELDS, "path"]


def test_pca_2d_keeps_what_differs_most() -> None:
    rows = np.zeros((50, 6))
    rows[:, 4] = np.linspace(-3, 3, 50)
    rows[:, 1] = np.sin(np.arange(50))
    points = pca_2d(rows + 10)
    assert points.shape == (50, 2)
    np.testing.assert_allclose(np.abs(np.corrcoef(points[:, 0], rows[:, 4])[0, 1]), 1, atol=0.01)
    assert np.abs(points).max() == 1


def test_pca_2d_gives_the_same_picture_always() -> None:
    points = pca_2d(np.array([[0.0, 3.0], [0.0, 1.0], [0.0, -1.0]]))
    np.testing.assert_allclose(points, [[1, 0], [0, 0], [-1, 0]], atol=1e-3)


@pytest.mark.parametrize("rows", [np.zeros((0, 4)), np.ones((1, 4)), np.ones((5, 4)), np.array([[1.0], [2.0]])])
def test_pca_2d_takes_what_has_no_two_dimensions(rows) -> None:
    points = pca_2d(rows)
    assert points.shape == (len(rows), 2)
    assert np.isfinite(points).all()
