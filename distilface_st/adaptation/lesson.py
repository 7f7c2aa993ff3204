"""Pairs made ready to be learned: as data for the trainer, with the guide's embeddings of every text."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from datasets import Dataset

from ..datasets.text_data import TextData
from ..distillation.teachers import Teacher, teacher_embeddings
from ..distillation.training import LengthBatchSampler
from ..losses import GuidedLoss
from ..utils.provenance import text_fingerprint
from .everyday import REHEARSED

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from sentence_transformers import SentenceTransformer

    from .config import AdaptationConfig


class Lesson(NamedTuple):
    """Pairs to learn, and the distinct texts that they are made of."""

    pairs: TextData  # the columns anchor and positive
    texts: TextData  # the column sentence
    rows: np.ndarray  # for each pair its texts, shape (pairs, 2)
    labelled: Dataset  # the pairs with their numbers

    @classmethod
    def of(cls, pairs: list[tuple[str, str]], source: str) -> Lesson:
        """The lesson of (anchor, positive), which come from ``source``."""
        distinct = list(dict.fromkeys(text for pair in pairs for text in pair))
        row_of = {text: row for row, text in enumerate(distinct)}
        rows = np.array([[row_of[anchor], row_of[positive]] for anchor, positive in pairs])
        anchors, positives = (list(side) for side in zip(*pairs, strict=True))
        columns = Dataset.from_dict({"anchor": anchors, "positive": positives})
        both, one = (
            TextData(dataset, len(dataset), 0, 0, text_fingerprint(texts), source)
            for dataset, texts in (
                (columns, [text for pair in pairs for text in pair]),
                (Dataset.from_dict({"sentence": distinct}), distinct),
            )
        )
        return cls(both, one, rows, columns.add_column("label", np.arange(len(pairs))))

    def embeddings(
        self,
        teacher: Teacher,
        cache_dir: str | os.PathLike[str] | None,
        progress: Callable[[str, int, int], object],
    ) -> np.ndarray:
        """An encoder's embeddings of the texts; ``progress`` is called with its name, the texts done and all."""
        total = len(self.texts.dataset)
        report = partial(progress, teacher.name)
        return teacher_embeddings(teacher, self.texts, cache_dir=cache_dir, progress=lambda done: report(done, total))

    def guided(
        self, model: SentenceTransformer, guide: np.ndarray, config: AdaptationConfig
    ) -> tuple[GuidedLoss, Callable[..., LengthBatchSampler]]:
        """The loss and the batches, from the guide's embeddings of the texts."""
        settings = (config.guidance, config.temperature, config.rehearsal)
        loss = GuidedLoss(model, guide, self.rows, *settings, REHEARSED)
        of_positives = guide[self.rows[:, 1]] if config.topical else None
        return loss, partial(LengthBatchSampler, embeddings=of_positives)
