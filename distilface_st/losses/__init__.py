"""Losses for unsupervised contrastive training, and for distillation."""

from .distillation import DistillationLoss
from .guided import GuidedLoss
from .simcse import SimCSELoss

__all__ = ["DistillationLoss", "GuidedLoss", "SimCSELoss"]
