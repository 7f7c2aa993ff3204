"""Indexes over every kind of store."""

from __future__ import annotations

import importlib.util
import json
import socket
from functools import partial

import pytest

from distilface_st.search import IndexSettings, index_corpus

from .fakes import WordEncoder

HAS_MILVUS = importlib.util.find_spec("pymilvus") and importlib.util.find_spec("milvus_lite")
needs_milvus = pytest.mark.skipif(not HAS_MILVUS, reason="pymilvus and milvus-lite are not installed (extra milvus)")
STORES = [
    "faiss-exact",
    "faiss-hnsw",
    pytest.param("faiss-int8", marks=pytest.mark.slow),
    pytest.param("faiss-binary", marks=pytest.mark.slow),
    pytest.param("milvus-exact", marks=needs_milvus),
    pytest.param("milvus-hnsw", marks=[needs_milvus, pytest.mark.slow]),
    pytest.param("milvus-remote", marks=[needs_milvus, pytest.mark.slow]),
]


@pytest.fixture(scope="session")
def encoder():
    return WordEncoder()


@pytest.fixture(scope="module")  # it ends connections that live longer than a module
def milvus_server(tmp_path_factory):
    """Milvus Lite's own gRPC server on a loopback port: the remote path, with no server to install."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server, database, port = start_server_in_thread(str(tmp_path_factory.mktemp("milvus") / "s.db"), port=port)
    yield f"http://127.0.0.1:{port}"
    server.stop(0)
    database.close()


@pytest.fixture(scope="module", params=STORES)
def settings(request):
    store, _, kind = request.param.partition("-")
    if kind == "remote":
        return IndexSettings(store, {"uri": request.getfixturevalue("milvus_server")}, tokens=16, overlap=4)
    return IndexSettings(store, {"index": kind}, tokens=16, overlap=4)


index_words = partial(index_corpus, model_name="words")
"""``index_corpus`` with a name for the fake encoder."""

DOCUMENTS = [
    {"id": "cats", "text": "The cat sleeps on the sofa. A kitten plays.", "lang": "en", "year": 1999, "tags": ["pet"]},
    {"id": "dogs", "text": "The dog barks at night.", "lang": "en", "year": 2005, "tags": ["pet", "loud"]},
    {"id": "banks", "text": "Banks report profits. Shares rose on Monday.", "lang": "en", "year": 2010, "tags": []},
    {"id": "katzen", "text": "Die Katze schläft auf dem Sofa.", "lang": "de", "year": 2020, "score": 1.5},
    {"id": "blank", "text": "  ", "lang": "en"},
    {"id": "rain", "text": "Rain falls in the north.", "lang": "en", "open": True, "year": None},
]


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", DOCUMENTS)
