"""``distilface train``: contrastive training on a file of text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..pretrained import resolve_name
from ._common import (
    MODEL_HELP,
    Device,
    JsonFile,
    StsDir,
    console,
    parse_layers,
    parse_modes,
    write_result,
)
from ._training import (
    Columns,
    EvalFile,
    EvaluateEvery,
    LearningRate,
    Limit,
    MaxLength,
    Patience,
    Precision,
    Resume,
    RowsAStep,
    RunSeed,
    Schedule,
    Steps,
    WarmupSteps,
    show_training,
    training_data,
    training_evaluator,
)

_MODEL, _DATA, _RUN = "Model", "Data", "Run"


def train(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="Text: .txt, .jsonl, .csv, .tsv (each also .gz), .parquet, a folder of those, or a Hub dataset.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the run: model, history, run.json.")],
    base: Annotated[
        str | None,
        typer.Option(help=f"Encoder to start from. {MODEL_HELP}", rich_help_panel=_MODEL),
    ] = None,
    preset: Annotated[str, typer.Option(help="Settings to start from: paper-default or paper-best.")] = "paper-default",
    layers: Annotated[
        str | None,
        typer.Option(
            help="last, second_to_last, all, first_last, last_two, last_four, or indices: 0,-1.", rich_help_panel=_MODEL
        ),
    ] = None,
    layer_reduction: Annotated[
        str | None, typer.Option(help="mean, max or concat over layers.", rich_help_panel=_MODEL)
    ] = None,
    pooling_mode: Annotated[
        str | None,
        typer.Option(help="Token pooling: mean, max, cls, ...; several with commas.", rich_help_panel=_MODEL),
    ] = None,
    normalize: Annotated[
        bool | None, typer.Option(help="Scale embeddings to length 1.", rich_help_panel=_MODEL)
    ] = None,
    trim: Annotated[
        bool | None, typer.Option(help="Drop encoder layers above the highest one used.", rich_help_panel=_MODEL)
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            help="Positives: dropout (sentences), neighbours (documents) or pairs (two columns).", rich_help_panel=_DATA
        ),
    ] = None,
    column: Columns = None,
    limit: Limit = None,
    steps: Steps = None,
    batch_size: RowsAStep = None,
    mini_batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Forward this many at once and cache gradients: large batches in little memory."),
    ] = None,
    learning_rate: LearningRate = None,
    schedule: Schedule = None,
    warmup_steps: WarmupSteps = None,
    weight_decay: Annotated[float | None, typer.Option(min=0)] = None,
    max_grad_norm: Annotated[float | None, typer.Option(min=0)] = None,
    temperature: Annotated[float | None, typer.Option()] = None,
    symmetric: Annotated[bool | None, typer.Option(help="Also contrast positives with anchors.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout probability; the encoder's own by default.")] = None,
    max_length: MaxLength = None,
    precision: Precision = None,
    evaluate_every: EvaluateEvery = None,
    patience: Patience = None,
    sts_dir: StsDir = None,
    all_sets: Annotated[
        bool,
        typer.Option(
            "--all-sets",
            help="With --sts-dir: also score STS12-16 and STS-B test at each evaluation (STS-B dev alone chooses).",
            rich_help_panel=_RUN,
        ),
    ] = False,
    eval_file: EvalFile = None,
    resume: Resume = False,
    seed: RunSeed = None,
    device: Device = None,
    json_file: JsonFile = None,
) -> None:
    """Train a sentence encoder on your own text, without labels.

    Checkpoints are chosen on STS-B dev (--sts-dir), on your own scored pairs (--eval-file), or, with neither, by
    alignment and uniformity on held-out text.
    """
    from ..training.train import TrainingConfig, TrainingInterrupted, model_from_config
    from ..training.train import train as run_training
    from ._progress import TrainingProgress, quiet_libraries

    quiet_libraries()
    given: dict[str, Any] = {
        "encoder": resolve_name(base) if base else None,
        "layers": parse_layers(layers),
        "pooling_mode": parse_modes(pooling_mode),
        "layer_reduction": layer_reduction,
        "normalize": normalize,
        "trim": trim,
        "views": views,
        "steps": steps,
        "batch_size": batch_size,
        "mini_batch_size": mini_batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "warmup_steps": warmup_steps,
        "weight_decay": weight_decay,
        "max_grad_norm": max_grad_norm,
        "temperature": temperature,
        "symmetric": symmetric,
        "dropout": dropout,
        "max_length": max_length,
        "precision": precision,
        "evaluate_every": evaluate_every,
        "patience": patience,
        "seed": seed,
    }
    config = TrainingConfig.preset(preset, **{name: value for name, value in given.items() if value is not None})
    data = training_data(source, config.views, column, limit)
    data, evaluator = training_evaluator(data, sts_dir, all_sets, eval_file)
    out = console()
    out.print(
        f"{data.source}: {len(data.dataset):,} rows for training "
        f"({data.blank:,} blank and {data.duplicates:,} duplicate ones dropped)"
    )
    model = model_from_config(config, device=device)
    progress = TrainingProgress(evaluator.primary_metric)
    try:
        result = run_training(
            model, data, config, output, evaluator=evaluator, resume=resume, device=device, callbacks=[progress]
        )
    except TrainingInterrupted as stopped:
        out.print(str(stopped))
        raise typer.Exit(130) from None
    show_training(result)
    write_result(result.run, json_file)
