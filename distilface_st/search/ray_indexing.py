"""Indexing on a Ray cluster: passages to Parquet, Parquet through a pool of actors, and from there into the store."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import dataset, parquet

from ..errors import InputError
from ..inference.manifest import is_export
from ..pretrained import resolve_name
from ..utils.files import atomic_folder, write_json
from ..utils.ray import ray_cluster, ray_library
from .documents import in_chunks, read_documents
from .encoders import TextEncoder, open_encoder
from .hits import Document, Passage
from .index import MANIFEST, SearchIndex
from .indexing import CHUNK, Embedded, IndexSettings, Job, create_index, splitter_of, store_chunks

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

_PASSAGES, _EMBEDDED = "passages", "embedded"
_DONE = "done.json"
_OTHERS = 2
"""Cores for the tasks that read and write beside the actors, without which the actors wait for ever."""

_BLOCKS = 4
"""Blocks an actor at least, so that none has all the work."""

_BLANK = -1
"""Number of the row that stands for a document without a passage."""

_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("document", pa.string()),
        ("number", pa.int64()),
        ("text", pa.string()),
        ("metadata", pa.string()),
    ]
)


class EmbedPassages:
    """What an actor does: opens the model once, then embeds batches.

    Args:
        name: The model.
        fingerprint: Of the model that the driver opened.

    Raises:
        InputError: The node has another model under that name.
    """

    def __init__(self, name: str, fingerprint: str) -> None:
        threads = 1 if is_export(resolve_name(name)) else None  # torch keeps to an actor's one core by itself
        self.encoder = open_encoder(name, threads=threads)
        if self.encoder.fingerprint != fingerprint:
            raise InputError(f"{name} is another model on this node ({self.encoder.fingerprint}, not {fingerprint}).")

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The rows' numbers and vectors."""
        return {"row": batch["row"], "vector": self.encoder.encode_documents(batch["text"].tolist())}


def index_with_ray(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    encoder: TextEncoder,
    settings: IndexSettings | None = None,
    *,
    address: str = "local",
    workers: int = 2,
    batch_size: int = 256,
    mode: str = "create",
    id_field: str | None = None,
    text_field: str | None = None,
    progress: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Index a corpus as :func:`distilface_st.search.index_corpus` does, its passages embedded on a Ray cluster.

    Passages go to Parquet files in the index's folder, Ray Data streams them through a pool of actors that each hold
    the model, and their vectors come back as Parquet, which the store then takes in order. An actor that dies is
    started again and its batch with it; every passage must have come back before anything is stored. A stage that was
    finished is not done again. The nodes must see the index's folder (a shared disk) and have this package and the
    model.

    Args:
        source: As for ``index_corpus``; the next five likewise.
        folder: The index.
        encoder: The model, by a name that every node can open.
        settings: How to make a new index.
        address: The cluster's; ``local`` starts one on this machine.
        workers: Actors, each with a model and a core.
        batch_size: Passages a batch.
        mode: ``create``, ``add`` or ``update``.
        id_field: Field with the ids.
        text_field: Field with the text.
        progress: Called with the number of documents stored.

    Raises:
        InputError: As ``index_corpus``; passages that did not come back.
        MissingExtraError: Ray is not installed.
    """
    ray_library("Indexing on Ray")
    folder = Path(folder).absolute()
    job = Job.of(mode, source, id_field, text_field)
    if mode == "create" and not (folder / MANIFEST).exists():
        create_index(folder, encoder, settings or IndexSettings(), job)
    with SearchIndex.open(folder, encoder) as index:
        done, is_new = job.begin(index.store, may_be_new=mode != "create")
        work = folder / f"ray-{job.key}"
        if not (work / _PASSAGES / _DONE).exists():
            documents = read_documents(source, id_field, text_field)
            _write_passages(documents, splitter_of(index, encoder), work / _PASSAGES)
        if not (work / _EMBEDDED / _DONE).exists():
            _embed(work, encoder, address, workers, batch_size)
        result = store_chunks(index, job, done, _embedded(work, done), progress, is_new)
    shutil.rmtree(work)
    return result


def _write_passages(documents: Iterator[Document], splitter: Any, target: Path) -> None:
    """A file a chunk of documents, with the rows of their passages numbered through."""
    row = 0
    parts: list[int] = []
    with atomic_folder(target) as folder:
        for number, chunk in enumerate(in_chunks(documents, CHUNK)):
            passages = splitter(chunk)
            there = {passage.document for passage in passages}
            blank = [Passage(document.id, _BLANK, "", {}) for document in chunk if document.id not in there]
            rows = [
                {
                    "row": row + i,
                    "document": passage.document,
                    "number": passage.number,
                    "text": passage.text,
                    "metadata": json.dumps(passage.metadata, ensure_ascii=False),
                }
                for i, passage in enumerate([*passages, *blank])
            ]
            parquet.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), folder / f"part-{number:06}.parquet")
            row += len(rows)
            parts.append(len(chunk))
        write_json(folder / _DONE, {"rows": row, "documents": parts})


def _embed(work: Path, encoder: TextEncoder, address: str, workers: int, batch_size: int) -> None:
    target = work / _EMBEDDED
    shutil.rmtree(target, ignore_errors=True)
    with ray_cluster("Indexing on Ray", address, workers + _OTHERS) as ray:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        passages = ray.data.read_parquet(
            str(work / _PASSAGES),
            columns=["row", "text"],
            file_extensions=["parquet"],
            override_num_blocks=max(_BLOCKS * workers, len(list((work / _PASSAGES).glob("part-*")))),
        )
        vectors = passages.map_batches(
            EmbedPassages,
            fn_constructor_args=(encoder.name, encoder.fingerprint),
            batch_size=batch_size,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
        )
        vectors.write_parquet(str(target))
    rows = json.loads((work / _PASSAGES / _DONE).read_text(encoding="utf-8"))["rows"]
    found = np.unique(dataset.dataset(target, format="parquet").to_table(columns=["row"])["row"].to_numpy())
    if len(found) != rows:
        raise InputError(f"{rows - len(found):,} of {rows:,} passages did not come back from Ray: run again.")
    write_json(target / _DONE, {"rows": rows})


def _embedded(work: Path, done: int) -> Iterator[Embedded]:
    """The chunks that are not stored yet, with their vectors."""
    counts = json.loads((work / _PASSAGES / _DONE).read_text(encoding="utf-8"))["documents"]
    vectors = dataset.dataset([str(path) for path in sorted((work / _EMBEDDED).glob("*.parquet"))], format="parquet")
    before = 0
    for number, count in enumerate(counts):
        before += count
        if before <= done:
            continue
        rows = parquet.read_table(work / _PASSAGES / f"part-{number:06}.parquet").to_pylist()
        kept = [row for row in rows if row["number"] != _BLANK]
        passages = [Passage(row["document"], row["number"], row["text"], json.loads(row["metadata"])) for row in kept]
        documents = [
            Document(name, "", {}, f"document {name}") for name in dict.fromkeys(row["document"] for row in rows)
        ]
        yield Embedded(documents, passages, _vectors_of(vectors, [row["row"] for row in kept]))


def _vectors_of(vectors: Any, rows: list[int]) -> np.ndarray:
    """Vectors by row number, whatever order they came back in and however often."""
    if not rows:
        return np.zeros((0, 0), np.float32)
    field = dataset.field("row")
    table = vectors.to_table(filter=(field >= rows[0]) & (field <= rows[-1]))
    numbers = table["row"].to_numpy()
    column = table["vector"].combine_chunks()
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    found = storage.flatten().to_numpy().reshape(len(numbers), -1).astype(np.float32)
    order = np.argsort(numbers, kind="stable")
    chosen: np.ndarray = found[order[np.searchsorted(numbers[order], rows)]]
    return chosen
