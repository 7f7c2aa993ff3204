"""An embedding depends on its sentence alone: not on its batch mates, their order, or the padding that they bring."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilface_st import EdgeEncoder, load_model
from distilface_st.inference.engines import RUNTIMES

SENTENCES = (
    *("hello", "world", "?", "A man is playing a guitar.", "don't", "1, 2, 3", "über Straßen", "我喜欢猫", "x" * 300),
    *("The stock market fell by three percent after the bank raised its rates for the second time this year.",),
    *("A very long paragraph about one thing and another. " * 12, "def f(x): return {k: v for k, v in x.items()}"),
)


pytest.importorskip("openvino")


@pytest.fixture(
    scope="module",
    params=[(model, runtime) for model in ("distilface-micro", "distilface-mini") for runtime in RUNTIMES],
    ids="-".join,
)
def shipped(request):
    """A shipped model in int8, and its embeddings of the sentences, each alone."""
    encoder = EdgeEncoder(*request.param)
    return encoder, encoder.encode(SENTENCES, batch_size=1, normalize_embeddings=True)


@settings(deadline=None, max_examples=20)
@given(rows=st.lists(st.integers(0, len(SENTENCES) - 1), min_size=1, max_size=24), batch_size=st.integers(1, 24))
def test_a_shipped_model_in_int8_embeds_a_sentence_in_any_batch_as_alone(shipped, rows, batch_size):
    encoder, alone = shipped
    found = encoder.encode([SENTENCES[row] for row in rows], batch_size=batch_size, normalize_embeddings=True)
    np.testing.assert_allclose(found, alone[rows], atol=1e-4)


def test_and_so_it_does_in_torch():
    model = load_model("distilface-micro", device="cpu")
    alone = model.encode(list(SENTENCES), batch_size=1, normalize_embeddings=True)
    together = model.encode(list(SENTENCES), batch_size=5, normalize_embeddings=True)
    np.testing.assert_allclose(together, alone, atol=1e-4)
