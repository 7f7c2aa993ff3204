"""A sweep while it runs: a live table on a terminal; silence in a pipe."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from ..sweep import SweepWatcher
from ..sweep.records import by_configuration, ranked
from ._common import console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from ..sweep import SweepPlan
    from ..sweep.records import ConfigurationRecord, TrialRecord


class SweepView(SweepWatcher):
    """How far a sweep is, its best configurations, and the trials that run."""

    def __init__(self, plan: SweepPlan) -> None:
        from rich.live import Live

        self._plan = plan
        self._total = plan.total
        self._trials: list[TrialRecord] = []
        self._running: dict[int, tuple[int, float | None]] = {}
        self._begun = time.monotonic()
        self._ended_before: int | None = None
        self._live = Live(get_renderable=self.render, console=console(), refresh_per_second=4, transient=True)

    def __enter__(self) -> SweepView:
        if sys.stderr.isatty():
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @override
    def trials_changed(self, trials: list[TrialRecord]) -> None:
        self._trials = trials
        ended = {trial.number for trial in trials if trial.outcome}
        self._running = {number: at for number, at in self._running.items() if number not in ended}
        self._ended_before = len(ended) if self._ended_before is None else self._ended_before

    @override
    def trial_at(self, number: int, step: int, score: float | None = None) -> None:
        self._running[number] = (step, self._running.get(number, (0, None))[1] if score is None else score)

    def render(self) -> RenderableType:
        """What is shown now."""
        from rich.console import Group

        plan = self._plan
        configurations = ranked(by_configuration(self._trials, len(plan.seeds)), plan.evaluator.greater_is_better)
        table = configurations_table(configurations[:8], plan.score_name) if configurations else ""
        return Group(self._headline(), *self._running_lines(), table)

    def _headline(self) -> str:
        counts = Counter(trial.status for trial in self._trials if trial.outcome)
        ended, total = counts.total(), max(self._total, len(self._trials))
        statuses = ", ".join(f"{count} {status}" for status, count in counts.items())
        line = f"[bold]{ended} of {total} trials[/]{': ' + statuses if statuses else ''}"
        new = ended - (self._ended_before or 0)
        if new >= 1 and ended < total:
            minutes = (time.monotonic() - self._begun) / new * (total - ended) / 60
            line += f"   [dim]about {minutes:,.0f} minutes left[/]"
        return line

    def _running_lines(self) -> Iterator[str]:
        trials = {trial.number: trial for trial in self._trials}
        for number, (step, score) in sorted(self._running.items()):
            line = f"trial {number}: step {step}" + ("" if score is None else f", {score:.2f}")
            if trial := trials.get(number):
                values = " ".join(f"{name} {_short(label)}" for name, label in trial.configuration.items())
                line += f"   {values} seed {trial.seed}"
            yield f"[dim]{line}[/]"


def configurations_table(configurations: list[ConfigurationRecord], score: str) -> Any:
    """Configurations as a table, the first one highlighted."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    several = any(one.wanted > 1 for one in configurations)
    table = Table(title=f"Best configurations by {score}", box=SIMPLE_HEAD, pad_edge=False)
    for name in configurations[0].configuration:
        table.add_column(name.replace("_", " "))
    for name in (score, *(("std", "seeds") if several else ())):
        table.add_column(name, justify="right")
    for one in configurations:
        numbers = [f"{one.mean:.2f}", *([f"{one.std:.2f}", str(len(one.values))] if several else [])]
        style = "bold green" if one is configurations[0] else None
        table.add_row(*map(_short, one.configuration.values()), *numbers, style=style)
    return table


def _short(label: Any) -> str:
    return f"{label:.4g}" if isinstance(label, float) else str(label)
