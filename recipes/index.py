"""``distilface index``: a corpus made searchable, or an index changed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..pretrained import DEFAULT_MODEL
from ._common import MODEL_HELP, Device, JsonFile, Runtime, Threads, console, progress_bar, write_result

_store = partial(typer.Option, rich_help_panel="Store")
_passages = partial(typer.Option, rich_help_panel="Passages")
_change = partial(typer.Option, rich_help_panel="Change an index")
_ray = partial(typer.Option, rich_help_panel="Ray")


def index(
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS",
            help="Documents: .txt (one a line), .jsonl, .csv, .tsv (each also .gz), .parquet, a folder, or a Hub "
            "dataset.",
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help=f"Model of a new index. {MODEL_HELP} Default: {DEFAULT_MODEL}.")
    ] = None,
    id_field: Annotated[
        str | None, typer.Option(help="Field with the ids. Default: id, else documents are numbered from 0.")
    ] = None,
    text_field: Annotated[str | None, typer.Option(help="Field with the text. Default: text, sentence, ...")] = None,
    store: Annotated[str, _store(help="faiss or milvus.")] = "faiss",
    kind: Annotated[
        str | None,
        _store(help="exact, hnsw, ivf-pq, int8 or binary (faiss); exact, hnsw or auto (milvus). Default: exact."),
    ] = None,
    uri: Annotated[
        str | None, _store(help="Address of a Milvus server, its token in MILVUS_TOKEN. Default: a local file.")
    ] = None,
    collection: Annotated[str | None, _store(help="Milvus collection.")] = None,
    tokens: Annotated[int, _passages("--passage-tokens", min=8, help="Most tokens a passage.")] = 128,
    overlap: Annotated[
        int | None,
        _passages(min=0, help="Tokens shared by neighbouring passages, at most. Default: a quarter of a passage's."),
    ] = None,
    add: Annotated[bool, _change("--add", help="Add documents with new ids.")] = False,
    update: Annotated[bool, _change("--update", help="Put documents in the place of those with their ids.")] = False,
    delete: Annotated[bool, _change("--delete", help="Take out the ids in CORPUS (a .txt: one a line).")] = False,
    ray: Annotated[str | None, _ray(help="Embed on a Ray cluster: its address, or 'local' for this machine.")] = None,
    workers: Annotated[int, _ray(min=1, help="Models loaded on the cluster.")] = 2,
    device: Device = None,
    runtime: Runtime = None,
    threads: Threads = None,
    json_file: JsonFile = None,
) -> None:
    """Make a corpus searchable: passages, their embeddings, and a store of both. Run again after a kill, it goes on."""
    from ..models.encoders import lasting_name, open_encoder
    from ..search import IndexSettings, RaySettings, delete_from_index, index_corpus
    from ..search.index import MANIFEST, read_manifest

    if add + update + delete > 1:
        raise InputError("Give one of --add, --update and --delete.")
    if delete:
        result = delete_from_index(corpus, folder, id_field=id_field)
        console().print(
            f"{result['deleted']:,} documents deleted, {result['missing']:,} were not there; {result['total']:,} left"
        )
        write_result(result, json_file)
        return
    made: dict[str, Any] = read_manifest(folder)["model"] if (folder / MANIFEST).exists() else {"name": DEFAULT_MODEL}
    name = model or made["name"]
    options = {"index": kind, "uri": uri, "collection": collection}
    with progress_bar() as bar:
        task = bar.add_task("indexing", total=None)
        result = index_corpus(
            corpus,
            folder,
            open_encoder(name, device=device, runtime=runtime or made.get("runtime"), threads=threads),
            IndexSettings(store, {key: value for key, value in options.items() if value is not None}, tokens, overlap),
            model_name=lasting_name(name),
            mode="add" if add else "update" if update else "create",
            id_field=id_field,
            text_field=text_field,
            progress=lambda done: bar.update(task, completed=done),
            ray=RaySettings(ray, workers) if ray else None,
        )
    blank = f" ({result['blank']:,} blank)" if result["blank"] else ""
    console().print(f"{result['documents']:,} documents read{blank}; {folder} has {result['total']:,}")
    write_result(result, json_file)
