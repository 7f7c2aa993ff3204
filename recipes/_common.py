"""What the commands share: option types, output, and errors as one line."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ..datasets.readers import is_unicode
from ..errors import InputError, MissingExtraError
from ..utils.files import atomic_file, check_output_file, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.progress import Progress


def can_be_written(file: Any) -> Any:
    """What a file to write was given as; one that cannot be written is refused before any work."""
    if file is not None and str(file) != "-":
        check_output_file(file)
    return file


Device = Annotated[
    str | None, typer.Option("--device", help="Where to run: cpu, cuda, cuda:1, mps. Default: the best there is.")
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Sentences in one forward pass.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Runtime = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        help="torch; or for a shipped or exported model onnxruntime, openvino, or auto, which times both. Default: "
        "without torch where that is possible and no --device is given.",
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="For an exported model: processor threads. Default: all cores.")
]
JsonFile = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Write the result as JSON to FILE, or to stdout for '-'.",
        callback=can_be_written,
    ),
]
StsDir = Annotated[
    Path | None,
    typer.Option("--sts-dir", help="Folder with the STS sets in SentEval's layout. Default: the sets from the Hub."),
]
MODEL_HELP = (
    "A folder, a Hub name, 'distilface-mini' or 'distilface-micro' (shipped), or 'bundled' (MiniLM, extra offline)."
)
_BROKEN_PIPE = 141
"""Exit status of a program that the signal SIGPIPE ends."""

ModelOption = Annotated[str, typer.Option("--model", "-m", help=f"Model. {MODEL_HELP}")]
ModelArgument = Annotated[str, typer.Argument(metavar="[MODEL]", help=MODEL_HELP)]


def open_model(name: str, device: str | None, runtime: str | None, threads: int | None) -> Any:
    """The encoder that ``--model`` names, on the engine that the other options ask for."""
    from ..models.encoders import needs_torch, open_encoder

    if needs_torch(name, device, runtime):
        from ._progress import quiet_libraries

        quiet_libraries()
    return open_encoder(name, device=device, runtime=runtime, threads=threads)


def parse_layers(text: str | None) -> str | list[int] | None:
    """A layer selection as typed: a name, or indices with commas."""
    if text is None or not text.lstrip("-")[:1].isdigit():
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--layers {text}: give a name, or whole numbers with commas, such as 0,-1.") from None


def parse_modes(text: str | None) -> str | tuple[str, ...] | None:
    """Token pooling as typed: a mode, or several with commas."""
    return tuple(text.split(",")) if text and "," in text else text


def valid_text(given: Any) -> Any:
    """Refuse a text, or a name of what is to be written, in another encoding than the terminal's."""
    for text in map(str, given if isinstance(given, list) else [given] if given else ()):
        if not is_unicode(text):
            raise InputError(f"{text!r} is not valid {sys.getfilesystemencoding().upper()}: convert or rename it.")
    return given


def console() -> Console:
    """The console for tables and progress: stderr, so that stdout holds nothing but results that were asked for.

    In a pipe or a log, which have no width of their own, it is wide enough for the widest table.
    """
    from rich.console import Console

    return Console(stderr=True, width=None if sys.stderr.isatty() else 140)


def progress_bar(*columns: str) -> Progress:
    """A rich progress bar on stderr that shows nothing where stderr is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        *(TextColumn(column) for column in columns),
        console=console(),
        disable=not sys.stderr.isatty(),
    )


def write_result(result: dict[str, Any], json_file: str | None) -> None:
    """Write ``result`` where ``--json`` says: nowhere, to stdout (``-``) or, atomically, to a file."""
    if json_file is None:
        return
    if json_file == "-":
        # JSON is UTF-8 everywhere; where a terminal or a pipe is not, its escapes say the same in ASCII.
        is_utf8 = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
        sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=not is_utf8, allow_nan=False) + "\n")
        return
    write_json(json_file, result)


def write_csv(rows: list[dict[str, Any]], csv_file: Path | None) -> None:
    """Write ``rows``, all of the same keys, where ``--csv`` says: nowhere or, atomically, to a file."""
    if csv_file is None:
        return
    with atomic_file(csv_file) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a user's mistake into one line on stderr and exit status 1; a bug keeps its traceback.

    Characters that stdout or stderr cannot show are written as escapes, rather than end a command half-way.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()  # so that a closed pipe shows here, and not as Python ends
    except BrokenPipeError:  # whoever read stdout, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(_BROKEN_PIPE) from None
    except UnicodeEncodeError as error:
        if is_unicode(error.object):
            raise
        _fail(f"{error.object[:80]!r} is not valid {sys.getfilesystemencoding().upper()}: convert or rename it.", error)
    except (InputError, MissingExtraError, OSError) as error:
        _fail(str(error), error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _fail(message: str, error: Exception) -> NoReturn:
    typer.secho(f"error: {' '.join(message.split())}", err=True, fg=typer.colors.RED)
    raise typer.Exit(1) from error
