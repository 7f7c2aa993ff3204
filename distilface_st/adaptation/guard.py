"""Whether a model still judges everyday sentences as it did before it learned from a special text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from ..datasets.sts import load_sts
from ..evaluation.sts import STSEvaluator
from ..models.encoders import Encoder, unit_embeddings
from .everyday import JUDGED

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_STS_LOSS = 1.0
LEAST_AGREEMENT = 95.0


@dataclass(frozen=True)
class Guard:
    """A general ability that training must keep: STS-B dev where it is at hand, else agreement with the start."""

    name: str
    start: float
    least: float
    judged: np.ndarray
    sts: STSEvaluator | None = None

    @classmethod
    def of(cls, model: Encoder, sts_dir: str | Path | None = None) -> Guard:
        """The guard of a model before training."""
        if sts_dir is not None:
            sts = STSEvaluator(load_sts("STS-B", sts_dir, split="dev"), write_csv=False)
            start = sts.score(model)[0].total.spearman * 100
            return cls("STS-B dev, Spearman x 100", start, start - LARGEST_STS_LOSS, np.empty(0), sts)
        return cls("agreement on everyday sentences", 100.0, LEAST_AGREEMENT, judge(model))

    def score(self, model: Encoder) -> float:
        """Spearman x 100: on STS-B dev, or between this model's similarities of everyday sentences and the start's."""
        if self.sts is not None:
            return float(self.sts.score(model)[0].total.spearman * 100)
        return agreement(self.judged, judge(model))


def judge(model: Encoder) -> np.ndarray:
    """The model's embeddings of the everyday sentences that the guard judges by, of length 1."""
    return unit_embeddings(model, JUDGED, batch_size=64)


def agreement(before: np.ndarray, after: np.ndarray) -> float:
    """Spearman x 100 between the similarities of all pairs of sentences, from two embeddings of length 1 of each."""
    pairs = np.triu_indices(len(before), 1)
    return float(spearmanr((before @ before.T)[pairs], (after @ after.T)[pairs]).statistic * 100)
