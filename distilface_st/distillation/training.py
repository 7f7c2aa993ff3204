"""Distillation: a student, teachers' embeddings and text in; a small model and its history out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..losses import DistillationLoss
from ..training.run_record import TrainingRun
from ..training.trainer import fit
from .config import OBJECTIVES
from .sampler import LengthBatchSampler
from .teachers import teacher_embeddings

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator
    from transformers import TrainerCallback

    from ..datasets.text_data import TextData
    from ..training.trainer import TrainingResult
    from .config import DistillationConfig
    from .teachers import Teacher

_FITTED_ON = 4096
"""Sentences that the projections are fitted on before the first step."""


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
        student: The student, see :func:`distilface_st.make_student`; trained in place.
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
        InputError: Data or settings that do not fit, a folder that holds another run, a run that diverged.
        TrainingInterrupted: SIGINT or SIGTERM came; a checkpoint was saved.
    """
    if not teachers:
        raise InputError("Distillation needs at least one teacher.")
    if data.dataset.column_names != ["sentence"]:
        raise InputError(f"Distillation takes sentences; the data has {', '.join(data.dataset.column_names)}.")
    if len(data.dataset) < config.batch_size:
        raise InputError(f"{data.source} gives {len(data.dataset)} rows, fewer than the batch size.")
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
        some = np.linspace(0, len(rows) - 1, min(_FITTED_ON, len(rows))).astype(int).tolist()
        loss.fit_projections(data.dataset[some]["sentence"], some)
        return loss

    run = TrainingRun(student, data, config, Path(output), evaluator, resume, device, callbacks)
    return fit(
        run,
        make_loss,
        partial(LengthBatchSampler, embeddings=known[0] if config.topical else None),
        rows,
        {"teachers": [{"name": teacher.name, "fingerprint": teacher.fingerprint} for teacher in teachers]},
    )
