"""A sweep while it runs: a live table on a terminal; silence in a pipe."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from ..sweep.records import points_of, ranked
from ..sweep.watching import SweepWatcher
from ._common import console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..sweep import SweepPlan
    from ..sweep.records import PointRecord, TrialRecord

_POINTS_SHOWN = 8


class SweepView(SweepWatcher):
    """How far a sweep is, its best points, and the trials that run.

    Args:
        plan: The sweep.
    """

    def __init__(self, plan: SweepPlan) -> None:
        from rich.live import Live

        self._plan = plan
        self._total = plan.total
        self._trials: list[TrialRecord] = []
        self._running: dict[int, tuple[int, float | None]] = {}
        self._begun = time.monotonic()
        self._ended_before: int | None = None
        self._live = Live(get_renderable=self.render, console=console(), refresh_per_second=4, transient=True)
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> SweepView:
        if self._shown:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def trials_changed(self, trials: list[TrialRecord]) -> None:
        """Take note."""
        self._trials = trials
        ended = {trial.number for trial in trials if trial.outcome}
        self._running = {number: at for number, at in self._running.items() if number not in ended}
        if self._ended_before is None:
            self._ended_before = len(ended)

    def trial_at(self, number: int, step: int, score: float | None = None) -> None:
        """Take note."""
        self._running[number] = (step, self._running.get(number, (0, None))[1] if score is None else score)

    def render(self) -> RenderableType:
        """What is shown now."""
        from rich.console import Group

        return Group(self._headline(), *(f"[dim]{line}[/]" for line in self._running_lines()), self._table())

    def _headline(self) -> str:
        counts: dict[str, int] = {}
        for trial in self._trials:
            counts[trial.status] = counts.get(trial.status, 0) + 1
        counts.pop("open", None)
        ended, total = sum(counts.values()), max(self._total, len(self._trials))
        told = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"[bold]{ended} of {total} trials[/]{': ' + told if told else ''}{self._left(ended, total)}"

    def _left(self, ended: int, total: int) -> str:
        new = ended - (self._ended_before or 0)
        if new < 1 or ended >= total:
            return ""
        seconds = (time.monotonic() - self._begun) / new * (total - ended)
        return f"   [dim]about {seconds / 60:,.0f} minutes left[/]"

    def _running_lines(self) -> list[str]:
        points = {trial.number: trial for trial in self._trials}
        lines = []
        for number, (step, score) in sorted(self._running.items()):
            trial = points.get(number)
            values = " ".join(f"{name} {_short(label)}" for name, label in trial.point.items()) if trial else ""
            told = "" if score is None else f", {score:.2f}"
            lines.append(f"trial {number}: step {step}{told}   {values}" + (f" seed {trial.seed}" if trial else ""))
        return lines

    def _table(self) -> RenderableType:
        plan = self._plan
        points = ranked(points_of(self._trials, len(plan.seeds)), plan.evaluator.greater_is_better)
        return points_table(points[:_POINTS_SHOWN], plan.score_name) if points else ""


def points_table(points: list[PointRecord], score: str) -> Any:
    """Points as a table, the first one highlighted."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    several = any(point.wanted > 1 for point in points)
    table = Table(title=f"Best points by {score}", box=SIMPLE_HEAD, pad_edge=False)
    for name in points[0].point:
        table.add_column(name.replace("_", " "))
    for name in (score, *(("spread", "seeds") if several else ())):
        table.add_column(name, justify="right")
    for point in points:
        numbers = [f"{point.mean:.2f}", *([f"{point.spread:.2f}", str(len(point.values))] if several else [])]
        style = "bold green" if point is points[0] else None
        table.add_row(*map(_short, point.point.values()), *numbers, style=style)
    return table


def _short(label: Any) -> str:
    return f"{label:.4g}" if isinstance(label, float) else str(label)
