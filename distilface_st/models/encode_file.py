"""Embedding a whole file, any size: text streams in, embeddings stream out, memory stays that of a chunk."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets.readers import TEXT_COLUMNS, Columns, read_blocks
from ..datasets.sources import find_source
from ..errors import InputError
from ..utils.files import atomic_file

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from sentence_transformers import SentenceTransformer

CHUNK = 4096
"""Texts in memory at once; each chunk is sorted by length before it is cut into batches."""


class _Writer(ABC):
    def __init__(self, path: Path, dimension: int) -> None:
        self.dimension = dimension

    @abstractmethod
    def write(self, texts: list[str], embeddings: np.ndarray) -> None:
        """Append texts and their embeddings, shape (texts, dimension), float32."""

    @abstractmethod
    def close(self) -> None:
        """Finish the file."""


class _NpyWriter(_Writer):
    """Embeddings alone, row by row; the header, whose size numpy keeps fixed for growing arrays, is written last."""

    def __init__(self, path: Path, dimension: int) -> None:
        super().__init__(path, dimension)
        self._file = path.open("wb")
        self._rows = 0
        self._write_header()

    def write(self, texts: list[str], embeddings: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(embeddings).data)
        self._rows += len(texts)

    def close(self) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header()

    def _write_header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._rows, self.dimension)}
        np.lib.format.write_array_header_1_0(self._file, header)


class _JsonlWriter(_Writer):
    """A line a text: ``{"text": ..., "embedding": [...]}``."""

    def __init__(self, path: Path, dimension: int) -> None:
        super().__init__(path, dimension)
        self._file = path.open("w", encoding="utf-8")

    def write(self, texts: list[str], embeddings: np.ndarray) -> None:
        for text, embedding in zip(texts, embeddings.tolist(), strict=True):
            self._file.write(json.dumps({"text": text, "embedding": embedding}, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class _ParquetWriter(_Writer):
    """Columns ``text`` (string) and ``embedding`` (fixed-size list of float32)."""

    def __init__(self, path: Path, dimension: int) -> None:
        super().__init__(path, dimension)
        import pyarrow as pa
        from pyarrow import parquet

        schema = pa.schema([("text", pa.string()), ("embedding", pa.list_(pa.float32(), dimension))])
        self._pa, self._schema = pa, schema
        self._writer = parquet.ParquetWriter(path, schema)

    def write(self, texts: list[str], embeddings: np.ndarray) -> None:
        values = self._pa.array(np.ascontiguousarray(embeddings).reshape(-1))
        column = self._pa.FixedSizeListArray.from_arrays(values, self.dimension)
        self._writer.write_table(self._pa.table([self._pa.array(texts), column], schema=self._schema))

    def close(self) -> None:
        self._writer.close()


_WRITERS: dict[str, type[_Writer]] = {".npy": _NpyWriter, ".jsonl": _JsonlWriter, ".parquet": _ParquetWriter}


def encode_file(
    model: SentenceTransformer,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    column: str | None = None,
    batch_size: int = 64,
    normalize: bool = False,
    progress: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Embed every record of a source, in order, blank ones included, so that row i belongs to record i.

    Args:
        model: The model.
        source: As for :func:`distilface_st.datasets.sentences.load_sentences`.
        output: ``.npy`` (embeddings alone), ``.parquet`` or ``.jsonl`` (text and embedding); whole or not at all.
        column: Field or column that holds the text.
        batch_size: Texts in one forward pass.
        normalize: Whether to scale embeddings to length 1.
        progress: Called with the number of texts done, after each chunk.

    Returns:
        ``rows``, ``dimension`` and ``output``.

    Raises:
        InputError: An output ending that is none of the three, or a source that cannot be read or is empty.
    """
    output = Path(output)
    if output.suffix not in _WRITERS:
        raise InputError(f"{output} ends in {output.suffix!r}: embeddings go to {', '.join(_WRITERS)}.")
    names = None if column is None else (column,)
    texts = read_blocks(find_source(source), Columns(TEXT_COLUMNS, names))
    dimension = model.get_embedding_dimension()
    if dimension is None:
        raise InputError("The model does not say how many dimensions its embeddings have.")
    rows = 0
    with atomic_file(output) as temporary:
        writer = _WRITERS[output.suffix](temporary, dimension)
        try:
            for chunk in _chunks(block[0] for block in texts):
                embeddings = model.encode(
                    chunk, batch_size=batch_size, normalize_embeddings=normalize, show_progress_bar=False
                )
                writer.write(chunk, np.asarray(embeddings, dtype=np.float32))
                rows += len(chunk)
                progress(rows)
        finally:
            writer.close()
        if not rows:
            raise InputError(f"{source} holds no text.")
    return {"rows": rows, "dimension": dimension, "output": str(output)}


def _chunks(blocks: Iterator[list[str]]) -> Iterator[list[str]]:
    for block in blocks:
        for start in range(0, len(block), CHUNK):
            yield block[start : start + CHUNK]
