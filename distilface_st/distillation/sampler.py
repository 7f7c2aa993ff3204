"""Batches of sentences of about one length, and if wanted of about one topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pyarrow.compute import utf8_length
from sentence_transformers.base.sampler import DefaultBatchSampler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset

_POOL = 64
"""Batches drawn at random together before they are sorted: the more, the less padding and the less chance."""

_TOPICS = 8
"""Batches of about one length that share a set of sentences by topic."""


class LengthBatchSampler(DefaultBatchSampler):
    """Batches of sentences of about one length, in an order that the seed and the epoch decide.

    Rows are shuffled and cut into pools of 64 batches; a pool is sorted by length and cut into batches, which are then
    shuffled. With ``embeddings``, rows of about one length are dealt out to batches by topic: each goes to the nearest
    of some of them that still has room. A batch then holds sentences that a teacher finds alike, whose similarities
    have more to say than those of strangers.

    Args:
        dataset: Rows with the column ``sentence``.
        batch_size: Rows a batch.
        drop_last: Whether to leave out an incomplete batch at the end.
        embeddings: A teacher's embeddings, shape (rows, d), row i for row i of the dataset.
        seed: Seed of the order.
        **kwargs: What else the trainer gives; unused.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        drop_last: bool,
        embeddings: np.ndarray | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(dataset, batch_size, drop_last, seed=seed, **kwargs)
        self.seed = seed
        self.embeddings = embeddings
        blocks = dataset.with_format("arrow").iter(10_000)
        self.lengths = np.concatenate([utf8_length(block["sentence"]).to_numpy() for block in blocks])

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lengths))
        pool, step = self.batch_size * _POOL, self.batch_size * _TOPICS
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows = rows[np.argsort(self.lengths[rows], kind="stable")]
            whole = len(rows) // self.batch_size * self.batch_size
            batches: list[np.ndarray] = []
            for first in range(0, whole, step):
                part = rows[first : min(first + step, whole)]
                if self.embeddings is not None:
                    part = self._by_topic(part, self.embeddings, rng)
                batches += list(part.reshape(-1, self.batch_size))
            if whole < len(rows) and not self.drop_last:
                batches.append(rows[whole:])
            for index in rng.permutation(len(batches)):
                yield batches[index].tolist()

    def __len__(self) -> int:
        whole, rest = divmod(len(self.lengths), self.batch_size)
        return whole + bool(rest and not self.drop_last)

    def _by_topic(self, rows: np.ndarray, embeddings: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The rows in the order of the batches that they are dealt out to."""
        count = len(rows) // self.batch_size
        vectors = embeddings[rows].astype(np.float32)
        nearness = vectors @ vectors[rng.choice(len(rows), count, replace=False)].T
        room = np.full(count, self.batch_size)
        dealt: list[list[int]] = [[] for _ in range(count)]
        for index in np.argsort(-nearness.max(axis=1)):
            batch = int(np.where(room > 0, nearness[index], -np.inf).argmax())
            dealt[batch].append(int(rows[index]))
            room[batch] -= 1
        return np.asarray(dealt).reshape(-1)
