"""The command line's root. Commands import what they need when they run, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ._common import user_errors

if TYPE_CHECKING:
    from collections.abc import Iterable

COMMANDS = {
    **{name: name for name in ("train", "distill", "evaluate", "poolings", "sweep")},
    "sweep-report": "sweep",
    **{
        name: name for name in ("export", "benchmark", "encode", "similarity", "index", "search", "serve", "quickstart")
    },
}
"""The commands in the order of ``--help``, each with the module that it stands in."""


class _Recipes(TyperGroup):
    def invoke(self, ctx: Any) -> object:
        with user_errors():
            return super().invoke(ctx)


def make_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with some of the commands: only their modules are imported."""
    made = typer.Typer(
        name="distilface",
        cls=_Recipes,
        help="Small sentence encoders, trained on your own unlabelled text.",
        no_args_is_help=True,
        pretty_exceptions_show_locals=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_root)
    for name in names:
        module = import_module(f".{COMMANDS[name]}", __package__)
        made.command(name)(getattr(module, name.replace("-", "_")))
    return made


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"distilface {metadata.version('distilface-st')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def __getattr__(name: str) -> typer.Typer:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = made = make_app()
    return made


def main() -> None:
    """Run the command line; one that begins with a command's name is spared the others' imports."""
    named = sys.argv[1:2]
    make_app(named if named and named[0] in COMMANDS else COMMANDS)()


if __name__ == "__main__":
    main()
