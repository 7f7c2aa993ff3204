"""Indexing on a real local Ray cluster: equal to indexing without it, also when an actor is killed on the way."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time

import numpy as np
import pytest

from distilface_st.search import IndexSettings, RaySettings, SearchIndex, index_corpus

from ..helpers import ray_workers
from .conftest import write_jsonl

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed (extra ray)"),
]


def contents(index):
    keys = [key for key, _ in index.store.texts()]
    passages = index.store.fetch(keys)
    return [passages[key] for key in keys], np.array(index.store._vectors(index.store.state()))


def test_a_killed_worker_loses_and_doubles_nothing(tmp_path, ray_cluster):
    texts = [f"Number {i} of a long list of things, said in one sentence. And {i * 7} more." for i in range(6000)]
    corpus = write_jsonl(tmp_path / "c.jsonl", [{"id": i, "text": text} for i, text in enumerate([*texts, ""])])
    settings = IndexSettings(tokens=32, overlap=0)
    killed = []

    def kill_one():
        while not killed:
            if processes := ray_workers("mapworker", "embedpassages"):
                time.sleep(1)
                os.kill(processes[0], signal.SIGKILL)
                killed.append(processes[0])
            time.sleep(0.1)

    threading.Thread(target=kill_one, daemon=True).start()
    found = index_corpus(corpus, tmp_path / "ray", "micro", settings, ray=RaySettings(workers=2, batch_size=64))
    assert killed
    assert found == {"documents": 6001, "blank": 1, "total": 6000}
    index_corpus(corpus, tmp_path / "plain", "micro", settings)
    with SearchIndex.open(tmp_path / "ray") as ray_index, SearchIndex.open(tmp_path / "plain") as plain:
        (passages, vectors), (expected, theirs) = contents(ray_index), contents(plain)
        assert passages == expected
        np.testing.assert_allclose(vectors, theirs, atol=1e-4)
        ray_index.verify()
    assert not list((tmp_path / "ray").glob("ray-*"))
