"""Indexing on a Ray cluster: passages to Parquet, Parquet through a pool of actors, and from there into the store.

Ray Data streams the passages through actors that each hold the model, and their vectors come back as Parquet, which the
store then takes in order. An actor that dies is started again and its batch with it; every passage must have come back
before anything is stored. A stage that was finished is not done again.
"""

from __future__ import annotations

import json
import logging
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import dataset, parquet

from ..errors import InputError
from ..models.encoders import TORCH, open_encoder, runtime_of, unit_embeddings
from ..models.fingerprint import encoder_fingerprint
from ..utils.chunks import chunked
from ..utils.files import FolderKind, atomic_folder, read_json, write_json
from ..utils.ray import ray_cluster
from .hits import Document, Passage
from .indexing import CHUNK, Embedded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .documents import PassageSplitter
    from .index import NamedEncoder
    from .indexing import RaySettings

_PASSAGES, _EMBEDDED = "passages", "embedded"
_DONE = "done.json"
_OTHERS = 2  # cores for the tasks that read and write beside the actors, without which the actors wait for ever
_BLOCKS = 4  # blocks an actor at least, so that none has all the work
_BLANK = -1  # number of the row that stands for a document without a passage
_SCHEMA = pa.schema({"row": "int64", "document": "string", "number": "int64", "text": "string", "metadata": "string"})


def embedded_by_ray(
    documents: Iterable[Document],
    splitter: PassageSplitter,
    model: NamedEncoder,
    settings: RaySettings,
    work: Path,
    done: int,
) -> Iterator[Embedded]:
    """Chunks of documents, but for the first ``done``, with their passages' vectors; what is in ``work`` is not redone.

    Every node must be able to open the model by its name.
    """
    if not (work / _PASSAGES / _DONE).exists():
        _write_passages(documents, splitter, work / _PASSAGES)
    if not (work / _EMBEDDED / _DONE).exists():
        _embed(work, model, settings)
    vectors = dataset.dataset([str(path) for path in sorted((work / _EMBEDDED).glob("*.parquet"))], format="parquet")
    before = 0
    for number, count in enumerate(read_json(work / _PASSAGES / _DONE)["documents"]):
        before += count
        if before <= done:
            continue
        rows = parquet.read_table(work / _PASSAGES / f"part-{number:06}.parquet").to_pylist()
        names = dict.fromkeys(row["document"] for row in rows)
        kept = [row for row in rows if row["number"] != _BLANK]
        yield Embedded(
            [Document(name, "", {}, f"document {name}") for name in names],
            [Passage(row["document"], row["number"], row["text"], json.loads(row["metadata"])) for row in kept],
            _vectors_of(vectors, [row["row"] for row in kept]),
        )


def _write_passages(documents: Iterable[Document], splitter: PassageSplitter, target: Path) -> None:
    """A file a chunk of documents, with the rows of their passages numbered through."""
    row = 0
    parts: list[int] = []
    with atomic_folder(target, FolderKind("passages of an index", _DONE)) as folder:
        for number, chunk in enumerate(chunked(documents, CHUNK)):
            passages = splitter(chunk)
            there = {passage.document for passage in passages}
            passages += [Passage(document.id, _BLANK, "", {}) for document in chunk if document.id not in there]
            rows = [
                {**vars(passage), "row": row + i, "metadata": json.dumps(passage.metadata, ensure_ascii=False)}
                for i, passage in enumerate(passages)
            ]
            parquet.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), folder / f"part-{number:06}.parquet")
            row += len(rows)
            parts.append(len(chunk))
        write_json(folder / _DONE, {"rows": row, "documents": parts})


class EmbedPassages:
    """What an actor does: opens the model, which must be the one that the driver opened, then embeds batches."""

    def __init__(self, name: str, runtime: str | None, fingerprint: str) -> None:
        self.encoder = open_encoder(name, runtime=runtime, threads=None if runtime == TORCH else 1)
        found = encoder_fingerprint(self.encoder, name)
        if found != fingerprint:
            raise InputError(f"{name} is another model on this node ({found}, not {fingerprint}).")

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The rows' numbers and vectors."""
        return {"row": batch["row"], "vector": unit_embeddings(self.encoder, batch["text"].tolist(), "document")}


def _embed(work: Path, model: NamedEncoder, settings: RaySettings) -> None:
    target = work / _EMBEDDED
    shutil.rmtree(target, ignore_errors=True)
    # torch keeps to an actor's one core by itself; an exported model is told to
    runtime = runtime_of(model.encoder)
    with ray_cluster("Indexing on Ray", settings.address, settings.workers + _OTHERS) as ray:
        import ray.data

        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        passages = ray.data.read_parquet(
            str(work / _PASSAGES),
            file_extensions=["parquet"],
            override_num_blocks=max(_BLOCKS * settings.workers, len(list((work / _PASSAGES).glob("part-*")))),
        )
        vectors = passages.select_columns(["row", "text"]).map_batches(
            EmbedPassages,
            fn_constructor_args=(model.name, runtime, encoder_fingerprint(*model)),
            batch_size=settings.batch_size,
            compute=ray.data.ActorPoolStrategy(size=settings.workers),
            num_cpus=1,
        )
        vectors.write_parquet(str(target))
    rows = read_json(work / _PASSAGES / _DONE)["rows"]
    found = np.unique(dataset.dataset(target, format="parquet").to_table(columns=["row"])["row"].to_numpy())
    if len(found) != rows:
        raise InputError(f"{rows - len(found):,} of {rows:,} passages did not come back from Ray: run again.")
    write_json(target / _DONE, {"rows": rows})


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
