"""``distilface similarity``: how alike sentences are."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import InputError
from ..pretrained import DEFAULT_MODEL
from ._common import Device, JsonFile, ModelOption, Runtime, Threads, open_model, valid_text, write_result


def similarity(
    sentences: Annotated[list[str], typer.Argument(help="Two sentences or more.", callback=valid_text)],
    model: ModelOption = DEFAULT_MODEL,
    device: Device = None,
    runtime: Runtime = None,
    threads: Threads = None,
    json_file: JsonFile = None,
) -> None:
    """Print the similarity of each two sentences, by the model's own similarity function."""
    if len(sentences) < 2:
        raise InputError("Give two sentences or more.")
    from ..models.encoders import embeddings_of

    opened = open_model(model, device, runtime, threads)
    embeddings = embeddings_of(opened, sentences, show_progress_bar=False)
    scores = opened.similarity(embeddings, embeddings).tolist()
    if json_file != "-":
        _show(sentences, scores)
    write_result(
        {"similarity": opened.similarity_fn_name, "sentences": sentences, "scores": scores},
        json_file,
    )


def _show(sentences: list[str], scores: list[list[float]]) -> None:
    if len(sentences) == 2:
        typer.echo(f"{scores[0][1]:.4f}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", *(str(i + 1) for i in range(len(sentences))))
    for i, (sentence, row) in enumerate(zip(sentences, scores, strict=True)):
        table.add_row(f"{i + 1} {sentence}", *(f"{score:.3f}" for score in row))
    Console().print(table)
