"""``distilface benchmark``: what models cost and what they are worth, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._common import SHIPPED_MODEL, JsonFile, StsDir, console, write_result
from ._csv import write_csv
from .evaluate import Tasks, load_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from ..benchmark.report import ArmReport, BenchmarkReport, Figure

    Cells = list[str]

_TEXTS = {"stsb": "STS-B", "sentences": "sentences", "passages": "passages"}
_EDGE = {"batch32": "1,024", "best": "256 to 4,096"}


def benchmark(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Folders of models, plain, exported or packed; Hub names; 'distilface-mini' (default) and "
            "'distilface-micro'; 'bundled' (extra offline). bert-base-uncased and distilbert-base-uncased, where they "
            "cannot be had, are measured with random weights, for cost only.",
        ),
    ] = None,
    exports: Annotated[
        str | None,
        typer.Option(
            help="Exports to make of each plain model and compare, with commas: onnx or openvino with -fp32, -fp16, "
            "-int8 or -int8-static."
        ),
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(
            help="Ways to run, with commas: torch (fp32, which the others are compared with), torch-bf16, st (an "
            "export as a SentenceTransformer), edge (an export without torch). Default: all."
        ),
    ] = None,
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
    starts: Annotated[int, typer.Option(help="Processes started for each arm, to time loading.")] = 3,
    threads: Annotated[int | None, typer.Option(help="Processor threads. Default: each runtime's own choice.")] = None,
    json_file: JsonFile = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write every timing as CSV to FILE.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw quality against speed and size into FILE (.png, .svg, .pdf)."),
    ] = None,
) -> None:
    """Measure size, memory, start, speed and quality of models and of the ways to run them, side by side.

    Each arm is a process of its own; they take turns, so that a change of the machine's speed meets all of them. STS
    sets are scored where --sts-dir or --tasks is given.
    """
    from ..benchmark.plot import plot_benchmark
    from ..benchmark.run import benchmark_models
    from ..benchmark.variants import KINDS
    from ..utils.plots import check_plot_file
    from ._progress import quiet_libraries

    quiet_libraries()
    if plot is not None:
        check_plot_file(plot)
    out = console()
    with out.status("starting") as status:
        report = benchmark_models(
            models or [SHIPPED_MODEL],
            exports=_names(exports),
            arms=_names(arms) or KINDS,
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
    out = console()
    for table in (_cost(report), _throughput(report, "batch32"), _throughput(report, "best"), _quality(report)):
        out.print(table)
    for note in report.notes:
        out.print(note, style="yellow")
    peaks = ", ".join(f"{name} {_number(peak['gflops'], ',.0f') or '?'}" for name, peak in report.peaks.items())
    threads = f"{report.threads} threads" if report.threads else "threads as each runtime chooses"
    machine = f"{report.machine['processor']}, {report.machine['cores']} cores, {threads}"
    out.print(f"{machine}; measured peak in GFLOP/s: {peaks}", style="dim")
    timings = f"{len(report.turns):,} timings in {report.seconds:,.0f} s"
    out.print(f"{timings}; medians of {report.repeats}, of {report.starts} starts", style="dim")


def _table(report: BenchmarkReport, title: str, headings: Sequence[str], cells: Callable[[ArmReport], Cells]) -> Table:
    """A table with a line for each model and, under it, one for each of its arms."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("arm", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    model = None
    for arm in report.arms:
        if arm.model != model:
            model = arm.model
            table.add_row(Text(model), style="bold")
        table.add_row(f"  {arm.arm}", *cells(arm))
    return table


def _cost(report: BenchmarkReport) -> Table:
    def cells(arm: ArmReport) -> Cells:
        load, cold, single = (arm.figures[name] for name in ("load", "cold_start", "one_by_one"))
        memory = "" if arm.peak_memory_bytes is None else f"{arm.peak_memory_bytes / 1e6:,.0f}"
        total = single.median * single.sentences / 1000
        sizes = [f"{arm.parameters / 1e6:.1f}", f"{arm.bytes_on_disk / 1e6:.1f}", memory]
        starts = [_short(load.median), _short(cold.median)]
        return [*sizes, *starts, _short(total), *_spread(single), _times(single)]

    headings = [
        "params M",
        "disk MB",
        "peak MB",
        "load s",
        "cold start s",
        "total s",
        "ms/sentence",
        "min-max",
        "x torch",
    ]
    title = f"Cost, and one sentence at a time ({report.texts['one_by_one']['source']})"
    return _table(report, title, headings, cells)


def _throughput(report: BenchmarkReport, at: str) -> Table:
    texts = [name for name in _TEXTS if name in report.texts]
    best = at == "best"

    def cells(arm: ArmReport) -> Cells:
        figures = [arm.figures[f"{name}_{at}"] for name in texts]
        batches = [[str(figure.batch)] if best else [] for figure in figures]
        groups = zip(figures, batches, strict=True)
        return [cell for figure, batch in groups for cell in (*_spread(figure), *batch, _times(figure))]

    headings = [part for name in texts for part in (_TEXTS[name], "min-max", *(["batch"] if best else []), "x torch")]
    what = "each arm's best batch" if best else "batch 32"
    return _table(report, f"Sentences/s at {what} (of edge arms the batch is in tokens: {_EDGE[at]})", headings, cells)


def _quality(report: BenchmarkReport) -> Table:
    def cells(arm: ArmReport) -> Cells:
        quality = arm.quality
        score = _number(quality.score, ".2f") if arm.weights == "trained" else arm.weights
        cosines = [_number(quality.mean_cosine, ".5f"), _number(quality.min_cosine, ".5f")]
        work = [_number(arm.gflops, ",.0f"), _number(arm.share_of_peak, ".0%")]
        return [score, _number(quality.loss, ".2f"), *cosines, arm.computes_in, *work]

    score = "average5" if any(arm.quality.average5 is not None for arm in report.arms) else "average"
    headings = [score, "loss", "mean cosine", "min cosine", "computes in", "GFLOP/s", "of peak"]
    title = "Quality (Spearman x 100; cosine with torch), and work done on the sentences at batch 32"
    return _table(report, title, headings, cells)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _short(value: float) -> str:
    """About three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _spread(figure: Figure) -> list[str]:
    return [_short(figure.median), f"{_short(figure.min)}-{_short(figure.max)}"]


def _times(figure: Figure) -> str:
    return _number(figure.speed_ratio, ".2f")
