"""``distilface sweep``: search the settings of a training run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..training.config import TrainingConfig
from ._common import MODEL_HELP, Device, StsDir, console, valid_text
from ._options import config_options
from ._training import SOURCE_HELP, Columns, EvalFile, Limit, training_data, training_evaluator

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..datasets.text_data import TextData
    from ..sweep import SweepPlan, SweepWatcher
    from ..sweep.records import ConfigurationRecord

_search = partial(typer.Option, rich_help_panel="Search")
_runner = partial(typer.Option, rich_help_panel="Runner")


@config_options(TrainingConfig, only=("eval_steps", "views"))
def sweep(
    source: Annotated[str, typer.Argument(metavar="SENTENCES", help=SOURCE_HELP)],
    output: Annotated[
        Path, typer.Option(help="Folder of the sweep; the same command goes on with it.", callback=valid_text)
    ],
    base: Annotated[str, typer.Option(help=f"Encoder to start from. {MODEL_HELP}")],
    given: dict[str, Any],
    *,
    space: Annotated[Path | None, _search(help="TOML file: a list or a range for each searched setting.")] = None,
    preset: Annotated[str | None, _search(help="Instead of --space: paper, what the paper tried.")] = None,
    sampler: Annotated[str, _search(help="grid, one-at-a-time, random or tpe.")] = "one-at-a-time",
    trials: Annotated[int, _search(min=1, help="Configurations that random and tpe try.")] = 30,
    pruner: Annotated[
        str, _search(help="Stop hopeless trials at an evaluation: none, median or hyperband (on Ray ASHA, for both).")
    ] = "none",
    seeds: Annotated[int, _search(min=1, help="Run each configuration with this many seeds.")] = 1,
    seed: Annotated[int, _search(min=0, help="First seed of the trials, and the sampler's.")] = 42,
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", "--steps", min=0, help="Optimizer steps of each trial.")
    ] = None,
    column: Columns = None,
    limit: Limit = None,
    sts_dir: StsDir = None,
    all_sets: Annotated[
        bool,
        typer.Option(
            "--all-sets",
            help="Also score each trial's kept model on STS12-16 and STS-B test; STS-B dev alone decides.",
            rich_help_panel="Run",
        ),
    ] = False,
    eval_file: EvalFile = None,
    device: Device = None,
    runner: Annotated[str, _runner(help="local: one trial at a time; ray: on a Ray cluster (extra ray).")] = "local",
    ray_address: Annotated[str, _runner(help="The cluster's address; local starts one on this machine.")] = "local",
    workers: Annotated[int, _runner(min=1, help="Trials at once on Ray.")] = 2,
    cpus_per_trial: Annotated[int, _runner(min=1, help="Cores for each on Ray.")] = 1,
    gpus_per_trial: Annotated[float, _runner(min=0, help="GPUs for each on Ray, or a part of one.")] = 0,
) -> None:
    """Search the settings of a training run, and report on them.

    Finished trials are kept: the same command goes on with a sweep that was stopped, and started twice, both share it.
    """
    from ..sweep import run_sweep, run_sweep_on_ray, write_report
    from ..sweep.store import SWEEP_FOLDER
    from ..training.trainer import TrainingInterrupted
    from ..utils.files import check_output
    from ._progress import quiet_libraries
    from ._sweep_view import SweepView, configurations_table

    if max_steps == 0:
        raise InputError("--max-steps 0 trains nothing: `distilface poolings` compares poolings without training.")
    if runner not in ("local", "ray"):
        raise InputError(f"There is no runner {runner!r}: there are local and ray.")
    if (space is None) == (preset is None):
        raise InputError("Give --space FILE or --preset paper: one of them.")
    if preset not in (None, "paper"):
        raise InputError(f"There is no preset {preset!r}: there is paper.")
    check_output(output, SWEEP_FOLDER)
    quiet_libraries()
    train_arguments = [source, *(part for name in column or [] for part in ("--column", name))]
    for name, value in (("--limit", limit), ("--sts-dir", sts_dir), ("--eval-file", eval_file)):
        train_arguments += [name, str(value)] if value is not None else []
    plan = _plan(
        space,
        given | ({"max_steps": max_steps} if max_steps else {}),
        partial(training_data, source, column=column, limit=limit),
        {"sts_dir": sts_dir, "eval_file": eval_file},
        all_sets,
        encoder=base,
        seeds=tuple(range(seed, seed + seeds)),
        output=output,
        sampler=sampler,
        trials=trials,
        pruner=pruner,
        sampler_seed=seed,
        device=device,
        train_arguments=tuple(train_arguments),
    )
    run: Callable[[SweepPlan, SweepWatcher], list[ConfigurationRecord]] = run_sweep
    if runner == "ray":
        per_trial: dict[str, Any] = {"cpus_per_trial": cpus_per_trial, "gpus_per_trial": gpus_per_trial}
        run = partial(run_sweep_on_ray, address=ray_address, workers=workers, **per_trial)
    out = console()
    try:
        with SweepView(plan) as view:
            configurations = run(plan, view)
    except TrainingInterrupted:
        out.print(f"Stopped; everything is in {output}, and the same command goes on.")
        raise typer.Exit(130) from None
    page = write_report(output)
    if not configurations:
        raise InputError(f"No trial gave a score: {output / 'trials.csv'} says why.")
    out.print(configurations_table(configurations[:10], plan.score_name))
    out.print(f"report: {page}   trials: {output / 'trials.csv'}   best model: {output / 'best'}")


def sweep_report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a sweep, of one that still runs as well.")],
) -> None:
    """Draw the figures of a sweep and put them into one page, report.html."""
    from ..sweep import write_report

    console().print(f"report: {write_report(folder)}")


def _plan(
    space_file: Path | None,
    given: dict[str, Any],
    load_data: Callable[..., TextData],
    scoring: dict[str, Path | None],
    all_sets: bool,
    *,
    encoder: str,
    seeds: tuple[int, ...],
    **options: Any,
) -> SweepPlan:
    """The sweep that the options name; everything that is wrong with it is said at once."""
    from ..datasets.sts import AVERAGE6, load_sts
    from ..evaluation.sts import STSEvaluator
    from ..sweep import Problems, Space, SweepPlan, paper_space, read_space
    from ..sweep.plan import check_plan, num_hidden_layers

    problems = Problems()
    space, config = Space(()), TrainingConfig.preset("paper-default", encoder=encoder)
    settings: dict[str, Any] = {}
    listed: tuple[int, ...] = ()
    data = evaluator = final = None
    with problems.collected():
        if space_file is None:
            space = paper_space(num_hidden_layers(encoder))
        else:
            space, settings, listed = read_space(space_file, problems)
    with problems.collected():
        config = replace(config, **settings | given)
    with problems.collected():
        data = load_data(views=config.views)
    with problems.collected():
        if all_sets and not scoring["sts_dir"]:
            raise InputError("--all-sets needs --sts-dir.")
        if all_sets:
            final = STSEvaluator([load_sts(name, scoring["sts_dir"]) for name in AVERAGE6], write_csv=False)
        if data is not None or any(scoring.values()):
            data, evaluator = training_evaluator(data, all_sets=False, **scoring)
    read: dict[str, Any] = {"data": data, "evaluator": evaluator, "final": final}
    plan = SweepPlan(space, config, seeds=listed or seeds, **read, **options)
    if space.dimensions:
        check_plan(plan, problems)
    else:  # an unreadable file, whose settings nobody knows
        with problems.collected():
            num_hidden_layers(encoder)
    problems.check()
    return plan
