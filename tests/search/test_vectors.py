"""Exact search against numpy; structures against exact; vectors dropped when many are gone."""

from __future__ import annotations

import multiprocessing
import os
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilface_st import InputError
from distilface_st.search import parse_filter
from distilface_st.search.hits import Passage
from distilface_st.search.stores import faiss as faiss_module
from distilface_st.search.stores import vectors as vectors_module
from distilface_st.search.stores.faiss import FaissStore
from distilface_st.search.stores.vectors import nearest


def unit(rng, rows, width=16):
    found = rng.normal(size=(rows, width)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@given(st.integers(0, 2**31), st.integers(1, 70), st.integers(1, 6), st.integers(1, 12), st.booleans())
@settings(max_examples=60, deadline=None)
def test_nearest_is_what_sorting_gives(seed, rows, queries, k, some):
    rng = np.random.default_rng(seed)
    stored, asked = unit(rng, rows), unit(rng, queries)
    chosen = np.sort(rng.choice(rows, rng.integers(1, rows + 1), replace=False)) if some else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors_module, "BLOCK", 16)
        found, scores = nearest(stored, asked, k, chosen)
    numbers = np.arange(rows) if chosen is None else chosen
    similarities = asked @ stored[numbers].T
    expected = -np.sort(-similarities, axis=1)[:, :k]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(asked @ stored.T, found, 1), scores, atol=1e-5)
    assert set(found.ravel()) <= set(numbers)


def store_of(folder, kind, vectors):
    folder.mkdir()
    store = FaissStore(folder, vectors.shape[1], FaissStore.check({"index": kind}), create=True)
    passages = [Passage(f"d{i}", 0, f"text {i}", {"even": i % 2 == 0}) for i in range(len(vectors))]
    store.add(passages, vectors, [passage.document for passage in passages], "")
    return store


@pytest.mark.parametrize(
    ("kind", "least"),
    [("hnsw", 0.95), ("int8", 0.99), ("binary", 0.75), pytest.param("ivf-pq", 0.5, marks=pytest.mark.slow)],
)
def test_structures_find_nearly_what_exact_finds(tmp_path, kind, least):
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng, 3000), unit(rng, 50)
    store = store_of(tmp_path / "s", kind, vectors)
    exact = [{key for key, _ in own} for own in store.search(queries, 10)]
    store.finish()
    found = store.search(queries, 10)
    recall = np.mean([len(own & {key for key, _ in mine}) / 10 for own, mine in zip(exact, found, strict=True)])
    assert recall >= least
    for query, own in zip(queries, found, strict=True):
        for key, score in own:
            assert score == pytest.approx(float(vectors[key] @ query), abs=1e-5)


@pytest.mark.parametrize("kind", ["hnsw", "binary"])
def test_rows_that_the_structure_does_not_know_are_found(tmp_path, kind):
    rng = np.random.default_rng(1)
    vectors, late = unit(rng, 500), unit(rng, 1)
    store = store_of(tmp_path / "s", kind, vectors)
    store.finish()
    store.add([Passage("late", 0, "late", {})], late, ["late"], "")
    key, score = store.search(late, 1)[0][0]
    assert store.fetch([key])[key].document == "late"
    assert score == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["hnsw", "int8", "binary"])
def test_filtered_structures_find_only_what_may_be_found(tmp_path, kind):
    rng = np.random.default_rng(2)
    store = store_of(tmp_path / "s", kind, unit(rng, 2000))
    store.finish()
    for own in store.search(unit(rng, 5), 10, parse_filter({"even": True})):
        assert len(own) == 10
        assert all(key % 2 == 0 for key, _ in own)


def test_bits_find_what_a_filter_leaves_behind_nearer_rows(tmp_path):
    rng = np.random.default_rng(4)
    vectors = unit(rng, 1000)
    query = vectors[:1]
    vectors[::2] = query + 0.01 * vectors[::2]  # what the filter takes out is all nearer
    store = store_of(tmp_path / "s", "binary", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    store.finish()
    (odd,) = store.search(query, 5, parse_filter({"even": False}))
    assert len(odd) == 5
    assert all(key % 2 for key, _ in odd)


@pytest.mark.parametrize("width", [16, 18, 5])
def test_bits_are_padded_to_whole_bytes_and_read_again(tmp_path, width):
    vectors = unit(np.random.default_rng(5), 200, width)
    store = store_of(tmp_path / "s", "binary", vectors)
    store.finish()
    expected = store.search(vectors, 3)
    store.close()
    (structure,) = (tmp_path / "s").glob("structure-*")
    assert structure.stat().st_size == pytest.approx(200 * -(-width // 8), abs=64)
    again = FaissStore(tmp_path / "s", width, {"index": "binary"})
    again.verify()
    assert again.search(vectors, 3) == expected
    assert [own[0].key for own in expected] == list(range(200))
    again.close()


def test_a_structure_of_another_kind_or_width_is_refused(tmp_path):
    vectors = unit(np.random.default_rng(6), 100)
    store = store_of(tmp_path / "s", "binary", vectors)
    store.finish()
    store.close()
    for width, kind, message in ((16, "hnsw", "is damaged"), (8, "binary", "not this index's")):
        other = FaissStore(tmp_path / "s", width, {"index": kind})
        with pytest.raises(InputError, match=message):
            other.search(vectors[:1, :width], 1)
        other.close()


def test_candidates_of_many_queries_are_compared_part_by_part(tmp_path, monkeypatch):
    vectors = unit(np.random.default_rng(7), 300)
    store = store_of(tmp_path / "s", "binary", vectors)
    store.finish()
    expected = store.search(vectors, 4)
    monkeypatch.setattr(faiss_module, "BLOCK", 300)
    assert store.search(vectors, 4) == expected


def test_much_that_is_gone_is_dropped_and_the_rest_is_found_as_before(tmp_path):
    rng = np.random.default_rng(3)
    vectors = unit(rng, 400)
    store = store_of(tmp_path / "s", "exact", vectors)
    store.delete([f"d{i}" for i in range(0, 400, 2)], "")
    before = [[(store.fetch([key])[key].document, score) for key, score in own] for own in store.search(vectors[:4], 5)]
    store.finish()
    assert [path.name for path in (tmp_path / "s").glob("vectors-*")] == ["vectors-1.f32"]
    assert (tmp_path / "s" / "vectors-1.f32").stat().st_size == 200 * 16 * 4
    after = [[(store.fetch([key])[key].document, score) for key, score in own] for own in store.search(vectors[:4], 5)]
    assert [[name for name, _ in own] for own in after] == [[name for name, _ in own] for own in before]
    store.verify()


def test_ivf_pq_over_too_little_compares_all(tmp_path):
    vectors = unit(np.random.default_rng(0), 100)
    store = store_of(tmp_path / "s", "ivf-pq", vectors)
    store.finish()
    assert [own[0].key for own in store.search(vectors, 1)] == list(range(100))
    assert not list((tmp_path / "s").glob("structure-*"))


def test_a_width_that_ivf_pq_does_not_take_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="dimensions that four divides, not for 18: use exact, hnsw, int8 or binary"):
        FaissStore(tmp_path, 18, {"index": "ivf-pq"}, create=True)
    assert not list(tmp_path.iterdir())
    for kind in ("exact", "hnsw", "int8", "binary"):
        (tmp_path / kind).mkdir()
        FaissStore(tmp_path / kind, 18, {"index": kind}, create=True).close()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="nothing is forked here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["exact", "hnsw", "binary"])
def test_a_forked_process_searches_as_its_parent_did(tmp_path, kind):
    rng = np.random.default_rng(0)
    store, queries = store_of(tmp_path / "s", kind, unit(rng, 200)), unit(rng, 5)
    store.finish()
    expected = store.search(queries, 3)
    fork = multiprocessing.get_context("fork")
    reader, writer = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: writer.send(store.search(queries, 3)))
    child.start()
    try:
        assert reader.poll(20), "the search hangs"
        assert reader.recv() == expected
    finally:
        child.kill()
    assert store.search(queries, 3) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode here")
@pytest.mark.parametrize("kind", ["hnsw", "binary"])
def test_a_structure_is_read_and_written_where_fopen_would_not_take_the_name(tmp_path, kind):
    vectors = unit(np.random.default_rng(0), 100)
    store = store_of(tmp_path / os.fsdecode(b"caf\xe9"), kind, vectors)
    store.finish()
    assert [own[0].key for own in store.search(vectors[:5], 1)] == [0, 1, 2, 3, 4]
    assert store.state()["structure"]
