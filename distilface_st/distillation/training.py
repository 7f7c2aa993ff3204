"""Distillation: a student, teachers and text in, batched by length and topic; a small model and its history out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pyarrow.compute import utf8_length
from sentence_transformers.base.sampler import DefaultBatchSampler

from ..errors import InputError
from ..losses import DistillationLoss
from ..training.run_record import TrainingRun, check_run_folder
from ..training.train import check_batch_size
from ..training.trainer import fit
from .config import OBJECTIVES
from .teachers import teacher_embeddings

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator
    from transformers import TrainerCallback

    from ..datasets.text_data import TextData
    from ..training.trainer import TrainingResult
    from .config import DistillationConfig
    from .teachers import Teacher


def distill(
    student: SentenceTransformer,
    teachers: Sequence[Teacher],
    data: TextData,
    config: DistillationConfig,
    output: str | os.PathLike[str],
    *,
    evaluator: BaseEvaluator | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    device: str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    progress: Callable[[str, int], Any] = lambda teacher, done: None,
) -> TrainingResult:
    """Train a student to embed as its teachers do.

    Teachers embed every sentence once, into a cache on disk; training reads from it, in batches of sentences of about
    one length. A million sentences and teachers of 384 and 768 dimensions take 2.3 GB on disk; in memory are the
    lengths and the order of the sentences (some 20 bytes each), the student, and a batch.

    Args:
        student: The student, see :func:`distilface_st.make_student`; trained in place, in fp32.
        teachers: What to learn from, see :func:`distilface_st.open_teacher`.
        data: Sentences, see :func:`distilface_st.load_sentences`.
        config: The settings.
        output: A new folder for the run, or with ``resume`` the folder of one that was stopped.
        evaluator: Chooses the checkpoint by its ``primary_metric``. Called before the first step as well.
        cache_dir: Folder of the teachers' embeddings, shared by runs.
        resume: Go on from the last whole checkpoint, as if the run had never stopped.
        device: ``cpu``, ``cuda``, ...; the best there is by default.
        callbacks: More trainer callbacks.
        progress: Called with a teacher's name and the sentences it has embedded.

    Returns:
        The trained student, and what happened.

    Raises:
        InputError: As :func:`distilface_st.train`, and where a setting does not fit student or teachers.
        TrainingInterrupted: As :func:`distilface_st.train`.
    """
    check_run_folder(output, resume)
    if not teachers:
        raise InputError("Distillation needs at least one teacher.")
    if data.dataset.column_names != ["sentence"]:
        raise InputError(f"Distillation takes sentences; the data has {', '.join(data.dataset.column_names)}.")
    check_batch_size(data, config.batch_size)
    known = [
        teacher_embeddings(teacher, data, cache_dir=cache_dir, progress=partial(progress, teacher.name))
        for teacher in teachers
    ]
    rows = data.dataset.add_column("label", np.arange(len(data.dataset)))

    def make_loss(processes: int) -> DistillationLoss:
        try:
            loss = DistillationLoss(student, known, **{name: getattr(config, name) for name in OBJECTIVES})
        except ValueError as error:
            raise InputError(str(error)) from error
        loss.fit_projections(data.dataset["sentence"])
        return loss

    run = TrainingRun(student, data, config, Path(output), evaluator, resume, device, callbacks)
    return fit(
        run,
        make_loss,
        partial(LengthBatchSampler, embeddings=known[0] if config.topical else None),
        rows,
        {"teachers": [{"name": teacher.name, "fingerprint": teacher.fingerprint} for teacher in teachers]},
    )


class LengthBatchSampler(DefaultBatchSampler):
    """Batches of sentences of about one length, in an order that the seed and the epoch decide.

    Rows are shuffled and cut into pools of 64 batches; a pool is sorted by length and cut into batches, which are then
    shuffled. With ``embeddings``, rows of about one length are dealt out to batches by topic: each goes to the nearest
    of some of them that still has room. A batch then holds sentences that a teacher finds alike, whose similarities
    have more to say than those of strangers.

    Length is that of all text columns together; the embeddings, a teacher's, have the shape (rows, d).
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
        self.embeddings = embeddings
        texts = [name for name in dataset.column_names if name != "label"]
        blocks = dataset.with_format("arrow").iter(10_000)
        self.lengths = np.concatenate([sum(utf8_length(block[name]).to_numpy() for name in texts) for block in blocks])

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lengths))
        # The larger a pool, the less padding and the less chance; eight batches of it share their topics.
        pool, step = self.batch_size * 64, self.batch_size * 8
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
