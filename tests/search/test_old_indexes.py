"""Indexes that version 0.1 made open, find what they found, and take more documents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from distilface_st import EdgeEncoder
from distilface_st.search import SearchIndex, delete_from_index, index_corpus

from .conftest import needs_milvus, write_jsonl

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOUND = json.loads((FIXTURES / "index-0.1-hits.json").read_text(encoding="utf-8"))
WAYS = {"vectors": {}, "filtered": {"filter": {"lang": "en", "year": {">=": 2000}}}, "hybrid": {"hybrid": True}}


@pytest.fixture(scope="module")
def micro():
    return EdgeEncoder("distilface-micro")


@pytest.fixture(params=["faiss-exact", "faiss-hnsw", pytest.param("milvus", marks=needs_milvus)])
def kind(request):
    return request.param


@pytest.fixture
def folder(kind, tmp_path):
    return shutil.copytree(FIXTURES / f"index-0.1-{kind}", tmp_path / "index")


def test_an_old_index_finds_what_it_found(folder, kind, micro):
    with SearchIndex.open(folder, micro) as index:
        index.verify()
        for way, expected in FOUND["hits"][kind].items():
            found = [[hit.as_dict() for hit in own] for own in index.search(FOUND["queries"], 3, **WAYS[way])]
            for own, theirs in zip(found, expected, strict=True):
                assert [hit.pop("score") for hit in own] == pytest.approx([hit["score"] for hit in theirs], abs=0.02)
                assert [{**hit, "highlight": list(hit["highlight"])} for hit in own] == [
                    {name: value for name, value in hit.items() if name != "score"} for hit in theirs
                ]


def test_an_old_index_takes_more_and_loses_what_is_deleted(folder, tmp_path, micro):
    more = write_jsonl(tmp_path / "more.jsonl", [{"id": "fish", "text": "Fish swim in the sea."}])
    assert index_corpus(more, folder, micro, model_name="micro", mode="add")["total"] == 8
    gone = write_jsonl(tmp_path / "gone.jsonl", [{"id": name, "text": ""} for name in ("cats", "dogs", "rain")])
    assert delete_from_index(gone, folder) == {"deleted": 3, "missing": 0, "total": 5}
    with SearchIndex.open(folder) as index:  # with the model that its manifest names
        assert index.search(["animals under water"], 1)[0][0].id == "fish"
        assert index.search(["a sleeping animal"], 5, hybrid=True)[0][0].id == "katzen"
        index.verify()
    assert len([*folder.glob("vectors-*"), *folder.glob("structure-*")]) <= 2
