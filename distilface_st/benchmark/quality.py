"""What the arms of a benchmark are worth: scores on STS, and how close they are to the model in torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..evaluation.sts import sts_suite
from .report import Quality, baseline_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..datasets.sts import STSTask
    from .process import Worker
    from .variants import Arm


def measure_quality(
    at_work: Sequence[tuple[Arm, Worker]],
    embeddings: dict[str, np.ndarray],
    tasks: Sequence[STSTask],
    progress: Callable[[str], Any],
) -> dict[str, Quality]:
    """Compare every arm with the ``torch`` arm of the same weights, and score it, unless its weights are random.

    Args:
        at_work: Arms with their processes.
        embeddings: Each arm's embeddings of the text ``sentences``, by its id.
        tasks: STS sets; without any nothing is scored.
        progress: Called with what is being done.

    Returns:
        By the arm's id.

    Raises:
        InputError: Zero or non-finite embeddings; an arm whose process ended.
    """
    arms = [arm for arm, _ in at_work]
    found: dict[str, Quality] = {}
    for arm, worker in at_work:
        progress(f"scoring {arm.id}")
        found[arm.id] = _scores(arm, worker, tasks)
    return {arm.id: _compared(arm, baseline_of(arm, arms), embeddings, found) for arm in arms}


def _compared(arm: Arm, baseline: Arm | None, embeddings: dict[str, np.ndarray], found: dict[str, Quality]) -> Quality:
    quality = found[arm.id]
    if baseline is None:
        return quality
    cosines = cosines_of_rows(arm.id, embeddings[arm.id], embeddings[baseline.id])
    reference = found[baseline.id].score
    return replace(
        quality,
        mean_cosine=float(cosines.mean()),
        min_cosine=float(cosines.min()),
        loss=None if reference is None or quality.score is None else reference - quality.score,
    )


def cosines_of_rows(name: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of each row of ``first`` with the same row of ``second``, shape (rows,).

    Raises:
        InputError: The two differ in shape, or a row is zero or not finite.
    """
    if first.shape != second.shape:
        raise InputError(f"{name} gives embeddings of shape {first.shape}, its torch arm of shape {second.shape}.")
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise InputError(f"{name} gives an embedding that is zero or not finite, or its torch arm does.")
    return np.asarray((first * second).sum(axis=1) / lengths)


def _scores(arm: Arm, worker: Worker, tasks: Sequence[STSTask]) -> Quality:
    if arm.random_weights or not tasks:
        return Quality(scores={})
    report = sts_suite(worker, tasks=list(tasks), model_name=arm.id)
    scores = report["scores"]
    return Quality(
        scores=scores,
        average=float(np.mean(list(scores.values()))),
        average5=report["average5"],
        average6=report["average6"],
    )
