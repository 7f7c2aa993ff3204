"""Semantic textual similarity: correlation of cosine similarity with people's scores."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
from sentence_transformers.base.evaluation import BaseEvaluator
from torch import nn

from ..datasets.sts import AVERAGE6, STSTask, load_sts
from ..errors import InputError
from ..models.fingerprint import model_fingerprint
from ..utils.provenance import command, text_fingerprint, versions
from .correlation import AVERAGES, averages, check_aggregation, score_task
from .encoding import append_csv, encode_distinct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .correlation import Aggregation, TaskScore
    from .encoding import AnyEncoder

logger = logging.getLogger(__name__)


def distinct_labels(tasks: STSTask | Sequence[STSTask]) -> tuple[STSTask, ...]:
    """The tasks as a tuple.

    Raises:
        InputError: None, or two of the same label.
    """
    tasks = (tasks,) if isinstance(tasks, STSTask) else tuple(tasks)
    labels = [task.label for task in tasks]
    if not tasks or len(set(labels)) < len(labels):
        raise InputError(f"STS sets must be one or more, each once; these are {', '.join(labels) or 'none'}.")
    return tasks


class STSEvaluator(BaseEvaluator):
    """Scores a model on one or more STS sets, encoding each distinct sentence of all of them once.

    The protocol is SimCSE's (Gao, Yao, Chen, 2021, appendix B) and the paper's: cosine similarity, whatever similarity
    function the model names; sentences cut only at the model's own ``max_seq_length``.

    Metrics, all from -1 to 1: ``TASK_spearman_cosine`` and ``TASK_pearson_cosine`` for each set, TASK being its label
    (``STS12``, ``STS-B-dev``, ...), and for several sets ``average_spearman_cosine`` over all of them, with
    ``average5_spearman_cosine`` and ``average6_spearman_cosine`` where all their members are there. A ``name`` takes
    TASK's place for a single set (``sts-dev_spearman_cosine``) and is put before the keys of several.

    Args:
        tasks: The sets.
        aggregation: ``all``, ``mean`` or ``wmean``, see :func:`distilface_st.evaluation.correlation.score_task`.
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
        super().__init__()  # type: ignore[no-untyped-call]
        self.tasks = distinct_labels(tasks)
        check_aggregation(self.tasks, aggregation)
        self.aggregation = aggregation
        self.batch_size = batch_size
        self.write_csv = write_csv
        self.show_progress_bar = show_progress_bar
        self.csv_file = f"sts_evaluation{f'_{name}' if name else ''}_results.csv"
        self._prefix = name or (self.tasks[0].label if len(self.tasks) == 1 else "")
        self.name = self._prefix or "STS"
        self.primary_metric = self._metric(self._primary(primary))

    def __call__(  # type: ignore[override]
        self, model: AnyEncoder, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Score the model, write the CSV and note the metrics in the model card.

        Args:
            model: The model.
            output_path: Folder of the CSV; ``None`` writes none.
            epoch: Epoch, for the CSV.
            steps: Step, for the CSV.

        Returns:
            The metrics.

        Raises:
            InputError: Zero or non-finite embeddings, or similarities that are all the same.
        """
        found = self.score(model)
        metrics = self._metrics(found)
        logger.info("STS after epoch %s, step %s: %s = %.4f", epoch, steps, self.primary_metric, self._best_of(metrics))
        if output_path is not None and self.write_csv:
            subsets = {
                f"{score.label}/{name}_{kind}_cosine": getattr(part, kind)
                for score in found
                for name, part in score.subsets.items()
                for kind in ("spearman", "pearson")
            }
            append_csv(Path(output_path) / self.csv_file, {"epoch": epoch, "steps": steps, **metrics, **subsets})
        self.store_metrics_in_model_card_data(cast("Any", model), metrics, epoch, steps)
        return metrics

    def score(self, model: AnyEncoder) -> list[TaskScore]:
        """Score the model on each set, in the order given, subsets included.

        Raises:
            InputError: As calling the evaluator does.
        """
        sentences = (text for task in self.tasks for text in (*task.sentences1, *task.sentences2))
        rows, vectors = encode_distinct(model, sentences, self.batch_size, self.show_progress_bar)
        return [score_task(task, _cosines(task, rows, vectors), self.aggregation) for task in self.tasks]

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this evaluator."""
        return {"aggregation": self.aggregation, "pairs": {task.label: len(task) for task in self.tasks}}

    @property
    def description(self) -> str:
        """What the model card calls it."""
        return "Semantic Similarity"

    def _primary(self, primary: str | None) -> str:
        labels = [task.label for task in self.tasks]
        several = len(labels) > 1
        known = [name for name, members in AVERAGES.items() if several and set(members) <= set(labels)]
        choices = [*labels, *(["average"] if several else []), *known]
        if primary is None:
            return next((name for name in ("STS-B-dev", "STS-B") if name in labels), choices[len(labels) * several])
        if primary not in choices:
            raise InputError(f"{primary!r} is no metric of this evaluation: choose from {', '.join(choices)}.")
        return primary

    def _metric(self, label: str, kind: str = "spearman") -> str:
        parts = [self._prefix, f"{kind}_cosine"] if len(self.tasks) == 1 else [self._prefix, label, f"{kind}_cosine"]
        return "_".join(part for part in parts if part)

    def _metrics(self, found: list[TaskScore]) -> dict[str, float]:
        metrics = {}
        for score in found:
            metrics[self._metric(score.label)] = score.total.spearman
            metrics[self._metric(score.label, "pearson")] = score.total.pearson
        if len(found) > 1:
            scores = {score.label: score.total.spearman for score in found}
            metrics[self._metric("average")] = float(np.mean(list(scores.values())))
            metrics |= {self._metric(name): value for name, value in averages(scores).items() if value is not None}
        return metrics

    def _best_of(self, metrics: dict[str, float]) -> float:
        return metrics[cast("str", self.primary_metric)]


class STSReport(TypedDict):
    """What :func:`sts_suite` reports; scores are correlations x 100.

    Keys: ``model`` (its name), ``aggregation``, ``scores`` (Spearman of each set), ``subsets`` (Spearman of each subset
    of each set), ``average5`` and ``average6`` (``None`` where a member is not scored), ``pairs`` (of each set),
    ``seconds`` (encoding and scoring), ``versions``, ``pearson`` (of each set), ``command``, ``seed`` (``None``:
    nothing here is random), ``model_fingerprint`` (``None`` where it is no torch module), ``data_fingerprint``.
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
    model: AnyEncoder,
    source: Path | str | None = None,
    tasks: Sequence[str | STSTask] | None = None,
    aggregation: Aggregation = "all",
    batch_size: int = 64,
    model_name: str | None = None,
    show_progress_bar: bool = False,
) -> STSReport:
    """Score a model on all STS sets in one encoding pass.

    Args:
        model: Anything with ``encode``.
        source: Where named sets come from, see :func:`distilface_st.datasets.sts.load_sts`.
        tasks: Names of sets, and sets. By default STS12 to STS16 and STS-B.
        aggregation: ``all``, ``mean`` or ``wmean``, see :func:`distilface_st.evaluation.correlation.score_task`.
        batch_size: Sentences in one forward pass.
        model_name: What to call the model in the report; by default its class.
        show_progress_bar: Whether the encoder shows its progress.

    Returns:
        The report, ready for JSON.

    Raises:
        InputError: As :func:`load_sts` and :class:`STSEvaluator` do.
    """
    loaded = [task if isinstance(task, STSTask) else load_sts(task, source) for task in tasks or AVERAGE6]
    evaluator = STSEvaluator(loaded, aggregation, batch_size, show_progress_bar=show_progress_bar)
    start = time.perf_counter()
    found = evaluator.score(model)
    seconds = time.perf_counter() - start
    scores = {score.label: score.total.spearman * 100 for score in found}
    average = averages(scores)
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
        model_fingerprint=model_fingerprint(model) if isinstance(model, nn.Module) else None,
        data_fingerprint=text_fingerprint(task.fingerprint for task in loaded),
    )


def _cosines(task: STSTask, rows: dict[str, int], vectors: np.ndarray) -> np.ndarray:
    first = vectors[[rows[sentence] for sentence in task.sentences1]]
    second = vectors[[rows[sentence] for sentence in task.sentences2]]
    return np.asarray(np.einsum("ij,ij->i", first, second))
