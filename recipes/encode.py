"""``distilface encode``: a file of text in, a file of embeddings out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..pretrained import DEFAULT_MODEL
from ._common import (
    Device,
    JsonFile,
    ModelOption,
    Runtime,
    Threads,
    can_be_written,
    console,
    open_model,
    progress_bar,
    write_result,
)


def encode(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Text, as for `distilface train`.")],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT", help=".npy (embeddings), .parquet or .jsonl (text too).", callback=can_be_written
        ),
    ],
    model: ModelOption = DEFAULT_MODEL,
    column: Annotated[str | None, typer.Option(help="Column or field with the text.")] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale embeddings to length 1.")] = False,
    precision: Annotated[
        str,
        typer.Option(
            help="float32, int8 or uint8 (a byte a dimension), binary or ubinary (a bit). The ranges of int8 and uint8 "
            "are in the JSON, and in a .parquet's metadata."
        ),
    ] = "float32",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Sentences in one forward pass. Default: 32 in torch, else as many as are fast."),
    ] = None,
    device: Device = None,
    runtime: Runtime = None,
    threads: Threads = None,
    json_file: JsonFile = None,
) -> None:
    """Embed a file of any size; row i of the output belongs to record i of the input."""
    from ..inference.precision import check_precision
    from ..models.encode_file import encode_file

    check_precision(precision)
    opened = open_model(model, device, runtime, threads)
    with progress_bar() as bar:
        task = bar.add_task("encoding", total=None)
        result = encode_file(
            opened,
            source,
            output,
            column=column,
            batch_size=batch_size,
            normalize_embeddings=normalize,
            precision=precision,
            progress=lambda done: bar.update(task, completed=done),
        )
    form = "" if precision == "float32" else f" in {precision}, {result['width']} bytes each"
    console().print(f"{result['rows']:,} embeddings of {result['dimension']} dimensions{form}: {output}")
    if result["cut"]:
        cut = f"{result['cut']:,} of {result['rows']:,} texts are longer than the model reads"
        console().print(f"{cut}: their ends are not in their embeddings (`distilface index` cuts texts into passages).")
    write_result(result, json_file)
