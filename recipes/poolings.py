"""``distilface poolings``: every pooling of the paper, scored without training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._common import MODEL_HELP, BatchSize, Device, JsonFile, StsDir, console, write_csv, write_result
from .evaluate import Aggregation, CsvFile, Split, Tasks, load_tasks

if TYPE_CHECKING:
    from ..evaluation.poolings import PoolingScore, PoolingStudy


def poolings(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"Encoder. {MODEL_HELP}")],
    sts_dir: StsDir = None,
    tasks: Tasks = None,
    split: Split = "test",
    pooling_mode: Annotated[
        str, typer.Option(help="Token poolings, with commas: cls, max, mean, weightedmean, lasttoken, ...")
    ] = "cls,mean,max",
    aggregation: Aggregation = "all",
    batch_size: BatchSize = 64,
    device: Device = None,
    json_file: JsonFile = None,
    csv_file: CsvFile = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the bar chart into FILE (.png, .svg, .pdf).")
    ] = None,
) -> None:
    """Score every layer selection, layer reduction and token pooling of an encoder from one encoding pass."""
    from ..evaluation.poolings import plot_poolings, score_poolings
    from ..utils.plots import check_plot_file
    from ._progress import quiet_libraries

    quiet_libraries()
    if plot is not None:
        check_plot_file(plot)
    study = score_poolings(
        model,
        load_tasks(sts_dir, tasks, split),
        pooling_modes=[mode.strip() for mode in pooling_mode.split(",")],
        aggregation=aggregation,  # type: ignore[arg-type]
        batch_size=batch_size,
        device=device,
        model_name=model,
        show_progress_bar=console().is_terminal,
    )
    _show(study)
    write_result(study.to_dict(), json_file)
    write_csv([_row(result) for result in study.results], csv_file)
    if plot is not None:
        plot_poolings(study, plot)


def _show(study: PoolingStudy) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = f"{study.model}: poolings, Spearman x 100 ({study.aggregation}), no training"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("layers", "tokens"):
        table.add_column(heading, no_wrap=True)
    for heading in ("average" if study.best.average5 is None else "avg5", *study.pairs):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in study.distinct():
        scores = [f"{score:.2f}" for score in (result.rank_score, *result.scores.values())]
        style = "bold green" if result is study.best else None
        table.add_row(result.layer_pooling, result.pooling_mode, *scores, style=style)
    out = console()
    out.print(table)
    if study.left_out:
        left_out, depth = ", ".join(study.left_out), study.num_hidden_layers
        out.print(f"Left out: {left_out}; the encoder has {depth} layers.", style="yellow")
    pairs = sum(study.pairs.values())
    out.print(f"{len(study.results)} poolings of {pairs:,} pairs in {study.seconds:,.1f} s", style="dim")


def _row(result: PoolingScore) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in asdict(result).items():  # the score of each set is a column
        row |= value if name == "scores" else {name: value}
    return {**row, "layer_indices": " ".join(map(str, result.layer_indices))}
