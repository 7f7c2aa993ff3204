"""Who looks on while a sweep runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records import TrialRecord


class SweepWatcher:
    """Is told what happens; this one does nothing about it."""

    def trials_changed(self, trials: list[TrialRecord]) -> None:
        """A trial began or ended; these are all there are."""

    def trial_at(self, number: int, step: int, score: float | None = None) -> None:
        """A running trial finished a step, or got a score there."""
