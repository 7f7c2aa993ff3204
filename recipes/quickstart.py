"""``distilface quickstart``: train on Python's own documentation, see what it brings, and search with the model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ._common import Device, JsonFile, console, valid_text, write_result
from ._training import show_adaptation

_ROWS = (
    ("mrr@10", "MRR@10", "higher is better"),
    ("recall@1", "recall@1", "higher is better"),
    ("recall@10", "recall@10", "higher is better"),
    ("alignment", "alignment", "lower is better"),
    ("uniformity", "uniformity", "lower is better"),
    ("sts_b", "STS-B test, Spearman x 100", "higher is better"),
)


def quickstart(
    output: Annotated[
        Path, typer.Option("--output", help="Folder for the model and quickstart.json.", callback=valid_text)
    ] = Path("quickstart"),
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", "--steps", min=1, help="Training steps, in the place of --minutes.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.1, help="Time budget of training. Default: 10.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=2, help="Pairs in a training step.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of everything random.")] = None,
    device: Device = None,
    json_file: JsonFile = None,
) -> None:
    """Train on documentation found on this machine for some minutes, and score and search with the model.

    Text: docstrings of the standard library and of installed packages; nothing is downloaded. A summary line and the
    text after it are a pair that belongs together. Before and after training, summaries are searched among texts that
    were held out; and in half of the standard library's modules, of which nothing was seen. With DISTILFACE_DATA set,
    STS-B is scored too.
    """
    from dataclasses import replace

    from ..adaptation import quickstart as library
    from ._progress import TrainingProgress, embedding_progress, quiet_libraries

    quiet_libraries()
    given: dict[str, Any] = {"minutes": minutes, "max_steps": max_steps, "batch_size": batch_size, "seed": seed}
    config = replace(library.CONFIG, **{name: value for name, value in given.items() if value is not None})
    sts_dir = Path(os.environ.get("DISTILFACE_DATA", ""), "sts")
    has_sts = "DISTILFACE_DATA" in os.environ and (sts_dir / "STSBenchmark").is_dir()
    screen = console()
    with embedding_progress() as embedded:
        result = library.quickstart(
            output,
            config,
            sts_dir=sts_dir if has_sts else None,
            device=device,
            announce=lambda line: screen.print(line, style="dim", markup=False, highlight=False),
            callbacks=[TrainingProgress("known_item_mrr@10")],
            progress=embedded,
        )
    _show(result, output)
    write_result(result, json_file)


def _show(result: dict[str, Any], output: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    screen = console()
    show_adaptation(result["adaptation"])
    table = Table(title="The same in modules of which nothing was seen")
    for column in ("", "before", "after", "change", ""):
        table.add_column(column, justify="left" if not column else "right")
    for key, name, direction in _ROWS:
        if key in result["before"]:
            before, after = result["before"][key], result["after"][key]
            digits = 2 if key == "sts_b" else 3
            cells = (f"{before:.{digits}f}", f"{after:.{digits}f}", f"{after - before:+.{digits}f}")
            table.add_row(name, *cells, f"[dim]{direction}[/]")
    screen.print(table)
    text = result["text"]
    screen.print(
        f"Trained on {text['training_pairs']:,} pairs; scored on {text['test_queries']:,} of modules held out. "
        f"{result['seconds']:.0f} seconds in all."
    )
    for answer in result["answers"]:
        screen.print(f"\n[bold]{escape(answer['question'])}[/]")
        for hit in answer["hits"]:
            line = f"  {hit['similarity']:.2f}  [cyan]{escape(hit['name'])}[/]  {escape(hit['summary'])}"
            screen.print(line, highlight=False, no_wrap=True, overflow="ellipsis")
    use = f'SentenceTransformer("{output / "model"}").encode(["..."])'
    screen.print(f"\nUse it: [green]{escape(use)}[/]", highlight=False)
