from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distilface_st import GuidedLoss

from .test_distillation import Model, unit


def by_hand(anchors, positives, of_anchors, of_positives, temperature):
    """The in-batch negatives in numpy, pair by pair, without those that the guide finds as near as the positive."""
    total, count = 0.0, len(anchors)
    for queries, documents, guide_queries, guide_documents in (
        (anchors, positives, of_anchors, of_positives),
        (positives, anchors, of_positives, of_anchors),
    ):
        for i in range(count):
            own = guide_queries[i] @ guide_documents[i]
            kept = [j for j in range(count) if j == i or guide_queries[i] @ guide_documents[j] < own - 1e-4]
            exponentials = {j: np.exp(queries[i] @ documents[j] / temperature) for j in kept}
            total -= np.log(exponentials[i] / sum(exponentials.values())) / count / 2
    return total


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(2, 5), st.floats(0.05, 1.0), st.integers(0, 99))
def test_without_guidance_it_is_in_batch_negatives_less_the_false_ones(count, dimension, temperature, seed):
    sides = [unit(count, dimension, seed + i) for i in range(4)]
    model = Model(2, dimension)
    loss = GuidedLoss(model, unit(2, dimension, 0), np.zeros((1, 2), int), guidance=0.0, pair_temperature=temperature)
    found = loss.compute_pair_loss(*([torch.tensor(side) for side in two] for two in (sides[:2], sides[2:])))
    assert found.item() == pytest.approx(by_hand(*sides, temperature), rel=1e-4, abs=1e-5)


def test_guidance_adds_the_distillation_of_all_texts():
    embeddings, guide = ([torch.tensor(unit(4, 3, seed + i)).float() for i in range(2)] for seed in (0, 5))
    losses = {
        weight: GuidedLoss(Model(2, 3), unit(2, 3, 0).astype(np.float32), np.zeros((1, 2), int), guidance=weight)
        for weight in (0.0, 0.5)
    }
    both = losses[0.5].compute_loss_from_embeddings(torch.cat(embeddings), [torch.cat(guide)])
    without, with_it = (loss.compute_pair_loss(embeddings, guide) for loss in losses.values())
    assert with_it.item() == pytest.approx((without + 0.5 * both).item(), rel=1e-5)


def test_a_text_that_occurs_twice_in_a_batch_is_no_negative_of_itself():
    one, other = unit(2, 4, 1)
    guide = [torch.tensor(np.stack(side)).float() for side in ([one, other, one], [other, one, other])]
    embeddings = [torch.tensor(np.stack([one] * 3)).float(), torch.tensor(np.stack([other, -other, other])).float()]
    loss = GuidedLoss(Model(2, 4), unit(2, 4, 0), np.zeros((1, 2), int), guidance=0.0)
    repeated = loss.compute_pair_loss(embeddings, guide)
    alone = loss.compute_pair_loss([side[:2] for side in embeddings], [side[:2] for side in guide])
    assert repeated.isfinite()
    assert alone.isfinite()


def test_labels_find_the_guides_rows_and_statistics_are_given_out():
    model = Model(6, 3)
    rows = np.array([[0, 1], [2, 3], [4, 5]])
    loss = GuidedLoss(model, unit(6, 3, 0).astype(np.float16), rows)
    model.train()
    features = [{"input_ids": torch.tensor(rows[[2, 0], side])[:, None]} for side in (0, 1)]
    value = loss(features, torch.tensor([2, 0]))
    value.backward()
    assert value.isfinite()
    assert model.table.grad[[0, 1, 4, 5]].abs().sum() > 0
    assert not model.table.grad[[2, 3]].any()
    assert set(loss.pop_statistics()) == {"teacher_similarity", "positive_similarity", "negative_similarity"}
    assert loss.pop_statistics() == {}


def test_what_the_model_knew_of_other_sentences_is_rehearsed():
    class Reader(Model):
        def preprocess(self, texts):
            return {"input_ids": torch.tensor([[int(text)] for text in texts])}

    def value(model, weight):
        loss = GuidedLoss(model, unit(2, 3, 0), np.array([[0, 1]]), 0.0, rehearsal=weight, rehearsed=sentences)
        model.table.data[30:] += change
        features = [{"input_ids": torch.tensor([[row]])} for row in (0, 1)]
        found = [loss(features, torch.tensor([0])) for _ in range(2)]
        assert found[0] == found[1]  # the pairs' numbers decide which sentences are taken
        return found[0]

    sentences = [str(row) for row in range(6, 30 + 24)]
    change = torch.zeros(24, 3)
    assert value(Reader(54, 3), 2.0).item() == pytest.approx(value(Reader(54, 3), 0.0).item(), abs=1e-6)
    sentences, change = sentences[24:], torch.randn(24, 3)
    model = Reader(54, 3)
    before, after = (unit_rows(model.table.detach()[30:] + shift) for shift in (0, change))
    expected = 20 * np.mean((before @ before.T - after @ after.T) ** 2)
    with_it, without = value(model, 2.0), value(Reader(54, 3), 0.0)
    assert with_it.item() - without.item() == pytest.approx(2 * expected, rel=1e-4)
    with_it.backward()
    assert (model.table.grad[30:].abs().sum(dim=1) > 0).all()


def unit_rows(rows):
    return (rows / rows.norm(dim=1, keepdim=True)).numpy()


@pytest.mark.parametrize("options", [{"pair_temperature": 0.0}, {"regression": -1.0}, {"rehearsal": 1.0}])
def test_settings_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match=r"must be above 0|none below 0|0 sentences to rehearse"):
        GuidedLoss(Model(2, 3), unit(2, 3, 0), np.zeros((1, 2), int), **options)
