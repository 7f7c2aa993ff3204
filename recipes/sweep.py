"""``distilface sweep``: search the settings of a training run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..errors import InputError
from ..pretrained import resolve_name
from ._common import MODEL_HELP, Device, StsDir, console
from ._training import Columns, EvalFile, EvaluateEvery, Limit, training_data, training_evaluator

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentence_transformers.base.evaluation import BaseEvaluator

    from ..datasets.text_data import TextData
    from ..sweep import SweepPlan, SweepWatcher
    from ..sweep.records import ConfigurationRecord

_SEARCH, _DATA, _RUN, _RUNNER = "Search", "Data", "Run", "Runner"


def sweep(
    source: Annotated[str, typer.Argument(metavar="SENTENCES", help="Text, as for train.")],
    output: Annotated[Path, typer.Option(help="Folder of the sweep; the same command goes on with it.")],
    base: Annotated[str, typer.Option(help=f"Encoder to start from. {MODEL_HELP}")],
    space: Annotated[
        Path | None,
        typer.Option(help="TOML file: a list or a range for each searched setting.", rich_help_panel=_SEARCH),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Instead of --space: paper, what the paper tried.", rich_help_panel=_SEARCH)
    ] = None,
    sampler: Annotated[
        str, typer.Option(help="grid, one-at-a-time, random or tpe.", rich_help_panel=_SEARCH)
    ] = "one-at-a-time",
    trials: Annotated[
        int, typer.Option(min=1, help="Configurations that random and tpe try.", rich_help_panel=_SEARCH)
    ] = 30,
    pruner: Annotated[
        str,
        typer.Option(
            help="Stop hopeless trials at an evaluation: none, median or hyperband (on Ray ASHA, for both).",
            rich_help_panel=_SEARCH,
        ),
    ] = "none",
    seeds: Annotated[
        int, typer.Option(min=1, help="Run each configuration with this many seeds.", rich_help_panel=_SEARCH)
    ] = 1,
    seed: Annotated[
        int, typer.Option(min=0, help="First seed of the trials, and the sampler's.", rich_help_panel=_SEARCH)
    ] = 42,
    steps: Annotated[int | None, typer.Option(min=0, help="Steps of each trial.")] = None,
    evaluate_every: EvaluateEvery = None,
    views: Annotated[
        str | None,
        typer.Option(help="Positives: dropout, neighbours or pairs, as for train.", rich_help_panel=_DATA),
    ] = None,
    column: Columns = None,
    limit: Limit = None,
    sts_dir: StsDir = None,
    all_sets: Annotated[
        bool,
        typer.Option(
            "--all-sets",
            help="Also score each trial's kept model on STS12-16 and STS-B test; STS-B dev alone decides.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    eval_file: EvalFile = None,
    device: Device = None,
    runner: Annotated[
        str,
        typer.Option(help="local: one trial at a time; ray: on a Ray cluster (extra ray).", rich_help_panel=_RUNNER),
    ] = "local",
    ray_address: Annotated[
        str, typer.Option(help="The cluster's address; local starts one on this machine.", rich_help_panel=_RUNNER)
    ] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Trials at once on Ray.", rich_help_panel=_RUNNER)] = 2,
    cpus_per_trial: Annotated[int, typer.Option(min=1, help="Cores for each on Ray.", rich_help_panel=_RUNNER)] = 1,
    gpus_per_trial: Annotated[
        float, typer.Option(min=0, help="GPUs for each on Ray, or a part of one.", rich_help_panel=_RUNNER)
    ] = 0,
) -> None:
    """Search the settings of a training run, and report on them.

    Finished trials are kept: the same command goes on with a sweep that was stopped, and started twice, both share it.
    """
    from ..sweep import run_sweep
    from ..training.train import TrainingInterrupted
    from ._progress import quiet_libraries
    from ._sweep_view import SweepView

    if steps == 0:
        raise InputError("--steps 0 trains nothing: `distilface poolings` compares poolings without training.")
    quiet_libraries()
    run: Callable[[SweepPlan, SweepWatcher], list[ConfigurationRecord]] = run_sweep
    if runner == "ray":
        from ..sweep import run_sweep_on_ray

        per_trial: dict[str, Any] = {"cpus_per_trial": cpus_per_trial, "gpus_per_trial": gpus_per_trial}
        run = partial(run_sweep_on_ray, address=ray_address, workers=workers, **per_trial)
    elif runner != "local":
        raise InputError(f"There is no runner {runner!r}: there are local and ray.")
    if (space is None) == (preset is None):
        raise InputError("Give --space FILE or --preset paper: one of them.")
    if preset not in (None, "paper"):
        raise InputError(f"There is no preset {preset!r}: there is paper.")
    plan = _plan(
        source,
        space,
        {"column": column, "limit": limit},
        {"sts_dir": sts_dir, "eval_file": eval_file, "all_sets": all_sets},
        {"steps": steps, "evaluate_every": evaluate_every, "views": views},
        tuple(range(seed, seed + seeds)),
        encoder=resolve_name(base),
        train_arguments=_train_arguments(source, column, limit, sts_dir, eval_file),
        output=output,
        sampler=sampler,
        trials=trials,
        pruner=pruner,
        sampler_seed=seed,
        device=device,
    )
    try:
        with SweepView(plan) as view:
            configurations = run(plan, view)
    except TrainingInterrupted:
        console().print(f"Stopped; everything is in {output}, and the same command goes on.")
        raise typer.Exit(130) from None
    _show(configurations, plan.score_name, output)


def _plan(
    source: str,
    space_file: Path | None,
    text: dict[str, Any],
    scoring: dict[str, Any],
    given: dict[str, Any],
    seeds: tuple[int, ...],
    *,
    encoder: str,
    **options: Any,
) -> SweepPlan:
    """The sweep that the options name; everything that is wrong with it is said at once."""
    from ..sweep import Problems, Space, SweepPlan, paper_space, read_space
    from ..sweep.plan import check_plan, num_hidden_layers
    from ..training.train import TrainingConfig

    problems = Problems()
    searched = Space(())
    settings: dict[str, Any] = {}
    listed: tuple[int, ...] = ()
    config, data, evaluator, final = TrainingConfig(encoder=encoder), None, None, None
    with problems.collected():
        if space_file is not None:
            searched, settings, listed = read_space(space_file, problems)
        else:
            searched = paper_space(num_hidden_layers(encoder))
    with problems.collected():
        config = replace(config, **settings | {name: value for name, value in given.items() if value})
    with problems.collected():
        data = training_data(source, config.views, **text)
    with problems.collected():
        final = _final_evaluator(scoring["sts_dir"]) if scoring.pop("all_sets") else None
        if data is not None or scoring["sts_dir"] or scoring["eval_file"]:
            data, evaluator = training_evaluator(cast("TextData", data), all_sets=False, **scoring)
    known = {"data": cast("TextData", data), "evaluator": cast("BaseEvaluator", evaluator), "final": final}
    plan = SweepPlan(searched, config, seeds=listed or seeds, **known, **options)  # type: ignore[arg-type]
    if searched.dimensions:
        check_plan(plan, problems)
    else:  # an unreadable file, whose settings nobody knows
        with problems.collected():
            num_hidden_layers(encoder)
    problems.check()
    return plan


def _train_arguments(
    source: str, column: list[str] | None, limit: int | None, sts_dir: Path | None, eval_file: Path | None
) -> tuple[str, ...]:
    named = [("--column", name) for name in column or []]
    named += [("--limit", limit), ("--sts-dir", sts_dir), ("--eval-file", eval_file)]  # type: ignore[list-item]
    return (source, *(str(part) for option in named if option[1] is not None for part in option))


def _final_evaluator(sts_dir: Path | None) -> Any:
    from ..datasets.sts import AVERAGE6, load_sts
    from ..evaluation.sts import STSEvaluator

    if not sts_dir:
        raise InputError("--all-sets needs --sts-dir.")
    return STSEvaluator([load_sts(name, sts_dir) for name in AVERAGE6], write_csv=False)


def _show(configurations: list[ConfigurationRecord], score: str, output: Path) -> None:
    from ..sweep.report import write_report
    from ._sweep_view import configurations_table

    out = console()
    page = write_report(output)
    if not configurations:
        out.print(f"No trial gave a score: {output / 'trials.csv'} says why.", style="yellow")
        return
    out.print(configurations_table(configurations[:10], score))
    out.print(f"report: {page}   trials: {output / 'trials.csv'}   best model: {output / 'best'}")


def sweep_report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a sweep, of one that still runs as well.")],
) -> None:
    """Draw the figures of a sweep and put them into one page, report.html."""
    from ..sweep.report import write_report

    console().print(f"report: {write_report(folder)}")
