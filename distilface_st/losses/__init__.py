"""Losses for unsupervised contrastive training, and for distillation."""

from .distillation import DistillationLoss
from .simcse import SimCSELoss

__all__ = ["DistillationLoss", "SimCSELoss"]
