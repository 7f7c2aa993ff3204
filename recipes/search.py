"""``distilface search``: find documents in an index."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..datasets.readers import TEXT_COLUMNS, Columns, decoded_lines, line_blocks, read_blocks
from ..datasets.sources import file_kind, find_source
from ..errors import InputError
from ._common import MODEL_HELP, Device, JsonFile, Runtime, Threads, console, valid_text, write_result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..datasets.readers import Block
    from ..search import Hit

_SHOWN_METADATA = 4
_AT_ONCE = 256


def search(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index.")],
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="[QUERY]", help="What to look for. Without it, queries are asked for.", callback=valid_text
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Most documents a query.")] = 10,
    conditions: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            help="A condition on metadata: lang=en, year>=2000, tag=a,b; several must all hold.",
            callback=valid_text,
        ),
    ] = None,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="Fuse with the ranking by words (BM25).")] = False,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="A file of queries: .txt (one a line), .jsonl, .csv, .tsv, .parquet; - for standard input.",
            allow_dash=True,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help=f"The index's model, from another place. {MODEL_HELP}")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read the whole index and compare checksums.")] = False,
    device: Device = None,
    runtime: Runtime = None,
    threads: Threads = None,
    json_file: JsonFile = None,
) -> None:
    """Search an index: a table on a terminal, JSON in a pipe."""
    from ..models.encoders import open_encoder
    from ..search import SearchIndex
    from ..search.filters import filter_of_words
    from ..utils.chunks import chunked

    if query is not None and queries is not None:
        raise InputError("Give a query or --queries, not both.")
    asked = filter_of_words(conditions or [])
    with SearchIndex.open(folder) as index:
        if verify:
            index.verify()
            console().print(f"{folder} is whole: {index.store.counts().passages:,} passages")
            if query is None and queries is None:
                return
        if model or device or runtime or threads:
            name = model or index.model
            index.use(open_encoder(name, device=device, runtime=runtime or index.runtime, threads=threads), name)

        def find(texts: list[str]) -> list[list[Hit]]:
            return index.search(texts, k=k, filter=asked, hybrid=hybrid)

        if query is None and queries is None and sys.stdin.isatty():
            console().print(f"{index.store.counts().documents:,} documents, {index.model}. An empty line ends.")
            with suppress(EOFError):
                while typed := input("query: ").strip():
                    try:
                        _show(typed, find([typed])[0])
                    except InputError as error:
                        typer.secho(f"error: {error}", fg=typer.colors.RED)
            return
        given = [query] if query is not None else read_queries(queries)
        results = [result for part in chunked(given, _AT_ONCE) for result in zip(part, find(part), strict=True)]
    if sys.stdout.isatty() and json_file is None:
        for text, hits in results:
            _show(text, hits)
        return
    found = [{"query": text, "hits": [hit.as_dict() for hit in hits]} for text, hits in results]
    write_result({"results": found}, json_file or "-")


def _show(query: str, hits: list[Hit]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(query), show_lines=True, expand=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("id", overflow="fold", max_width=24)
    table.add_column("passage", ratio=1)
    for hit in hits:
        passage = Text(hit.text)
        if hit.highlight and hit.highlight != (0, len(hit.text)):
            passage.stylize("bold", *hit.highlight)
        known = [f"{name}={value}" for name, value in list(hit.metadata.items())[:_SHOWN_METADATA] if value is not None]
        if known:
            passage.append("\n" + "  ".join(known), "dim")
        table.add_row(f"{hit.score:.3f}", Text(hit.id), passage)
    Console().print(table if hits else Text(f"{query}: nothing found"))


def read_queries(path: Path | None) -> list[str]:
    """The queries of a file, or of standard input where there is none or it is ``-``, which has one a line."""
    blocks: Iterator[Block]
    if path is None or str(path) == "-":
        blocks = ([lines] for _, lines in decoded_lines(sys.stdin.buffer, "standard input"))
    elif file_kind(path) is None and path.is_file():  # a name without an ending, say
        blocks = ([lines] for _, lines in line_blocks(path))
    else:
        blocks = read_blocks(find_source(path), Columns((("query",), *TEXT_COLUMNS)))
    found = [query for (queries,) in blocks for query in queries if query.strip()]
    if not found:
        raise InputError("No query was given.")
    return found
