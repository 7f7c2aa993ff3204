"""``distilface benchmark``: what models cost and what they are worth, side by side."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from ..pretrained import DEFAULT_MODEL
from ._common import JsonFile, StsDir, can_be_written, console, write_csv, write_result
from .evaluate import Tasks, load_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..benchmark.report import BenchmarkReport, VariantReport

    Column = tuple[str, Callable[[VariantReport], str]]

_TEXTS = {"stsb": "STS-B", "sentences": "sentences", "passages": "passages"}


def benchmark(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Folders of models, plain, exported or packed; Hub names; 'distilface-mini' (default) and "
            "'distilface-micro'; 'bundled' (extra offline).",
        ),
    ] = None,
    exports: Annotated[
        str | None,
        typer.Option(
            help="Exports to make of each plain model and compare, with commas: onnx or openvino with -fp32, -fp16, "
            "-int8 or -int8-static."
        ),
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            help="Ways to run, with commas: torch (fp32, which the others are compared with), torch-bf16, st (an "
            "export as a SentenceTransformer), edge (an export without torch). Default: all.",
        ),
    ] = None,
    arms: Annotated[str | None, typer.Option(hidden=True, help="The former name of --variants.")] = None,
    sts_dir: StsDir = None,
    tasks: Tasks = None,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sentences to time, one a line. Default: Python's own docstrings."),
    ] = None,
    sentences: Annotated[int, typer.Option(help="The most sentences of a text.")] = 512,
    passages: Annotated[int, typer.Option(help="Passages of 200 words.")] = 128,
    pairs: Annotated[
        int | None, typer.Option(help="The most STS-B pairs encoded one sentence at a time. Default: all.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Timings of each figure.")] = 3,
    starts: Annotated[int, typer.Option(help="Processes started for each variant, to time loading.")] = 3,
    threads: Annotated[int | None, typer.Option(help="Processor threads. Default: each runtime's own choice.")] = None,
    json_file: JsonFile = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write every timing as CSV to FILE.", callback=can_be_written),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw quality against speed and size into FILE (.png, .svg, .pdf)."),
    ] = None,
) -> None:
    """Measure size, memory, start, speed and quality of models and of the ways to run them, side by side.

    Each variant is a process of its own; all are timed in every repeat, so that a change of the machine's speed meets
    all of them. STS sets are scored where --sts-dir or --tasks is given.
    """
    from ..benchmark.plot import plot_benchmark
    from ..benchmark.run import benchmark_models
    from ..benchmark.variants import KINDS
    from ..utils.extras import require
    from ..utils.plots import check_plot_file
    from ._progress import quiet_libraries

    quiet_libraries()
    if plot is not None:
        check_plot_file(plot)
        require("adjustText", "Plotting", "plots")
    with console().status("starting") as status:
        report = benchmark_models(
            models or [DEFAULT_MODEL],
            exports=_names(exports),
            variants=_names(variants or arms) or KINDS,
            tasks=load_tasks(sts_dir, tasks) if sts_dir or tasks else (),
            text=text,
            sentences=sentences,
            passages=passages,
            pairs=pairs,
            repeats=repeats,
            starts=starts,
            threads=threads,
            progress=status.update,
        )
    _show(report)
    write_result(report.to_dict(), json_file)
    write_csv(report.rows(), csv_file)
    if plot is not None:
        plot_benchmark(report, plot)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",")] if text else []


def _show(report: BenchmarkReport) -> None:
    """Print four tables, each with a line for each model and, under it, one for each of its variants."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    average = "average5" if any(variant.quality.average5 is not None for variant in report.variants) else "average"
    cost: list[Column] = [
        ("params M", lambda one: f"{one.parameters / 1e6:.1f}"),
        ("disk MB", lambda one: f"{one.bytes_on_disk / 1e6:.1f}"),
        ("peak MB", lambda one: _number(one.peak_memory_bytes and one.peak_memory_bytes / 1e6, ",.0f")),
        ("load s", lambda one: _short(one.figures["load"].median)),
        ("cold start s", lambda one: _short(one.figures["cold_start"].median)),
        ("total s", lambda one: _short(median(one.figures["one_by_one"].seconds))),
        *_columns("one_by_one", "ms/sentence"),
    ]
    quality: list[Column] = [
        (average, lambda one: _number(one.quality.score, ".2f")),
        ("loss", lambda one: _number(one.quality.loss, ".2f")),
        ("mean cosine", lambda one: _number(one.quality.mean_cosine, ".5f")),
        ("min cosine", lambda one: _number(one.quality.min_cosine, ".5f")),
        ("computes in", lambda one: one.computes_in),
    ]
    texts = {name: heading for name, heading in _TEXTS.items() if name in report.texts}
    at_32 = [column for text in texts for column in _columns(f"{text}_batch32", texts[text])]
    at_best = [column for text in texts for column in _columns(f"{text}_best", texts[text], with_batch=True)]
    tokens = "(of edge variants the batch is in tokens: {})".format
    tables = {
        f"Cost, and one sentence at a time ({report.texts['one_by_one']['source']})": cost,
        f"Sentences/s at batch 32 {tokens('1,024')}": at_32,
        f"Sentences/s at each variant's best batch {tokens('256 to 4,096')}": at_best,
        "Quality (Spearman x 100; cosine with torch)": quality,
    }
    out = console()
    for title, columns in tables.items():
        table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("variant", no_wrap=True)
        for heading, _ in columns:
            table.add_column(heading, justify="right", no_wrap=True)
        for model, variants in groupby(report.variants, key=attrgetter("model")):
            table.add_row(Text(model), style="bold")
            for one in variants:
                table.add_row(f"  {one.variant}", *(cell(one) for _, cell in columns))
        out.print(table)
    for note in report.notes:
        out.print(note, style="yellow")
    threads = f"{report.threads} threads" if report.threads else "threads as each runtime chooses"
    out.print(f"{report.machine['processor']}, {report.machine['cores']} cores, {threads}", style="dim")
    timings = f"{len(report.timings):,} timings in {report.seconds:,.0f} s"
    out.print(f"{timings}; medians of {report.repeats}, of {report.starts} starts", style="dim")


def _columns(name: str, heading: str, with_batch: bool = False) -> list[Column]:
    """A figure's median, least and most, batch where asked for, and ratio to torch."""
    columns: list[Column] = [
        (heading, lambda one: _short(one.figures[name].median)),
        ("min-max", lambda one: f"{_short(one.figures[name].min)}-{_short(one.figures[name].max)}"),
        ("batch", lambda one: str(one.figures[name].batch)),
        ("x torch", lambda one: _number(one.figures[name].speed_ratio, ".2f")),
    ]
    return columns if with_batch else [column for column in columns if column[0] != "batch"]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _short(value: float) -> str:
    """About three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
