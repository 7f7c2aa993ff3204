"""``distilface train``: a better encoder from a file or folder of text, without labels."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..adaptation.config import AdaptationConfig
from ..errors import InputError
from ..training.config import TrainingConfig
from ._common import MODEL_HELP, Device, JsonFile, StsDir, console
from ._options import Shown, config_options
from ._training import (
    AllSets,
    Columns,
    EvalFile,
    Limit,
    Resume,
    RunFolder,
    run_option,
    show_adaptation,
    train_and_show,
    training_data,
    training_evaluator,
)

_OWN_TEXT = "Your own text"
_BASE = "Default: distilface-mini; with --views or --preset distilbert-base-uncased, the paper's."
_SOURCE_HELP = (
    "Your text: .txt, .md, .rst, .html, .jsonl, .csv, .tsv (each also .gz), .parquet, a folder, or a Hub dataset."
)


@config_options(
    TrainingConfig,
    {
        "encoder": Shown(("--base", "--encoder"), f"Encoder to start from. {MODEL_HELP} {_BASE}"),
        "max_steps": Shown(("--max-steps", "--steps"), "Optimizer steps. By default as many as fit into --minutes."),
        **{
            name: Shown(
                help=f"{text} Default: {getattr(AdaptationConfig, name)}; the paper's {getattr(TrainingConfig, name)}."
            )
            for name, text in (
                ("batch_size", "Pairs in a step, on each device."),
                ("learning_rate", "Peak of the schedule."),
                ("max_length", "Tokens of a training text; inference keeps the encoder's own limit."),
                ("warmup_steps", "Steps up to the peak."),
            )
        },
        "eval_steps": Shown(help="Steps between evaluations, which are also the checkpoints. Default: four in a run."),
        "views": Shown(
            help="Not your own text's mix, but one kind of positive: dropout (the paper's), neighbours or pairs."
        ),
    },
)
def train(
    source: Annotated[str, typer.Argument(metavar="INPUT", help=_SOURCE_HELP)],
    output: RunFolder,
    given: dict[str, Any],
    *,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, help="Time budget of the whole run. Default: 15.", rich_help_panel=_OWN_TEXT),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A stronger encoder to learn from, or none. Default: bundled, where the extra offline is installed.",
            rich_help_panel=_OWN_TEXT,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        run_option(help="The paper's settings in the place of your own text's: paper-default or paper-best."),
    ] = None,
    column: Columns = None,
    limit: Limit = None,
    sts_dir: StsDir = None,
    all_sets: AllSets = False,
    eval_file: EvalFile = None,
    resume: Resume = False,
    device: Device = None,
    json_file: JsonFile = None,
) -> None:
    """Make a sentence encoder better at finding things in your own text, without labels, in 15 minutes.

    A part of the text is held out as a test; the model in OUTPUT/model is the best in it so far at any moment, and
    OUTPUT/report.html shows what training has brought. With --preset or --views it is a plain contrastive run, whose
    checkpoint is chosen on STS-B dev (--sts-dir), on your own scored pairs (--eval-file), or by alignment and
    uniformity on held-out text.
    """
    from ..training.run_record import check_run_folder
    from ._progress import quiet_libraries

    quiet_libraries()
    check_run_folder(output, resume)
    if preset is None and "views" not in given:
        own = {field.name for field in fields(AdaptationConfig)}
        asked = {**given, "all_sets": all_sets}
        other = sorted(name for name, value in asked.items() if value and name not in own)
        if other:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in other)
            raise InputError(f"{names}: for a contrastive run alone; say which one with --views or --preset.")
        given |= {name: value for name, value in (("minutes", minutes), ("teacher", teacher)) if value is not None}
        _adapt(AdaptationConfig(**given), source, output, column, limit, sts_dir, eval_file, resume, device, json_file)
        return
    if minutes is not None or teacher is not None:
        raise InputError("--minutes and --teacher are for runs on your own text: leave out --views and --preset.")
    _contrast(
        TrainingConfig.preset(preset, **given) if preset else TrainingConfig(**given),
        *(source, output, column, limit, sts_dir, all_sets, eval_file, resume, device, json_file),
    )


def _contrast(
    config: TrainingConfig,
    source: str,
    output: Path,
    column: list[str] | None,
    limit: int | None,
    sts_dir: Path | None,
    all_sets: bool,
    eval_file: Path | None,
    resume: bool,
    device: str | None,
    json_file: str | None,
) -> None:
    from ..training.train import model_from_config
    from ..training.train import train as run_training

    data = training_data(source, config.views, column, limit)
    data, evaluator = training_evaluator(data, sts_dir, all_sets, eval_file)
    console().print(
        f"{data.source}: {len(data.dataset):,} rows for training "
        f"({data.blank:,} blank and {data.duplicates:,} duplicate ones dropped)"
    )
    model = model_from_config(config, device=device)
    run = partial(run_training, model, data, config, output, evaluator=evaluator, resume=resume, device=device)
    train_and_show(run, evaluator, json_file)


def _adapt(
    config: AdaptationConfig,
    source: str,
    output: Path,
    column: list[str] | None,
    limit: int | None,
    sts_dir: Path | None,
    eval_file: Path | None,
    resume: bool,
    device: str | None,
    json_file: str | None,
) -> None:
    from rich.markup import escape

    from ..adaptation.adapt import adapt
    from ..datasets.sts import load_scored_pairs
    from ..evaluation.sts import STSEvaluator
    from ..training.trainer import TrainingInterrupted
    from ._common import write_result
    from ._progress import TrainingProgress, embedding_progress

    labelled = STSEvaluator(load_scored_pairs(eval_file), write_csv=False) if eval_file else None
    screen = console()
    try:
        with embedding_progress() as embedded:
            result = adapt(
                None,
                source,
                output,
                config,
                columns=column or [],
                limit=limit,
                sts_dir=sts_dir,
                labelled=labelled,
                resume=resume,
                device=device,
                callbacks=[TrainingProgress(str(labelled.primary_metric) if labelled else "known_item_mrr@10")],
                announce=lambda line: screen.print(escape(line), highlight=False),
                progress=embedded,
            )
    except TrainingInterrupted as stopped:
        screen.print(f"{stopped} {output / 'model'} is the best model so far.")
        raise typer.Exit(130) from None
    show_adaptation(result.run["adaptation"])
    screen.print(f"model: {output / 'model'}   report: {output / 'report.html'}")
    write_result(result.run, json_file)
