"""Alignment and uniformity of embeddings: quality without scored pairs."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from sentence_transformers.util import batch_to_device
from typing_extensions import override

from ..errors import InputError
from ..models.encoders import Encoder, distinct_embeddings
from ..utils.chunks import chunked
from .base import Evaluation, MetricsEvaluator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentence_transformers import SentenceTransformer

_BLOCK_ROWS = 1024


def alignment(first: np.ndarray, second: np.ndarray, alpha: float = 2.0) -> float:
    """Mean distance between positives, to the power alpha; 0 is best (Wang & Isola, 2020, equation 1).

    ``first`` and ``second`` hold rows of length 1, shape (n, d); a row and its positive have the same index.
    """
    distances = np.linalg.norm(first.astype(np.float64) - second, axis=1)
    return float(np.mean(distances**alpha))


def uniformity(vectors: np.ndarray, t: float = 2.0) -> float:
    """Logarithm of the mean Gaussian potential over all pairs of rows; less is better (Wang & Isola, 2020, equation 2).

    ``vectors`` are two or more rows of length 1, shape (n, d). Memory grows with n, not with its square.
    """
    n = len(vectors)
    total = 0.0
    for start in range(0, n, _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS]
        squared = np.clip(2 - 2 * (block @ vectors[start:].T).astype(np.float64), 0, None)
        above_diagonal = np.arange(n - start) > np.arange(len(block))[:, None]
        total += float(np.exp(-t * squared)[above_diagonal].sum())
    return float(np.log(total / (n * (n - 1) / 2)))


class AlignmentUniformityEvaluator(MetricsEvaluator):
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

    description = "Alignment and Uniformity"

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
        super().__init__("alignment_uniformity", name, "alignment_uniformity", batch_size, write_csv, False)
        self.pairs = list(pairs or ())
        self.sentences = list(dict.fromkeys(sentences or chain.from_iterable(self.pairs)))
        if len(self.sentences) < 2:
            raise InputError(f"Uniformity needs two distinct sentences or more; there are {len(self.sentences)}.")
        self.alpha = alpha
        self.t = t
        self.seed = seed

    @override
    def evaluate(self, model: Encoder) -> Evaluation:
        texts = [*self.sentences, *chain.from_iterable(self.pairs)]
        rows, vectors = distinct_embeddings(model, texts, self.batch_size)
        if self.pairs:
            first, second = (vectors[[rows[text] for text in side]] for side in zip(*self.pairs, strict=True))
        else:
            first, second = self._dropout_views(cast("SentenceTransformer", model))
        aligned = alignment(first, second, self.alpha)
        uniform = uniformity(vectors[: len(self.sentences)], self.t)
        found = {"alignment": aligned, "uniformity": uniform, "alignment_uniformity": -(aligned + uniform)}
        return Evaluation(found, {})

    @override
    def get_config_dict(self) -> dict[str, Any]:
        positives = f"{len(self.pairs)} pairs" if self.pairs else "dropout views"
        return {"positives": positives, "sentences": len(self.sentences), "alpha": self.alpha, "t": self.t}

    def _dropout_views(self, model: SentenceTransformer) -> tuple[np.ndarray, np.ndarray]:
        """Encode each sentence twice in training mode; the training's random state and mode are as before, after."""
        if not hasattr(model, "train"):
            raise InputError("The model has no dropout, so it gives no two views of a sentence: give pairs.")
        sentences = sorted(self.sentences, key=len)
        was_training = model.training
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(self.seed)
            model.train()
            try:
                first, second = (distinct_embeddings(_Dropout(model), sentences, self.batch_size)[1] for _ in "12")
            finally:
                model.train(was_training)
        if np.array_equal(first, second):
            raise InputError("The model has no active dropout, so its two views are the same: give pairs.")
        return first, second


class _Dropout:
    """Encodes in the mode that the model is in, where ``SentenceTransformer.encode`` switches dropout off."""

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model

    def encode(self, sentences: list[str], /, *, batch_size: int, **_: Any) -> np.ndarray:
        prompt = self.model.prompts.get(self.model.default_prompt_name or "")
        parts = []
        for chunk in chunked(sentences, batch_size):
            features = batch_to_device(self.model.preprocess(chunk, prompt=prompt), self.model.device)
            parts.append(self.model(features)["sentence_embedding"].float().cpu().numpy())
        return np.concatenate(parts)
