from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from distilface_st.adaptation.guard import agreement
from distilface_st.adaptation.linear_map import (
    LEAST_AGREEMENT,
    LinearMap,
    _contrast,
    drop_identity,
    last_linear,
    learn_map,
)
from distilface_st.errors import InputError
from distilface_st.evaluation.retrieval import ranks_of_own, reciprocal_ranks

SHARED, NOISE = 8, 24


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def texts_in_pairs(count, seed, noise=0.8):
    """Pairs that share 8 coordinates and have nothing in common in 24 others."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(count, SHARED))
    sides = [np.hstack([topics, rng.normal(scale=noise, size=(count, NOISE))]) for _ in range(2)]
    return unit(np.concatenate(sides)), np.column_stack([np.arange(count), np.arange(count) + count])


def mrr(embeddings, rows):
    anchors, positives = (embeddings[side] for side in rows.T)
    return reciprocal_ranks(ranks_of_own(anchors, positives)).mean()


@pytest.fixture(scope="module")
def everyday():
    return texts_in_pairs(60, 1)[0], texts_in_pairs(600, 2)[0]


def learned(texts, rows, everyday, **changes):
    judged, known = everyday
    settings = {"everyday": known, "rehearsal": 0.0, "temperature": 0.05, "seed": 0} | changes
    return learn_map(texts, rows, judged, **settings)


def test_texts_that_belong_together_come_nearer_also_those_it_has_not_seen(everyday, monkeypatch):
    monkeypatch.setattr("distilface_st.adaptation.linear_map.LEAST_AGREEMENT", -100.0)
    found = learned(*texts_in_pairs(2000, 0), everyday)
    assert found.after > found.before + 0.05
    texts, rows = texts_in_pairs(500, 3)
    assert mrr(unit(texts @ found.matrix), rows) > mrr(texts, rows) + 0.05
    assert found.said.startswith("A linear map after pooling lifts")


def test_it_ends_before_everyday_sentences_are_judged_differently_and_rehearsal_keeps_them(everyday, monkeypatch):
    judged, _ = everyday
    texts, rows = texts_in_pairs(2000, 0)
    short = learned(texts, rows, everyday)
    assert short.steps > 0
    assert agreement(judged, unit(judged @ short.matrix)) >= LEAST_AGREEMENT
    monkeypatch.setattr("distilface_st.adaptation.linear_map.LEAST_AGREEMENT", -100.0)
    free, rehearsed = (learned(texts, rows, everyday, rehearsal=weight) for weight in (0.0, 50.0))
    assert agreement(judged, unit(judged @ rehearsed.matrix)) > agreement(judged, unit(judged @ free.matrix)) + 1


def test_a_run_keeps_its_map_bit_for_bit(everyday, tmp_path):
    assert LinearMap.read(tmp_path) is None
    found = learned(*texts_in_pairs(2000, 0), everyday)
    found.write(tmp_path)
    kept = LinearMap.read(tmp_path)
    np.testing.assert_array_equal(kept.matrix, found.matrix)
    assert kept[1:] == found[1:]
    (tmp_path / "linear_map.safetensors").write_bytes(b"no map")
    with pytest.raises(InputError, match="is damaged"):
        LinearMap.read(tmp_path)


def test_what_is_found_already_and_too_few_pairs_leave_it_as_it_is(everyday):
    for texts, rows in (texts_in_pairs(1000, 0, noise=1e-3), texts_in_pairs(300, 0)):
        found = learned(texts, rows, everyday)
        assert found.steps == 0
        np.testing.assert_array_equal(found.matrix, np.eye(SHARED + NOISE))
        assert "nothing" in found.said


def test_a_text_is_no_negative_of_itself():
    rng = np.random.default_rng(0)
    anchors, positives = (torch.tensor(unit(rng.normal(size=(3, 4)))) for _ in range(2))
    rows = torch.tensor([[0, 5], [1, 5], [6, 1]])  # two share their positive; the last one's is the second's anchor
    logits = (anchors @ positives.T / 0.1).double()
    own = logits.diagonal()
    forth_kept, back_kept = [[0, 2], [1], [0, 1, 2]], [[0, 2], [1, 2], [0, 2]]
    forth = torch.stack([torch.logsumexp(logits[row, forth_kept[row]], 0) - own[row] for row in range(3)]).mean()
    back = torch.stack([torch.logsumexp(logits[back_kept[row], row], 0) - own[row] for row in range(3)]).mean()
    assert _contrast(anchors, positives, rows, 0.1).item() == pytest.approx(((forth + back) / 2).item(), abs=1e-5)


@pytest.mark.parametrize("ends", [[], [Normalize()]], ids=["plain", "normalized"])
def test_a_models_last_layer_is_added_once_changes_nothing_and_goes_again(tiny_encoder, ends):
    model = SentenceTransformer(modules=[Transformer(str(tiny_encoder)), Pooling(32, "mean"), *ends], device="cpu")
    texts, count = ["a man plays", "the sea"], len(model)
    before = model.encode(texts)
    layer = last_linear(model)
    assert last_linear(model) is layer
    assert len(model) == count + 1
    np.testing.assert_allclose(model.encode(texts), before, atol=1e-6)
    with torch.no_grad():
        layer.linear.weight.mul_(-1.0)
    np.testing.assert_allclose(model.encode(texts), -before, atol=1e-6)
    drop_identity(model)
    assert len(model) == count + 1, "a layer that does something stays"
    torch.nn.init.eye_(layer.linear.weight)
    drop_identity(model)
    assert len(model) == count
    np.testing.assert_array_equal(model.encode(texts), before)
