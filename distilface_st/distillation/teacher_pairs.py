"""Choosing a checkpoint without labels: pairs of sentences scored by the teachers themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..datasets.sts import STSSubset, STSTask
from ..errors import InputError
from ..models.encoders import unit_embeddings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .teachers import Teacher

_NEIGHBOURS = 2
"""Pairs of each sentence with its nearest ones; as many are drawn at random."""


def teacher_pairs(
    teachers: Sequence[Teacher], sentences: Sequence[str], teacher_weights: Sequence[float] | None = None, seed: int = 0
) -> STSTask:
    """Pairs of held-out sentences, near and far, with the teachers' mean similarity as their score.

    A student's Spearman correlation on it says how far it ranks pairs as its teachers do.

    Args:
        teachers: The teachers.
        sentences: Sentences that are not trained on, two at least.
        teacher_weights: Weight of each teacher; alike by default.
        seed: Seed of the random pairs.

    Returns:
        A task named ``teacher``, for :class:`distilface_st.STSEvaluator`.

    Raises:
        InputError: Fewer than two sentences.
    """
    count = len(sentences)
    if count < 2:
        raise InputError("Comparing student and teacher needs at least two sentences that are held out.")
    weights = teacher_weights or [1.0] * len(teachers)
    similarities: np.ndarray = np.zeros((count, count))
    for teacher, weight in zip(teachers, weights, strict=True):
        rows = unit_embeddings(teacher.encoder, sentences).astype(np.float64)
        similarities += weight / sum(weights) * (rows @ rows.T)
    np.fill_diagonal(similarities, -np.inf)
    near = np.argsort(-similarities, axis=1)[:, : min(_NEIGHBOURS, count - 1)]
    rng = np.random.default_rng(seed)
    far = (np.arange(count)[:, None] + rng.integers(1, count, near.shape)) % count
    others = np.hstack([near, far])
    first, second = np.repeat(np.arange(count), others.shape[1]), others.reshape(-1)
    one, other = ([sentences[int(index)] for index in side] for side in (first, second))
    return STSTask("teacher", (STSSubset("held-out", one, other, similarities[first, second]),))
