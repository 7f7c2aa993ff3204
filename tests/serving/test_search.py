from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from distilface_st import InputError
from distilface_st.serving import open_service
from distilface_st.serving.projection import plane

from .fakes import FakeEncoder, FakeIndex, fake_service, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

CORPUS = ["Bread rises in the cold.", "We repair bicycles. The shop opens at nine.", "Shares fell on Monday."]
MORE: list[dict[str, Any]] = [{}, {"hybrid": True}, {"filter": {"even": False}}]
TEXTS = [f"passage {number}" for number in range(20)]


@pytest.fixture(scope="module")
def index() -> FakeIndex:
    return FakeIndex(TEXTS)


@pytest.fixture(scope="module")
def address(index) -> Iterator[str]:
    with serving(fake_service(index=index, max_map_points=50)) as address:
        yield address


def test_search_finds_passages_best_first(address) -> None:
    hits = httpx.post(f"{address}/search", json={"query": TEXTS[7], "k": 3}).json()["hits"]
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


def test_search_gives_ten_hits_unless_told(address) -> None:
    assert len(httpx.post(f"{address}/search", json={"query": "a", "hybrid": True}).json()["hits"]) == 10


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"query": "a", "filter": {"colour": "red"}}, "no such field"),
        ({"query": "a", "filter": []}, "filter"),
        ({"query": ""}, "empty"),
        ({"query": ["a"]}, "query"),
        ({"query": "a", "k": 0}, "k"),
        ({"query": "a", "k": 101}, "at most 100"),
        ({"query": "a" * 100_001}, "100,000"),
        ({}, "query"),
    ],
)
def test_a_search_that_cannot_be_done_is_400(address, body, said) -> None:
    answer = httpx.post(f"{address}/search", json=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "raw",
    [b'{"query": "\\ud800"}', b'{"query": "a", "filter": {"number": ["\\ud800"]}}', b'{"query": "a", "k": NaN}'],
)
def test_what_is_no_proper_json_or_unicode_is_400(address, raw) -> None:
    answer = httpx.post(f"{address}/search", content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_a_deeply_nested_filter_is_no_500(address) -> None:
    for depth in (900, 5000):
        nested = b'{"query": "a", "filter": {"number": ' + b"[" * depth + b"]" * depth + b"}}"
        answer = httpx.post(f"{address}/search", content=nested, headers={"Content-Type": "application/json"})
        assert answer.status_code < 500


def test_queries_share_batches_with_each_other() -> None:
    encoder = FakeEncoder(seconds=0.05)
    with serving(fake_service(encoder, FakeIndex(TEXTS))) as address, ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda i: httpx.post(f"{address}/search", json={"query": f"q {i}"}, timeout=20), range(16))
        assert {answer.status_code for answer in answers} == {200}
    assert sum(map(len, encoder.calls)) == 16
    assert len(encoder.calls) < 12


def test_a_search_that_takes_too_long_is_504() -> None:
    encoder = FakeEncoder()
    with serving(fake_service(encoder, FakeIndex(TEXTS), request_timeout=0.3)) as address:
        encoder.go.clear()
        assert httpx.post(f"{address}/search", json={"query": "a"}).status_code == 504
        encoder.go.set()
        assert httpx.post(f"{address}/search", json={"query": "a"}).status_code == 200


def test_queries_take_the_models_prompt_for_them() -> None:
    encoder = FakeEncoder()
    encoder.query_prompt = "query"
    with serving(fake_service(encoder, FakeIndex(TEXTS))) as address:
        httpx.post(f"{address}/search", json={"query": "a"})
        httpx.post(f"{address}/v1/embeddings", json={"input": "a"})
    assert encoder.prompts == ["query", None]


def test_the_map_is_a_plane_of_the_sample_and_is_kept(address, index) -> None:
    points = httpx.get(f"{address}/map?n=15").json()["points"]
    samples = index.samples
    assert httpx.get(f"{address}/map?n=15").json()["points"] == points
    assert index.samples == samples
    assert [point["text"] for point in points] == TEXTS[:15]
    assert set(points[0]) == {"x", "y", "id", "text", "passage", "metadata"}
    assert max(abs(point[axis]) for point in points for axis in "xy") == 1


@pytest.mark.parametrize("n", ["0", "51", "x", "-1", "1e9"])
def test_a_map_of_an_impossible_size_is_400(address, n) -> None:
    assert httpx.get(f"{address}/map?n={n}").status_code == 400


def test_info_tells_of_model_and_index(address) -> None:
    info = httpx.get(f"{address}/info").json()
    assert info["model"] == "fake"
    assert (info["dimension"], info["max_tokens"]) == (8, 64)
    assert info["index"] == {"documents": 20, "passages": 20, "dimension": 8, "model": "fake", "store": "memory"}
    assert info["fields"] == {"number": [0, 1]}


def test_without_an_index_there_is_no_search_and_info_says_so() -> None:
    with serving(fake_service()) as address:
        assert httpx.post(f"{address}/search", json={"query": "a"}).json()["error"]["code"] == "no_index"
        assert httpx.get(f"{address}/map").status_code == 404
        info = httpx.get(f"{address}/info").json()
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
    with serving(open_service(index=tmp_path / "index")) as address:
        assert httpx.get(f"{address}/info").json()["index"]["model"] == "distilface-micro"
        asked = {"query": "Who looks after my bike?", "k": 2}
        hits = [httpx.post(f"{address}/search", json={**asked, **more}, timeout=20).json()["hits"] for more in MORE]
        assert len(httpx.get(f"{address}/map").json()["points"]) == len(CORPUS)
    assert [own[0]["id"] for own in hits] == ["d1", "d1", "d1"]
    start, end = hits[0][0]["highlight"]
    assert CORPUS[1][start:end] == "We repair bicycles."
    with pytest.raises(InputError, match="another model"):
        open_service("mini", tmp_path / "index")


def test_the_plane_keeps_what_differs_most() -> None:
    rows = np.zeros((50, 6))
    rows[:, 4] = np.linspace(-3, 3, 50)
    rows[:, 1] = np.sin(np.arange(50))
    points = plane(rows + 10)
    assert points.shape == (50, 2)
    np.testing.assert_allclose(np.abs(np.corrcoef(points[:, 0], rows[:, 4])[0, 1]), 1, atol=0.01)
    assert np.abs(points).max() == 1


@pytest.mark.parametrize("rows", [np.zeros((0, 4)), np.ones((1, 4)), np.ones((5, 4)), np.array([[1.0], [2.0]])])
def test_the_plane_takes_what_has_no_two_dimensions(rows) -> None:
    points = plane(rows)
    assert points.shape == (len(rows), 2)
    assert np.isfinite(points).all()
