"""Correlation of similarities with gold scores: for a set, for its subsets, and the averages over sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from scipy.stats import rankdata

from ..datasets.sts import AVERAGE5, AVERAGE6
from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..datasets.sts import STSTask

Aggregation = Literal["all", "mean", "wmean"]
AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)

AVERAGES = {"average5": AVERAGE5, "average6": AVERAGE6}
"""Which sets an average is over: the paper's five, and those with STS16."""

_DECIMALS = 6
"""Beyond these, float32 cosines of equal texts differ by rounding and by the batch they were in: to a rank, a tie."""


@dataclass(frozen=True)
class Correlation:
    """How well similarities agree with gold scores, both from -1 to 1, over so many pairs."""

    spearman: float
    pearson: float
    pairs: int


@dataclass(frozen=True)
class TaskScore:
    """The score of one STS set, and of each of its subsets."""

    label: str
    total: Correlation
    subsets: dict[str, Correlation]


def score_task(task: STSTask, similarities: np.ndarray, aggregation: Aggregation = "all") -> TaskScore:
    """Score one STS set.

    Args:
        task: The set.
        similarities: Cosine similarity of each pair, subset after subset, shape (pairs,).
        aggregation: ``all``: one correlation over all pairs; ``mean``: the mean of the subsets' correlations;
            ``wmean``: that mean weighted by pairs.

    Returns:
        Spearman and Pearson correlation, in all and by subset. Ties, which are similarities equal to six decimals, get
        their average rank.

    Raises:
        InputError: Constant scores or similarities; a mean over subsets that the source does not tell apart.
    """
    check_aggregation([task], aggregation)
    bounds = np.cumsum([len(subset) for subset in task.subsets])[:-1]
    parts = np.split(np.asarray(similarities, dtype=np.float64), bounds)
    subsets = {
        subset.name: _correlate(subset.scores, part, f"{task.label}, {subset.name}")
        for subset, part in zip(task.subsets, parts, strict=True)
    }
    if aggregation == "all":
        return TaskScore(task.label, _correlate(task.scores, similarities, task.label), subsets)
    found = list(subsets.values())
    weights = [part.pairs if aggregation == "wmean" else 1 for part in found]
    spearman = np.average([part.spearman for part in found], weights=weights)
    pearson = np.average([part.pearson for part in found], weights=weights)
    return TaskScore(task.label, Correlation(float(spearman), float(pearson), len(task)), subsets)


def averages(scores: dict[str, float]) -> dict[str, float | None]:
    """``average5`` (STS12-15 and STS-B, the paper's) and ``average6`` (with STS16), each ``None`` if a member lacks."""
    return {
        name: float(np.mean([scores[member] for member in members])) if set(members) <= scores.keys() else None
        for name, members in AVERAGES.items()
    }


def check_aggregation(tasks: Sequence[STSTask], aggregation: str) -> None:
    """Refuse an unknown aggregation, and a mean over subsets that are not told apart.

    Raises:
        InputError: As said.
    """
    if aggregation not in AGGREGATIONS:
        raise InputError(f"{aggregation!r} is no aggregation: choose from {', '.join(AGGREGATIONS)}.")
    merged = [task.label for task in tasks if task.merged]
    if aggregation != "all" and merged:
        raise InputError(
            f"{', '.join(merged)} came without subsets, so there is no {aggregation} over them: use 'all', or load "
            "the sets from a folder in SentEval's layout."
        )


def _correlate(gold: np.ndarray, similarities: np.ndarray, where: str) -> Correlation:
    gold, similarities = np.asarray(gold, dtype=np.float64), np.asarray(similarities, dtype=np.float64)
    if len(gold) < 2 or np.ptp(gold) == 0:
        raise InputError(f"{where}: all {len(gold)} gold score(s) are the same, so no correlation is defined.")
    if not np.ptp(similarities) > 10**-_DECIMALS:
        raise InputError(
            f"{where}: all similarities are {similarities[0]:.6f}, so no correlation is defined: the model does "
            "not tell these sentences apart."
        )
    spearman = _pearson(rankdata(gold), rankdata(similarities.round(_DECIMALS)))
    return Correlation(spearman, _pearson(gold, similarities), len(gold))


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))
