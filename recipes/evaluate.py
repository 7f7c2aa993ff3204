"""``distilface evaluate``: a model's scores on STS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..pretrained import DEFAULT_MODEL
from ._common import (
    BatchSize,
    Device,
    JsonFile,
    ModelArgument,
    Runtime,
    StsDir,
    Threads,
    can_be_written,
    console,
    write_csv,
    write_result,
)

if TYPE_CHECKING:
    from ..datasets.sts import STSTask
    from ..evaluation.sts import STSReport

CsvFile = Annotated[
    Path | None, typer.Option("--csv", metavar="FILE", help="Write the scores as CSV to FILE.", callback=can_be_written)
]
Tasks = Annotated[
    str | None,
    typer.Option("--tasks", help="STS sets, with commas: STS12 to STS16, STS-B, SICK-R. Default: all but SICK-R."),
]
Aggregation = Annotated[
    str,
    typer.Option(
        "--aggregation", help="all: one correlation over all pairs of a set; mean, wmean: mean over its subsets."
    ),
]
Split = Annotated[
    str,
    typer.Option("--split", help="Split of STS-B and SICK-R: test, dev or train. With dev, STS-B alone by default."),
]


def evaluate(
    model: ModelArgument = DEFAULT_MODEL,
    sts_dir: StsDir = None,
    tasks: Tasks = None,
    split: Split = "test",
    eval_file: Annotated[
        Path | None,
        typer.Option(
            help="Your own scored pairs (.tsv, .csv, .jsonl: two sentences and a score); alone, unless --sts-dir or "
            "--tasks is given too."
        ),
    ] = None,
    aggregation: Aggregation = "all",
    batch_size: BatchSize = 64,
    device: Device = None,
    runtime: Runtime = None,
    threads: Threads = None,
    json_file: JsonFile = None,
    csv_file: CsvFile = None,
) -> None:
    """Score a model on semantic textual similarity: Spearman x 100 of cosine similarity, in one encoding pass."""
    from ..datasets.sts import load_scored_pairs
    from ..evaluation.sts import sts_suite
    from ..models.encoders import open_encoder
    from ._progress import quiet_libraries

    quiet_libraries()
    loaded = load_tasks(sts_dir, tasks, split) if eval_file is None or sts_dir or tasks else []
    if eval_file is not None:
        loaded.append(load_scored_pairs(eval_file))
    report = sts_suite(
        open_encoder(model, device=device, runtime=runtime, threads=threads),
        tasks=loaded,
        aggregation=aggregation,  # type: ignore[arg-type]
        batch_size=batch_size,
        model_name=model,
        show_progress_bar=console().is_terminal,
    )
    _show(report)
    write_result(dict(report), json_file)
    write_csv(_rows(report), csv_file)


def load_tasks(sts_dir: Path | None, tasks: str | None, split: str = "test") -> list[STSTask]:
    """The sets that ``--tasks`` names; by default the six that have the split."""
    from ..datasets.sts import AVERAGE6, load_sts

    default = AVERAGE6 if split == "test" else ("STS-B",)
    names = [name.strip() for name in tasks.split(",")] if tasks else default
    return [load_sts(name, sts_dir, split if name in ("STS-B", "SICK-R") else "test") for name in names]


def _show(report: STSReport) -> None:
    from rich.table import Column, Table

    numbers = (Column(heading, justify="right") for heading in ("pairs", "Spearman", "Pearson"))
    table = Table("set", *numbers, title=f"{report['model']}: STS, Spearman x 100 ({report['aggregation']})")
    for name, score in report["scores"].items():
        table.add_row(name, f"{report['pairs'][name]:,}", f"{score:.2f}", f"{report['pearson'][name]:.2f}")
    table.add_section()
    for label, average in (("average of 5", report["average5"]), ("average of 6", report["average6"])):
        if average is not None:
            table.add_row(label, "", f"[bold]{average:.2f}[/]", "")
    out = console()
    out.print(table)
    out.print(f"{sum(report['pairs'].values()):,} pairs in {report['seconds']:,.1f} s", style="dim")


def _rows(report: STSReport) -> list[dict[str, Any]]:
    """A row for each set and one for each of its subsets, which have a Spearman correlation only."""
    rows: list[dict[str, Any]] = []
    for name, score in report["scores"].items():
        known = {"model": report["model"], "aggregation": report["aggregation"], "set": name}
        pairs, pearson = report["pairs"][name], report["pearson"][name]
        rows.append({**known, "subset": "", "pairs": pairs, "spearman": score, "pearson": pearson})
        for subset, part in report["subsets"][name].items():
            rows.append({**known, "subset": subset, "pairs": "", "spearman": part, "pearson": ""})
    return rows
