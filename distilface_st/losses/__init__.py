"""Training objectives, one a file."""

from .simcse import SimCSELoss

__all__ = ["SimCSELoss"]
