"""Embedding a whole file, any size: text streams in, embeddings stream out, memory stays that of a chunk."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets.readers import TEXT_COLUMNS, Columns, read_blocks
from ..datasets.sources import find_source
from ..errors import InputError
from ..utils.deprecation import renamed
from ..utils.files import atomic_file, check_output_file
from .encoders import check_model, embedding_dimension, embeddings_of, longest_input, special_tokens, token_counter

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from .encoders import Encoder

    Write = Callable[[list[str], np.ndarray], None]
    """Appends texts and their embeddings, shape (texts, d), float32."""

CHUNK = 4096
"""Texts in memory at once; each chunk is sorted by length before it is cut into batches."""


@renamed(normalize="normalize_embeddings")
def encode_file(
    model: Encoder,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    column: str | None = None,
    batch_size: int | None = None,
    normalize_embeddings: bool = False,
    progress: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Embed every record of a source, in order, blank ones included, so that row i belongs to record i.

    Args:
        model: An ``EdgeEncoder``, a ``SentenceTransformer``, ...
        source: As for :func:`distilface_st.load_sentences`.
        output: ``.npy`` (embeddings alone), ``.parquet`` or ``.jsonl`` (text and embedding); whole or not at all.
        column: Field or column that holds the text.
        batch_size: Texts in one forward pass; by default the encoder's own choice.
        normalize_embeddings: Whether to scale embeddings to length 1.
        progress: Called with the number of texts done, after each chunk.

    Returns:
        ``rows``, ``dimension`` and ``output``; ``cut``, how many texts are longer than the model reads, so that their
        embeddings say nothing of their ends.

    Raises:
        InputError: An output ending that is none of the three, or a source that cannot be read, is empty, or is the
            output itself; an embedding that is not finite.
    """
    output = Path(output)
    if output.suffix not in _WRITERS:
        raise InputError(f"{output} ends in {output.suffix!r}: embeddings go to {', '.join(_WRITERS)}.")
    check_output_file(output)
    found = find_source(source)
    if output.exists() and any(output.samefile(file) for file in found.files):
        raise InputError(f"{output} is the text itself: name another file for its embeddings.")
    blocks = read_blocks(found, Columns(TEXT_COLUMNS, None if column is None else (column,)))
    options: dict[str, Any] = {"normalize_embeddings": normalize_embeddings, "show_progress_bar": False}
    if batch_size is not None:
        options["batch_size"] = batch_size
    dimension = embedding_dimension(model)
    check_model(model)
    rows = cut = 0
    is_cut = _cut_by(model)
    with atomic_file(output) as temporary:
        with _WRITERS[output.suffix](temporary, dimension) as write:
            for (texts,) in blocks:
                for start in range(0, len(texts), CHUNK):
                    chunk = texts[start : start + CHUNK]
                    write(chunk, embeddings_of(model, chunk, **options))
                    rows += len(chunk)
                    cut += is_cut(chunk)
                    progress(rows)
        if not rows:
            raise InputError(f"{source} holds no text.")
    return {"rows": rows, "dimension": dimension, "output": str(output), "cut": cut}


def _cut_by(model: Any) -> Callable[[list[str]], int]:
    """Counts texts of which the model reads the beginning alone; short ones, in bytes, are not tokenized for it."""
    longest = longest_input(model)
    if longest is None:
        return lambda texts: 0
    counts = token_counter(model)
    prompt = (getattr(model, "prompts", None) or {}).get(getattr(model, "default_prompt_name", None)) or ""
    room = longest - special_tokens(model)

    def cut(texts: list[str]) -> int:
        likely = [prompt + text for text in texts if len((prompt + text).encode()) > room]
        return sum(count > room for count in counts(likely)) if likely else 0

    return cut


@contextmanager
def _npy(path: Path, dimension: int) -> Iterator[Write]:
    """Embeddings alone, row by row; the header, whose size numpy keeps fixed for growing arrays, is written last."""
    rows = 0

    def write(texts: list[str], embeddings: np.ndarray) -> None:
        nonlocal rows
        file.write(embeddings.data)
        rows += len(texts)

    def write_header() -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}
        np.lib.format.write_array_header_1_0(file, header)

    with path.open("wb") as file:
        write_header()
        yield write
        file.seek(0)
        write_header()


@contextmanager
def _jsonl(path: Path, dimension: int) -> Iterator[Write]:
    """One object a text: ``{"text": ..., "embedding": [...]}``."""

    def write(texts: list[str], embeddings: np.ndarray) -> None:
        for text, embedding in zip(texts, embeddings.tolist(), strict=True):
            file.write(json.dumps({"text": text, "embedding": embedding}, ensure_ascii=False) + "\n")

    with path.open("w", encoding="utf-8") as file:
        yield write


@contextmanager
def _parquet(path: Path, dimension: int) -> Iterator[Write]:
    """Columns ``text`` (string) and ``embedding`` (fixed-size list of float32)."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([("text", pa.string()), ("embedding", pa.list_(pa.float32(), dimension))])

    def write(texts: list[str], embeddings: np.ndarray) -> None:
        column = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), dimension)
        writer.write_table(pa.table([pa.array(texts), column], schema=schema))

    with path.open("wb") as file, parquet.ParquetWriter(file, schema) as writer:
        yield write


_WRITERS = {".npy": _npy, ".jsonl": _jsonl, ".parquet": _parquet}
