"""``distilface sweep``: search the settings of a training run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..shipped import named_folder
from ._common import MODEL_HELP, Device, StsDir, console
from ._training import EvalFile, EvaluateEvery, training_evaluator

if TYPE_CHECKING:
    from ..sweeping.records import PointRecord


def sweep(
    source: Annotated[str, typer.Argument(metavar="SENTENCES", help="Text, as for train.")],
    output: Annotated[Path, typer.Option(help="Folder of the sweep; the same command goes on with it.")],
    base: Annotated[str, typer.Option(help=f"Encoder to start from. {MODEL_HELP}")],
    space: Annotated[Path | None, typer.Option(help="TOML file: a list or a range for each searched field.")] = None,
    preset: Annotated[str | None, typer.Option(help="Instead of --space: paper, what the paper tried.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of each trial.")] = None,
    evaluate_every: EvaluateEvery = None,
    sampler: Annotated[str, typer.Option(help="grid, one-at-a-time, random or tpe.")] = "one-at-a-time",
    trials: Annotated[int, typer.Option(min=1, help="Points that random and tpe try.")] = 30,
    pruner: Annotated[str, typer.Option(help="Stop hopeless trials: none, median or hyperband.")] = "none",
    seeds: Annotated[int, typer.Option(min=1, help="Run each point with this many seeds.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="First seed, and the sampler's.")] = 42,
    sts_dir: StsDir = None,
    all_sets: Annotated[
        bool, typer.Option("--all-sets", help="Also score STS12-16 and STS-B test; STS-B dev alone decides.")
    ] = False,
    eval_file: EvalFile = None,
    device: Device = None,
) -> None:
    """Search the settings of a training run; finished trials are kept, and a stopped one goes on."""
    from ..datasets.sentences import load_sentences
    from ..sweeping import Space, SweepPlan, checked, paper_space, read_space, run_sweep
    from ..sweeping.plan import check_plan, encoder_depth
    from ..sweeping.problems import Problems
    from ..training import TrainingConfig, TrainingInterrupted
    from ._progress import quiet_libraries

    quiet_libraries()
    if (space is None) == (preset is None):
        raise InputError("Give --space FILE or --preset paper: one of them.")
    if preset not in (None, "paper"):
        raise InputError(f"There is no preset {preset!r}: there is paper.")
    problems = Problems()
    encoder = named_folder(base)
    found: Space = Space(())
    settings: dict[str, object] = {}
    listed: tuple[int, ...] = ()
    if space is not None:
        found, settings, listed = read_space(space, problems)
    elif depth := encoder_depth(encoder, problems):
        found = paper_space(depth)
    config = TrainingConfig(encoder=encoder)
    given = {"steps": steps, "evaluate_every": evaluate_every}
    with problems.collected():
        changes = settings | {name: value for name, value in given.items() if value is not None}
        config = replace(config, **changes)  # type: ignore[arg-type]
    plan = None
    with problems.collected():
        data, evaluator = training_evaluator(load_sentences(source), sts_dir, all_sets, eval_file)
        chosen = listed or tuple(range(seed, seed + seeds))
        plan = SweepPlan(found, config, data, evaluator, output, sampler, trials, chosen, pruner, seed, device)
    if plan is not None:
        check_plan(plan, problems)
    problems.check()
    assert plan is not None
    try:
        points = run_sweep(checked(plan))
    except TrainingInterrupted:
        console().print(f"Stopped; everything is in {output}, and the same command goes on.")
        raise typer.Exit(130) from None
    _show(points, plan.score_name, output)


def _show(points: list[PointRecord], score: str, output: Path) -> None:
    from rich.table import Table

    out = console()
    if not points:
        out.print(f"No trial gave a score: {output / 'trials.csv'} says why.", style="yellow")
        return
    table = Table(title=f"Best points by {score}")
    for name in (*points[0].point, "seeds", score, "spread"):
        table.add_column(name)
    for point in points[:10]:
        numbers = (str(len(point.values)), f"{point.mean:.2f}", f"{point.spread:.2f}")
        table.add_row(*map(str, point.point.values()), *numbers, style="bold green" if point is points[0] else None)
    out.print(table)
    out.print(f"trials: {output / 'trials.csv'}   best model: {output / 'best'}")
