"""What the commands that train share: the evaluator that chooses the checkpoint, and the result as a table."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ._common import console, valid_text, write_result

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentence_transformers.base.evaluation import BaseEvaluator

    from ..datasets.text_data import TextData
    from ..training.trainer import TrainingResult

SOURCE_HELP = "Text: .txt, .jsonl, .csv, .tsv (each also .gz), .parquet, a folder of those, or a Hub dataset."
RunFolder = Annotated[
    Path, typer.Option("--output", help="Folder of the run: model, history, run.json.", callback=valid_text)
]
data_option, run_option = (partial(typer.Option, rich_help_panel=panel) for panel in ("Data", "Run"))
Columns = Annotated[list[str] | None, data_option(help="Column or field with the text; twice for pairs.")]
Limit = Annotated[int | None, data_option(min=1, help="Read this many records at most.")]
EvalFile = Annotated[Path | None, run_option(help="Your own scored pairs (.tsv, .csv, .jsonl) choose the checkpoint.")]
AllSets = Annotated[
    bool,
    run_option(
        "--all-sets",
        help="With --sts-dir: also score STS12-16 and STS-B test at each evaluation (STS-B dev alone chooses).",
    ),
]
Resume = Annotated[bool, run_option("--resume", help="Go on with the run in --output.")]


def training_data(source: str, views: str, column: list[str] | None, limit: int | None) -> TextData:
    """The text, as the views want it."""
    from ..datasets.pairs import load_neighbours, load_pairs
    from ..datasets.sentences import load_sentences

    columns = column or []
    if views == "pairs":
        if len(columns) not in (0, 2):
            raise InputError(f"--views pairs takes --column twice or not at all, not {len(columns)} times.")
        return load_pairs(source, columns=(columns[0], columns[1]) if columns else None, limit=limit)
    if len(columns) > 1:
        raise InputError(f"--views {views} takes --column once, not {len(columns)} times.")
    load = load_neighbours if views == "neighbours" else load_sentences
    return load(source, column=columns[0] if columns else None, limit=limit)


def training_evaluator(
    data: TextData, sts_dir: Path | None, all_sets: bool, eval_file: Path | None
) -> tuple[TextData, BaseEvaluator]:
    """The evaluator that the options name, and the text that is left for training."""
    from ..datasets.sts import AVERAGE6, load_scored_pairs, load_sts
    from ..evaluation.alignment_uniformity import AlignmentUniformityEvaluator
    from ..evaluation.sts import STSEvaluator
    from ..training.train import hold_out

    if sts_dir and eval_file:
        raise InputError("Give --sts-dir or --eval-file, not both: one of them chooses the checkpoint.")
    if all_sets and not sts_dir:
        raise InputError("--all-sets needs --sts-dir.")
    if eval_file:
        return data, STSEvaluator(load_scored_pairs(eval_file), write_csv=False)
    if sts_dir:
        tests = [load_sts(name, sts_dir) for name in AVERAGE6] if all_sets else []
        return data, STSEvaluator([load_sts("STS-B", sts_dir, split="dev"), *tests], write_csv=False)
    left, held_out = hold_out(data)
    if len(data.dataset.column_names) == 1:
        return left, AlignmentUniformityEvaluator(sentences=list(held_out["sentence"]), write_csv=False)
    pairs = list(zip(held_out["anchor"], held_out["positive"], strict=True))
    return left, AlignmentUniformityEvaluator(pairs=pairs, write_csv=False)


def train_and_show(train: Callable[..., TrainingResult], evaluator: BaseEvaluator, json_file: str | None) -> None:
    """Run ``train(callbacks=...)`` with a progress bar and show the result; exit with 130 where a signal stopped it."""
    from rich.table import Table

    from ..training.trainer import TrainingInterrupted
    from ._progress import TrainingProgress

    out = console()
    try:
        result = train(callbacks=[TrainingProgress(evaluator.primary_metric)])
    except TrainingInterrupted as stopped:
        out.print(str(stopped))
        raise typer.Exit(130) from None
    run = result.run
    if run["scores_after"]:
        table = Table(title=f"{run['steps']:,} steps in {run['seconds']:,.0f} s; kept: {run['kept']}")
        table.add_column("score")
        for heading in ("before", "after", "change"):
            table.add_column(heading, justify="right")
        for name, after in run["scores_after"].items():
            before = run["scores_before"].get(name)
            known = ("", "") if before is None else (f"{before:.2f}", f"{after - before:+.2f}")
            table.add_row(name, known[0], f"{after:.2f}", known[1])
        out.print(table)
    if not run["improved"]:
        out.print(
            "[yellow]Training did not raise the score that chooses the checkpoint: the encoder as it came is better "
            "on it. More text, another --views or a smaller --learning-rate may help.[/]"
        )
    out.print(f"model: {result.output / 'model'}   history: {result.output / 'history.csv'}")
    write_result(run, json_file)


def show_adaptation(found: dict[str, Any]) -> None:
    """What a run on one's own text has brought, short: the scores, and the queries whose answers changed most."""
    from rich.markup import escape
    from rich.table import Table

    from ..adaptation.report import NAMES, choice

    screen = console()
    table = Table(title=f"Finding {found['queries']} held-out documents, in {found['seconds'] / 60:.0f} minutes")
    table.add_column("")
    for heading in ("MRR@10", "95 %", "recall@1", "recall@10"):
        table.add_column(heading, justify="right")
    for name, shown in NAMES.items():
        if (scores := found["scores"].get(name)) is not None:
            low, high = scores["mrr@10_interval"]
            cells = (f"{scores[metric]:.3f}" for metric in ("recall@1", "recall@10"))
            style = "bold" if name == "after" else None
            table.add_row(shown, f"{scores['mrr@10']:.3f}", f"{low:.3f} to {high:.3f}", *cells, style=style)
    screen.print(table)
    for title, examples in (("Better now:", found["better"]), ("Worse now:", found["worse"])):
        if examples:
            screen.print(f"[dim]{title}[/]")
        for example in examples[:3]:
            ranks = f"{example['rank_before']:>4} -> {example['rank_after']:<4}"
            screen.print(f"  {ranks} {escape(example['query'])}", highlight=False, no_wrap=True, overflow="ellipsis")
    screen.print(escape(choice(found)), highlight=False, style=None if found["kept_share"] else "yellow")
