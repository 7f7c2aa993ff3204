"""``distilface serve``: embeddings and search over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ._common import MODEL_HELP, Device, Runtime, Threads, valid_text

_KEY_VARIABLE = "DISTILFACE_API_KEY"


def serve(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help=f"{MODEL_HELP} Default: the index's own, else distilface-mini."),
    ] = None,
    index: Annotated[Path | None, typer.Option(help="Folder of an index, for search.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on. Default: this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar=_KEY_VARIABLE,
            callback=valid_text,
            help="Key that clients must send; repeat it for several (in the variable: separated by spaces, and "
            "unseen by other users of this machine).",
        ),
    ] = None,
    batching: Annotated[
        bool, typer.Option("--batching/--no-batching", help="Merge concurrent requests into batches.")
    ] = True,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Most tokens in a batch; a graphics card wants more.")
    ] = 1024,
    max_wait_ms: Annotated[
        float, typer.Option(min=0, help="Longest wait for more requests, after a batch of several.")
    ] = 2.0,
    queue_texts: Annotated[int, typer.Option(min=1, help="Most texts waiting; beyond them, 429.")] = 4096,
    queue_tokens: Annotated[int, typer.Option(min=1, help="Most tokens waiting; beyond them, 429.")] = 262_144,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that a request may take.")] = 60.0,
    keep_alive: Annotated[
        float, typer.Option(min=0, help="Seconds after which an idle connection is closed; longer than a proxy's.")
    ] = 5.0,
    log_text: Annotated[bool, typer.Option("--log-text", help="Write clients' texts into the log.")] = False,
    device: Device = None,
    runtime: Runtime = None,
    threads: Threads = None,
) -> None:
    """Serve embeddings with OpenAI's API, and search in an index, until stopped."""
    from ..serving import ServerSettings
    from ..serving import serve as run_server

    if not api_key and _KEY_VARIABLE in os.environ:
        raise InputError(f"{_KEY_VARIABLE} is set and empty, which would leave the server open: unset it or fill it.")
    run_server(
        model,
        index,
        host=host,
        port=port,
        settings=ServerSettings(
            api_keys=tuple(api_key or ()),
            batching=batching,
            batch_tokens=batch_tokens,
            max_wait_ms=max_wait_ms,
            queue_texts=queue_texts,
            queue_tokens=queue_tokens,
            request_timeout=timeout,
            keep_alive=keep_alive,
            log_text=log_text,
        ),
        device=device,
        runtime=runtime,
        threads=threads,
    )
