"""``distilface train``: contrastive training on a file of text."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from ..training.config import TrainingConfig
from ._common import MODEL_HELP, Device, JsonFile, StsDir, console
from ._options import Shown, config_options
from ._training import (
    SOURCE_HELP,
    AllSets,
    Columns,
    EvalFile,
    Limit,
    Resume,
    RunFolder,
    train_and_show,
    training_data,
    training_evaluator,
)


@config_options(
    TrainingConfig,
    {
        "encoder": Shown(("--base", "--encoder"), f"Encoder to start from. {MODEL_HELP}"),
        "max_steps": Shown(("--max-steps", "--steps")),
    },
)
def train(
    source: Annotated[str, typer.Argument(metavar="INPUT", help=SOURCE_HELP)],
    output: RunFolder,
    given: dict[str, Any],
    *,
    preset: Annotated[
        str, typer.Option(help="Settings to start from: paper-default (the defaults shown here) or paper-best.")
    ] = "paper-default",
    column: Columns = None,
    limit: Limit = None,
    sts_dir: StsDir = None,
    all_sets: AllSets = False,
    eval_file: EvalFile = None,
    resume: Resume = False,
    device: Device = None,
    json_file: JsonFile = None,
) -> None:
    """Train a sentence encoder on your own text, without labels.

    Checkpoints are chosen on STS-B dev (--sts-dir), on your own scored pairs (--eval-file), or, with neither, by
    alignment and uniformity on held-out text.
    """
    from ..training.run_record import check_run_folder
    from ..training.train import model_from_config
    from ..training.train import train as run_training
    from ._progress import quiet_libraries

    quiet_libraries()
    check_run_folder(output, resume)
    config = TrainingConfig.preset(preset, **given)
    data = training_data(source, config.views, column, limit)
    data, evaluator = training_evaluator(data, sts_dir, all_sets, eval_file)
    console().print(
        f"{data.source}: {len(data.dataset):,} rows for training "
        f"({data.blank:,} blank and {data.duplicates:,} duplicate ones dropped)"
    )
    model = model_from_config(config, device=device)
    run = partial(run_training, model, data, config, output, evaluator=evaluator, resume=resume, device=device)
    train_and_show(run, evaluator, json_file)
