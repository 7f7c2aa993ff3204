"""Alignment and uniformity of embeddings: quality without scored pairs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.util import batch_to_device

from ..errors import InputError
from .encoding import append_csv, encode_distinct, unit_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

_BLOCK_ROWS = 1024


def alignment(first: np.ndarray, second: np.ndarray, alpha: float = 2.0) -> float:
    """Mean distance between positives, to the power alpha; 0 is best (Wang & Isola, 2020, equation 1).

    Args:
        first: Rows of length 1, shape (n, d).
        second: Their positives, shape (n, d).
        alpha: The power.
    """
    distances = np.linalg.norm(first.astype(np.float64) - second, axis=1)
    return float(np.mean(distances**alpha))


def uniformity(vectors: np.ndarray, t: float = 2.0) -> float:
    """Logarithm of the mean Gaussian potential over all pairs of rows; less is better (Wang & Isola, 2020, equation 2).

    Args:
        vectors: Rows of length 1, shape (n, d), n at least 2. Memory grows with n, not with its square.
        t: The Gaussian's sharpness.
    """
    n = len(vectors)
    total = 0.0
    for start in range(0, n, _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS]
        squared = np.clip(2 - 2 * (block @ vectors[start:].T).astype(np.float64), 0, None)
        above_diagonal = np.arange(n - start) > np.arange(len(block))[:, None]
        total += float(np.exp(-t * squared)[above_diagonal].sum())
    return float(np.log(total / (n * (n - 1) / 2)))


class AlignmentUniformityEvaluator(BaseEvaluator):
    """Alignment and uniformity on the unit sphere (Wang & Isola, 2020), to choose checkpoints without scored pairs.

    Metrics, each after ``NAME_`` if there is a name: ``alignment`` of the positives and ``uniformity`` of the distinct
    sentences, both better when less, and ``alignment_uniformity``, minus their sum: the primary metric, better when
    greater.

    Args:
        pairs: Positives: sentences that belong together, such as neighbours in a text. Without them, a sentence's
            positive is itself under another dropout mask, as in unsupervised SimCSE.
        sentences: What uniformity is measured on; by default the sentences of ``pairs``.
        alpha: Power of the distance in alignment.
        t: Sharpness in uniformity.
        batch_size: Sentences in one forward pass.
        seed: Seed of the dropout masks, the same at every evaluation; the random state of the training is left alone.
        name: Put before the metrics' keys.
        write_csv: Whether to append the metrics to ``alignment_uniformity_NAME_results.csv`` in the output folder.

    Raises:
        InputError: Neither pairs nor sentences, or fewer than two distinct sentences.

    Example:
        ::

            evaluator = AlignmentUniformityEvaluator(pairs=[("It rained.", "The streets were wet."), ...])
            evaluator(model)["alignment_uniformity"]
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]] | None = None,
        sentences: Sequence[str] | None = None,
        alpha: float = 2.0,
        t: float = 2.0,
        batch_size: int = 64,
        seed: int = 0,
        name: str = "",
        write_csv: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pairs = list(pairs or ())
        self.sentences = list(dict.fromkeys(sentences or (text for pair in self.pairs for text in pair)))
        if len(self.sentences) < 2:
            raise InputError(f"Uniformity needs two distinct sentences or more; there are {len(self.sentences)}.")
        self.alpha = alpha
        self.t = t
        self.batch_size = batch_size
        self.seed = seed
        self.name = name
        self.write_csv = write_csv
        self.csv_file = f"alignment_uniformity{f'_{name}' if name else ''}_results.csv"
        self.primary_metric = f"{name}_alignment_uniformity" if name else "alignment_uniformity"

    def __call__(  # type: ignore[override]
        self, model: SentenceTransformer, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Measure the model, write the CSV and note the metrics in the model card.

        Args:
            model: The model.
            output_path: Folder of the CSV; ``None`` writes none.
            epoch: Epoch, for the CSV.
            steps: Step, for the CSV.

        Returns:
            The metrics.

        Raises:
            InputError: Zero or non-finite embeddings; no pairs and no active dropout.
        """
        paired = [text for pair in self.pairs for text in pair]
        rows, vectors = encode_distinct(cast("Any", model), [*self.sentences, *paired], self.batch_size)
        views = self._pairs(rows, vectors) if self.pairs else self._dropout_views(model)
        aligned = alignment(*views, alpha=self.alpha)
        uniform = uniformity(vectors[: len(self.sentences)], self.t)
        metrics = self.prefix_name_to_metrics(
            {"alignment": aligned, "uniformity": uniform, "alignment_uniformity": -(aligned + uniform)}, self.name
        )
        logger.info("Alignment %.4f, uniformity %.4f after epoch %s, step %s", aligned, uniform, epoch, steps)
        if output_path is not None and self.write_csv:
            append_csv(Path(output_path) / self.csv_file, {"epoch": epoch, "steps": steps, **metrics})
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this evaluator."""
        positives = f"{len(self.pairs)} pairs" if self.pairs else "dropout views"
        return {"positives": positives, "sentences": len(self.sentences), "alpha": self.alpha, "t": self.t}

    @property
    def description(self) -> str:
        """What the model card calls it."""
        return "Alignment and Uniformity"

    def _pairs(self, rows: dict[str, int], vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, second = ([rows[pair[side]] for pair in self.pairs] for side in (0, 1))
        return vectors[first], vectors[second]

    def _dropout_views(self, model: SentenceTransformer) -> tuple[np.ndarray, np.ndarray]:
        """Encode each sentence twice in training mode; the training's random state and mode are as before, after."""
        sentences = sorted(self.sentences, key=len)
        was_training = model.training
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(self.seed)
            model.train()
            try:
                first, second = (self._embed(model, sentences) for _ in range(2))
            finally:
                model.train(was_training)
        if np.array_equal(first, second):
            raise InputError("The model has no active dropout, so its two views are the same: give pairs.")
        return unit_rows(first, sentences), unit_rows(second, sentences)

    def _embed(self, model: SentenceTransformer, sentences: list[str]) -> np.ndarray:
        prompt = model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None
        parts = []
        for start in range(0, len(sentences), self.batch_size):
            features = model.preprocess(sentences[start : start + self.batch_size], prompt=prompt)
            output = model(batch_to_device(features, model.device))
            parts.append(output["sentence_embedding"].float().cpu().numpy())
        return np.concatenate(parts)
