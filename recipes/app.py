"""The command line's root. Commands import what they need when they run, so that ``--help`` is quick."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ._common import user_errors
from .benchmark import benchmark
from .distill import distill
from .encode import encode
from .evaluate import evaluate
from .export import export
from .index import index
from .poolings import poolings
from .quickstart import quickstart
from .search import search
from .serve import serve
from .similarity import similarity
from .sweep import sweep, sweep_report
from .train import train


class _Recipes(TyperGroup):
    def invoke(self, ctx: Any) -> object:
        with user_errors():
            return super().invoke(ctx)


app = typer.Typer(
    name="distilface",
    cls=_Recipes,
    help="Small sentence encoders, trained on your own unlabelled text.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"distilface {metadata.version('distilface-st')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


for _recipe in (
    train,
    distill,
    evaluate,
    poolings,
    sweep,
    sweep_report,
    export,
    benchmark,
    encode,
    similarity,
    index,
    search,
    serve,
):
    app.command()(_recipe)


app.command()(quickstart)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
