"""What the evaluators share: names of metrics, the CSV that grows by a line an evaluation, and the model card."""

from __future__ import annotations

import csv
import logging
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sentence_transformers.base.evaluation import BaseEvaluator
from typing_extensions import override

from ..errors import InputError

if TYPE_CHECKING:
    from ..models.encoders import Encoder

logger = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """The metrics, without the evaluator's name, and what else the CSV shall hold."""

    metrics: dict[str, float]
    details: dict[str, float]


class MetricsEvaluator(BaseEvaluator):
    """An evaluator of several metrics: subclasses find them, this class puts its name before them and writes them down.

    The CSV is ``KIND_NAME_results.csv`` in the output folder, and ``primary_metric`` is given without the name.
    """

    def __init__(
        self, kind: str, name: str, primary_metric: str, batch_size: int, write_csv: bool, show_progress_bar: bool
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name = name
        self._prefix = f"{name}_" if name else ""
        self.primary_metric = f"{self._prefix}{primary_metric}"
        self.batch_size = batch_size
        self.write_csv = write_csv
        self.show_progress_bar = show_progress_bar
        self.csv_file = "_".join(part for part in (kind, name, "results.csv") if part)

    @override
    def __call__(  # type: ignore[override]
        self, model: Encoder, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        found, details = self.evaluate(model)
        metrics = {f"{self._prefix}{key}": value for key, value in found.items()}
        best = metrics[cast("str", self.primary_metric)]
        logger.info("%s = %.4f after epoch %s, step %s: %s", self.primary_metric, best, epoch, steps, metrics)
        if output_path is not None and self.write_csv:
            append_csv(Path(output_path) / self.csv_file, {"epoch": epoch, "steps": steps, **metrics, **details})
        if hasattr(model, "model_card_data"):
            self.store_metrics_in_model_card_data(cast("Any", model), metrics, epoch, steps)
        return metrics

    @abstractmethod
    def evaluate(self, model: Encoder) -> Evaluation:
        """Score the model, and write nothing."""


def append_csv(path: Path, row: dict[str, Any]) -> None:
    """Append a row to a CSV file of the same columns, which is made with a header where it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    if not is_new:
        with path.open(newline="", encoding="utf-8") as file:
            if next(csv.reader(file), []) != list(row):
                raise InputError(f"{path} has other columns than this evaluation: use another output folder or name.")
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)
