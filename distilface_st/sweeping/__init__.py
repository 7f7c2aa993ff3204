"""Hyperparameter search around our own training function: a space and a plan in, ranked points and a report out."""

from __future__ import annotations

from .checks import checked
from .local import run_sweep
from .plan import SweepPlan
from .space import Choice, Range, Space
from .space_file import paper_space, read_space

__all__ = ["Choice", "Range", "Space", "SweepPlan", "checked", "paper_space", "read_space", "run_sweep"]
