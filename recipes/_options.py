"""Options made from a config dataclass: its documentation is their help, and its limits are theirs."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._common import parse_layers, parse_modes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
_TYPES = {"int": int, "float": float, "bool": bool, "tuple[int, ...]": list[int], "tuple[float, ...]": list[float]}
"""What an option holds, by the annotation of its field; str for any other."""

_PARSERS: dict[str, Callable[[str], Any]] = {"layers": parse_layers, "pooling_mode": parse_modes}

_PANEL_OF = {
    **dict.fromkeys(("encoder", "layers", "layer_reduction", "pooling_mode", "normalize", "trim"), "Model"),
    "views": "Data",
    **dict.fromkeys(("eval_steps", "patience", "seed"), "Run"),
}


@dataclass(frozen=True)
class Shown:
    """How a field is shown as an option, where that is not the field's own name and documentation."""

    names: tuple[str, ...] = ()
    help: str | None = None
    panel: str | None = None
    hidden: tuple[str, ...] = ()  # further names, which --help does not list


def config_options(
    config: type[Any], shown: Mapping[str, Shown] | None = None, only: Sequence[str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command, so that it has an option for each field of a dataclass, or for each of ``only``.

    The command needs a parameter ``given``: it gets the settings that the user gave, by field, as the dataclass takes
    them. In ``--help`` the options stand where ``given`` stands among the parameters. Names that fields had before
    (``distilface_st.utils.deprecation.renamed``) are hidden options.
    """
    docs = setting_docs(config)
    options: list[inspect.Parameter] = []
    field_of: dict[str, str] = {}  # by parameter; those of hidden options are named after the option

    def add(parameter: str, field: Any, names: Sequence[str], **extra: Any) -> None:
        kind: Any = _TYPES.get(str(field.type).removesuffix(" | None"), str)
        minimum = field.metadata.get("minimum") if kind in (int, float) else None
        annotation = Annotated[kind | None, typer.Option(*names, min=minimum, **extra)]
        options.append(inspect.Parameter(parameter, _KEYWORD_ONLY, default=None, annotation=annotation))
        field_of[parameter] = field.name

    for field in fields(config):
        if only is not None and field.name not in only:
            continue
        how = (shown or {}).get(field.name, Shown())
        has_default = field.default and not isinstance(field.default, bool)
        text = how.help or docs[field.name] + (f" Default: {field.default}." if has_default else "")
        add(field.name, field, how.names, help=text, rich_help_panel=how.panel or _PANEL_OF.get(field.name))
        old = [f"--{old.replace('_', '-')}" for old, new in getattr(config, "RENAMED", {}).items() if new == field.name]
        for name in sorted({*old, *how.hidden} - {*how.names}):
            add(name.strip("-").replace("-", "_"), field, [name], hidden=True)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            parameters += options if parameter.name == "given" else [parameter.replace(kind=_KEYWORD_ONLY)]

        @wraps(command)
        def run(**arguments: Any) -> None:
            given: dict[str, Any] = {}
            for parameter, name in field_of.items():
                value: Any = arguments.pop(parameter)
                if value is None or value == []:
                    continue
                value = tuple(value) if isinstance(value, list) else value
                given.setdefault(name, _PARSERS[name](value) if name in _PARSERS else value)
            command(**arguments, given=given)

        # What typer reads to make the command line.
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def setting_docs(config: type[Any]) -> dict[str, str]:
    """What the docstrings of a dataclass and its bases say of each field, under ``Attributes:``."""
    found = {}
    for owner in reversed(config.__mro__):
        section = inspect.cleandoc(owner.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            found[name] = " ".join(text.replace("``", "").split())
    return found
