"""Semantic textual similarity: correlation of cosine similarity with people's scores."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

import numpy as np
from scipy.stats import rankdata
from torch import nn
from typing_extensions import override

from ..datasets.sts import AVERAGE5, AVERAGE6, STSTask, former_source, load_sts
from ..errors import InputError
from ..models.encoders import Encoder, distinct_embeddings, open_encoder
from ..models.fingerprint import encoder_fingerprint, model_fingerprint
from ..utils.provenance import command, text_fingerprint, versions
from .base import Evaluation, MetricsEvaluator

if TYPE_CHECKING:
    from collections.abc import Sequence

Aggregation = Literal["all", "mean", "wmean"]

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
    """Score one STS set from the cosine similarity of each pair, subset after subset, shape (pairs,).

    The aggregation ``all`` is one correlation over all pairs, ``mean`` the mean of the subsets' correlations, ``wmean``
    that mean weighted by pairs. Similarities equal to six decimals are ties, and get their average rank.

    Raises:
        InputError: Constant scores or similarities; a mean over subsets that the source does not tell apart.
    """
    check_tasks(task, aggregation)
    bounds = np.cumsum([len(subset) for subset in task.subsets])[:-1]
    parts = np.split(np.asarray(similarities, dtype=np.float64), bounds)
    subsets = {
        subset.name: _correlate(subset.scores, part, f"{task.label}, {subset.name}")
        for subset, part in zip(task.subsets, parts, strict=True)
    }
    if aggregation == "all":
        return TaskScore(task.label, _correlate(task.scores, similarities, task.label), subsets)
    weights = [part.pairs if aggregation == "wmean" else 1 for part in subsets.values()]
    spearman = np.average([part.spearman for part in subsets.values()], weights=weights)
    pearson = np.average([part.pearson for part in subsets.values()], weights=weights)
    return TaskScore(task.label, Correlation(float(spearman), float(pearson), len(task)), subsets)


def averages(scores: dict[str, float]) -> dict[str, float | None]:
    """``average5`` (STS12-15 and STS-B, the paper's) and ``average6`` (with STS16), each ``None`` if a member lacks."""
    return {
        name: float(np.mean([scores[member] for member in members])) if set(members) <= scores.keys() else None
        for name, members in AVERAGES.items()
    }


def check_tasks(tasks: STSTask | Sequence[STSTask], aggregation: str) -> tuple[STSTask, ...]:
    """The tasks as a tuple, of one or more, each once, over which the aggregation can be formed."""
    tasks = (tasks,) if isinstance(tasks, STSTask) else tuple(tasks)
    labels = [task.label for task in tasks]
    if not tasks or len(set(labels)) < len(labels):
        raise InputError(f"STS sets must be one or more, each once; these are {', '.join(labels) or 'none'}.")
    if aggregation not in get_args(Aggregation):
        raise InputError(f"{aggregation!r} is no aggregation: choose from {', '.join(get_args(Aggregation))}.")
    merged = [task.label for task in tasks if task.merged]
    if aggregation != "all" and merged:
        problem = f"{', '.join(merged)} came without subsets, so there is no {aggregation} over them"
        raise InputError(f"{problem}: use 'all', or load the sets from a folder in SentEval's layout.")
    return tasks


def _correlate(gold: np.ndarray, similarities: np.ndarray, where: str) -> Correlation:
    gold, similarities = np.asarray(gold, dtype=np.float64), np.asarray(similarities, dtype=np.float64)
    if len(gold) < 2 or np.ptp(gold) == 0:
        raise InputError(f"{where}: all {len(gold)} gold score(s) are the same, so no correlation is defined.")
    if not np.ptp(similarities) > 10**-_DECIMALS:
        problem = f"all similarities are {similarities[0]:.6f}, so no correlation is defined"
        raise InputError(f"{where}: {problem}: the model does not tell these sentences apart.")
    spearman = _pearson(rankdata(gold), rankdata(similarities.round(_DECIMALS)))
    return Correlation(spearman, _pearson(gold, similarities), len(gold))


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


class STSEvaluator(MetricsEvaluator):
    """Scores a model on one or more STS sets, encoding each distinct sentence of all of them once.

    The protocol is SimCSE's (Gao, Yao, Chen, 2021, appendix B) and the paper's: cosine similarity, whatever similarity
    function the model names; sentences cut only at the model's own ``max_seq_length``.

    Metrics, all from -1 to 1: ``TASK_spearman_cosine`` and ``TASK_pearson_cosine`` for each set, TASK being its label
    (``STS12``, ``STS-B-dev``, ...), and for several sets ``average_spearman_cosine`` over all of them, with
    ``average5_spearman_cosine`` and ``average6_spearman_cosine`` where all their members are there. A ``name`` takes
    TASK's place for a single set (``sts-dev_spearman_cosine``) and is put before the keys of several.

    Args:
        tasks: The sets.
        aggregation: ``all``, ``mean`` or ``wmean``, see :func:`score_task`.
        batch_size: Sentences in one forward pass.
        name: See above.
        primary: What chooses checkpoints: a label, ``average``, ``average5`` or ``average6``. By default STS-B's dev
            split where it is there, else STS-B, else the only set, else ``average``.
        write_csv: Whether to append metrics and subset scores to ``sts_evaluation_NAME_results.csv`` in the output
            folder, a line an evaluation.
        show_progress_bar: Whether the encoder shows its progress.

    Raises:
        InputError: No set, one of them twice, an aggregation or primary metric that does not exist.

    Example:
        ::

            dev = load_sts("STS-B", "data/sts", split="dev")
            evaluator = STSEvaluator(dev, name="sts-dev")
            evaluator(model)["sts-dev_spearman_cosine"]
    """

    description = "Semantic Similarity"

    def __init__(
        self,
        tasks: STSTask | Sequence[STSTask],
        aggregation: Aggregation = "all",
        batch_size: int = 64,
        name: str = "",
        primary: str | None = None,
        write_csv: bool = True,
        show_progress_bar: bool = False,
    ) -> None:
        self.tasks = check_tasks(tasks, aggregation)
        self.aggregation = aggregation
        prefix = name or ("" if len(self.tasks) > 1 else self.tasks[0].label)
        primary = self._metric(self._chosen(primary))
        super().__init__("sts_evaluation", prefix, primary, batch_size, write_csv, show_progress_bar)
        self.name = self.name or "STS"  # what the model card calls the data
        self.csv_file = f"sts_evaluation{f'_{name}' if name else ''}_results.csv"

    def score(self, model: Encoder) -> list[TaskScore]:
        """Score the model on each set, in the order given, subsets included."""
        sentences = (text for task in self.tasks for text in (*task.sentences1, *task.sentences2))
        rows, vectors = distinct_embeddings(model, sentences, self.batch_size, self.show_progress_bar)
        scores = []
        for task in self.tasks:
            first, second = (vectors[[rows[text] for text in side]] for side in (task.sentences1, task.sentences2))
            scores.append(score_task(task, np.einsum("ij,ij->i", first, second), self.aggregation))
        return scores

    @override
    def evaluate(self, model: Encoder) -> Evaluation:
        found = self.score(model)
        kinds = ("spearman", "pearson")
        metrics = {self._metric(score.label, kind): getattr(score.total, kind) for score in found for kind in kinds}
        if len(found) > 1:
            scores = {score.label: score.total.spearman for score in found}
            means = {"average": float(np.mean(list(scores.values()))), **averages(scores)}
            metrics |= {self._metric(name): value for name, value in means.items() if value is not None}
        subsets = {
            f"{score.label}/{name}_{kind}_cosine": getattr(part, kind)
            for score in found
            for name, part in score.subsets.items()
            for kind in kinds
        }
        return Evaluation(metrics, subsets)

    @override
    def get_config_dict(self) -> dict[str, Any]:
        return {"aggregation": self.aggregation, "pairs": {task.label: len(task) for task in self.tasks}}

    def _chosen(self, primary: str | None) -> str:
        """The label or average that chooses checkpoints."""
        choices = labels = [task.label for task in self.tasks]
        if len(labels) > 1:
            choices = [*labels, "average", *(name for name, sets in AVERAGES.items() if set(sets) <= set(labels))]
        if primary is None:
            return next(name for name in ("STS-B-dev", "STS-B", "average", labels[0]) if name in choices)
        if primary not in choices:
            raise InputError(f"{primary!r} is no metric of this evaluation: choose from {', '.join(choices)}.")
        return primary

    def _metric(self, label: str, kind: str = "spearman") -> str:
        # A single set is named by the evaluator's own name, which prefixes all metrics.
        return f"{label}_{kind}_cosine" if len(self.tasks) > 1 else f"{kind}_cosine"


class STSReport(TypedDict):
    """What :func:`sts_suite` reports; scores are correlations x 100.

    Keys: ``model`` (its name), ``aggregation``, ``scores`` (Spearman of each set), ``subsets`` (Spearman of each subset
    of each set), ``average5`` and ``average6`` (``None`` where a member is not scored), ``pairs`` (of each set),
    ``seconds`` (encoding and scoring), ``versions``, ``pearson`` (of each set), ``command``, ``seed`` (``None``:
    nothing here is random), ``model_fingerprint`` (of a torch model's weights or an exported one's graphs, else
    ``None``), ``data_fingerprint``.
    """

    model: str
    aggregation: str
    scores: dict[str, float]
    subsets: dict[str, dict[str, float]]
    average5: float | None
    average6: float | None
    pairs: dict[str, int]
    seconds: float
    versions: dict[str, str]
    pearson: dict[str, float]
    command: str
    seed: int | None
    model_fingerprint: str | None
    data_fingerprint: str


def sts_suite(
    model: Encoder | str | os.PathLike[str],
    sts_dir: Path | str | None = None,
    tasks: Sequence[str | STSTask] | None = None,
    aggregation: Aggregation = "all",
    batch_size: int = 64,
    model_name: str | None = None,
    show_progress_bar: bool = False,
    *,
    source: Path | str | None = None,
) -> STSReport:
    """Score a model on all STS sets in one encoding pass.

    Args:
        model: Anything with ``encode``, or what :func:`distilface_st.models.encoders.open_encoder` opens by name.
        sts_dir: Where named sets come from, see :func:`distilface_st.load_sts`.
        tasks: Names of sets, and sets. By default STS12 to STS16 and STS-B.
        aggregation: ``all``, ``mean`` or ``wmean``, see :func:`score_task`.
        batch_size: Sentences in one forward pass.
        model_name: What to call the model in the report; by default the name it was opened by, else its class.
        show_progress_bar: Whether the encoder shows its progress.
        source: Former name of ``sts_dir``; the next release drops it.

    Returns:
        The report, ready for JSON.

    Raises:
        InputError: As :func:`distilface_st.load_sts` and :class:`STSEvaluator` do.

    Example:
        ::

            sts_suite("distilface-mini", "data/sts")["average6"]
    """
    sts_dir = former_source(sts_dir, source)
    loaded = [task if isinstance(task, STSTask) else load_sts(task, sts_dir) for task in tasks or AVERAGE6]
    evaluator = STSEvaluator(loaded, aggregation, batch_size, show_progress_bar=show_progress_bar)
    if isinstance(model, str | os.PathLike):
        model_name = model_name or str(model)
        model = open_encoder(model)
    start = time.perf_counter()
    found = evaluator.score(model)
    seconds = time.perf_counter() - start
    scores = {score.label: score.total.spearman * 100 for score in found}
    average = averages(scores)
    fingerprint = None
    if isinstance(model, nn.Module):
        fingerprint = model_fingerprint(model)
    elif hasattr(model, "manifest"):  # an EdgeEncoder has graphs
        fingerprint = encoder_fingerprint(model)
    return STSReport(
        model=model_name or type(model).__name__,
        aggregation=aggregation,
        scores=scores,
        subsets={s.label: {name: part.spearman * 100 for name, part in s.subsets.items()} for s in found},
        average5=average["average5"],
        average6=average["average6"],
        pairs={task.label: len(task) for task in loaded},
        seconds=round(seconds, 3),
        versions=versions(),
        pearson={score.label: score.total.pearson * 100 for score in found},
        command=command(),
        seed=None,
        model_fingerprint=fingerprint,
        data_fingerprint=text_fingerprint(task.fingerprint for task in loaded),
    )
