"""Choosing a checkpoint without labels: pairs of sentences scored by the teachers themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..datasets.sts import STSSubset, STSTask
from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .teachers import Teacher

_NEIGHBOURS = 2
"""Pairs of each sentence with its nearest ones; as many are drawn at random."""


def teacher_pairs(
    teachers: Sequence[Teacher], sentences: Sequence[str], weights: Sequence[float] | None = None, seed: int = 0
) -> STSTask:
    """Pairs of held-out sentences, near and far, with the teachers' mean similarity as their score.

    A student's Spearman correlation on it says how far it ranks pairs as its teachers do.

    Args:
        teachers: The teachers.
        sentences: Sentences that are not trained on, two at least.
        weights: Of the teachers; alike by default.
        seed: Of the random pairs.

    Returns:
        A task named ``teacher``, for :class:`distilface_st.STSEvaluator`.

    Raises:
        InputError: Fewer than two sentences.
    """
    if len(sentences) < 2:
        raise InputError("Comparing student and teacher needs at least two sentences that are held out.")
    weights = weights or [1.0] * len(teachers)
    total = sum(weights)
    similarities: np.ndarray = np.zeros((len(sentences), len(sentences)))
    for teacher, weight in zip(teachers, weights, strict=True):
        rows = np.asarray(teacher.encoder.encode(list(sentences), normalize_embeddings=True), dtype=np.float64)
        similarities += weight / total * (rows @ rows.T)
    np.fill_diagonal(similarities, -np.inf)
    near = np.argsort(-similarities, axis=1)[:, : min(_NEIGHBOURS, len(sentences) - 1)]
    rng = np.random.default_rng(seed)
    far = (np.arange(len(sentences))[:, None] + rng.integers(1, len(sentences), near.shape)) % len(sentences)
    others = np.hstack([near, far])
    first = np.repeat(np.arange(len(sentences)), others.shape[1])
    second = others.reshape(-1)
    pairs = STSSubset(
        "held-out",
        [sentences[int(index)] for index in first],
        [sentences[int(index)] for index in second],
        similarities[first, second],
    )
    return STSTask("teacher", (pairs,))
