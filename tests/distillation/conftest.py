from __future__ import annotations

import random

import pytest

from ..conftest import COMMON_WORDS


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    rng = random.Random(0)
    lines = dict.fromkeys(" ".join(rng.choices(COMMON_WORDS, k=rng.randint(3, 9))) for _ in range(160))
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def data(text, tmp_path):
    from distilface_st import load_sentences

    return load_sentences(text, cache_dir=tmp_path / "cache")


@pytest.fixture(scope="session")
def teacher_model(tiny_encoder):
    """A random BERT of four layers with mean pooling, in stock modules."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    return SentenceTransformer(modules=[Transformer(str(tiny_encoder)), Pooling(32, "mean")], device="cpu")
