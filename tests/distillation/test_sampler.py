from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from distilface_st.distillation.training import LengthBatchSampler


def rows(lengths):
    return Dataset.from_dict({"sentence": ["x" * length for length in lengths], "label": list(range(len(lengths)))})


def topics(count, kinds=4):
    vectors = np.eye(kinds)[np.arange(count) % kinds] + 0.01
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=90),
    batch_size=st.integers(2, 9),
    drop_last=st.booleans(),
    topical=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_every_row_is_drawn_once_in_batches_of_the_right_size(lengths, batch_size, drop_last, topical, epoch):
    embeddings = topics(len(lengths)) if topical else None
    sampler = LengthBatchSampler(rows(lengths), batch_size, drop_last, embeddings, seed=3)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    drawn = [row for batch in batches for row in batch]
    assert len(batches) == len(sampler)
    assert len(set(drawn)) == len(drawn)
    assert sum(len(batch) != batch_size for batch in batches) <= (not drop_last)
    left_out = len(lengths) % batch_size if drop_last else 0
    assert len(drawn) == len(lengths) - left_out


def test_batches_hold_sentences_of_about_one_length():
    lengths = np.random.default_rng(0).integers(5, 300, 2000)
    spread = [np.ptp(lengths[batch]) for batch in LengthBatchSampler(rows(lengths), 20, True)]
    assert np.mean(spread) < 12


def test_topical_batches_hold_sentences_that_the_teacher_finds_alike():
    lengths = np.random.default_rng(0).integers(20, 40, 1600)
    embeddings = topics(1600).astype(np.float32)

    def similarity(sampler):
        return np.mean([(embeddings[batch] @ embeddings[batch].T).mean() for batch in sampler])

    by_length = similarity(LengthBatchSampler(rows(lengths), 20, True))
    by_topic = similarity(LengthBatchSampler(rows(lengths), 20, True, embeddings))
    assert by_topic > by_length + 0.2


@pytest.mark.parametrize("topical", [True, False])
def test_the_order_is_the_seeds_and_another_in_every_epoch(topical):
    given_rows = rows(range(1, 301))
    embeddings = topics(300) if topical else None

    def order(seed, epoch):
        sampler = LengthBatchSampler(given_rows, 7, True, embeddings, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
