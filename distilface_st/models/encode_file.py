"""Embedding a whole file, any size: text streams in, embeddings stream out, memory stays that of a chunk."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets.readers import TEXT_COLUMNS, Columns, read_blocks
from ..datasets.sources import find_source
from ..errors import InputError
from ..inference.precision import (
    SCALED,
    check_calibration,
    check_precision,
    quantize_embeddings,
    quantized_width,
    ranges_of,
)
from ..utils.deprecation import renamed
from ..utils.files import atomic_file, check_output_file
from .encoders import check_model, embedding_dimension, embeddings_of, longest_input, special_tokens, token_counter

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from typing import IO

    from numpy.typing import ArrayLike

    from .encoders import Encoder

    Chunk = tuple[list[str], np.ndarray]
    """Texts and their embeddings, shape (texts, d), float32."""

    Write = Callable[[list[str], np.ndarray], None]
    """Appends texts and their embeddings, shape (texts, width), as they are stored."""

CHUNK = 4096
"""Texts in memory at once; each chunk is sorted by length before it is cut into batches."""


@dataclass(frozen=True)
class Stored:
    """How a file holds embeddings.

    Attributes:
        precision: See :func:`distilface_st.inference.precision.quantize_embeddings`.
        width: Numbers of an embedding.
        ranges: For int8 and uint8: the least and the greatest number of each dimension, shape (2, d).
    """

    precision: str
    width: int
    ranges: np.ndarray | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of each number."""
        return np.dtype({"float32": "<f4", "int8": "i1", "binary": "i1"}.get(self.precision, "u1"))

    def listed_ranges(self) -> list[list[float]] | None:
        """The ranges as JSON has them."""
        return None if self.ranges is None else self.ranges.tolist()


@renamed(normalize="normalize_embeddings")
def encode_file(
    model: Encoder,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    column: str | None = None,
    batch_size: int | None = None,
    normalize_embeddings: bool = False,
    precision: str = "float32",
    ranges: ArrayLike | None = None,
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
        precision: ``float32``, ``int8`` or ``uint8`` (a byte a dimension), ``binary`` or ``ubinary`` (a bit); see
            :func:`distilface_st.inference.precision.quantize_embeddings`.
        ranges: For int8 and uint8: those of another file, shape (2, d), so that the two can be compared. By default
            those of all embeddings of this one, which lie in float32 in a temporary file until they are known.
        progress: Called with the number of texts done, after each chunk.

    Returns:
        ``rows``, ``dimension`` and ``output``; ``cut``, how many texts are longer than the model reads, so that their
        embeddings say nothing of their ends; ``precision``, and ``width``, how many numbers are stored of an embedding;
        ``ranges`` of int8 and uint8, two lists of d numbers, else None. A ``.parquet`` has precision and ranges in its
        schema's metadata, too.

    Raises:
        InputError: An output ending that is none of the three, or a source that cannot be read, is empty, or is the
            output itself; an embedding that is not finite; a precision that does not exist, or int8 or uint8 for a
            single text without ranges.
    """
    output = Path(output)
    if output.suffix not in _WRITERS:
        raise InputError(f"{output} ends in {output.suffix!r}: embeddings go to {', '.join(_WRITERS)}.")
    check_precision(precision)
    if ranges is not None and precision not in SCALED:
        raise InputError(f"Ranges are for {' and '.join(SCALED)}, not for {precision}.")
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

    def embedded() -> Iterator[Chunk]:
        nonlocal rows, cut
        for (texts,) in blocks:
            for start in range(0, len(texts), CHUNK):
                chunk = texts[start : start + CHUNK]
                yield chunk, embeddings_of(model, chunk, **options)
                rows += len(chunk)
                cut += is_cut(chunk)
                progress(rows)

    chunks = embedded()
    known = None if ranges is None else np.asarray(ranges, np.float32)
    with atomic_file(output) as temporary, ExitStack() as stack:
        if precision in SCALED and known is None:
            beside = None if temporary == output else temporary.parent  # a device has no room beside it
            kept = stack.enter_context(TemporaryFile(dir=beside))
            known = _keep(chunks, kept, dimension)
            check_calibration(rows, precision)
            chunks = _kept(kept)
        stored = Stored(precision, quantized_width(dimension, precision), known)
        with _WRITERS[output.suffix](temporary, stored) as write:
            for texts, embeddings in chunks:
                write(texts, quantize_embeddings(embeddings, precision, known))
        if not rows:
            raise InputError(f"{source} holds no text.")
    return {
        "rows": rows,
        "dimension": dimension,
        "output": str(output),
        "cut": cut,
        "precision": precision,
        "width": stored.width,
        "ranges": stored.listed_ranges(),
    }


def _keep(chunks: Iterable[Chunk], file: IO[bytes], dimension: int) -> np.ndarray:
    """Write chunks to a Parquet file as they are; the ranges of all their embeddings, shape (2, d)."""
    ranges = np.empty((0, dimension), np.float32)
    with _parquet_writer(file, Stored("float32", dimension)) as write:
        for texts, embeddings in chunks:
            write(texts, embeddings)
            ranges = ranges_of(np.concatenate([ranges, embeddings]))
    return ranges


def _kept(file: IO[bytes]) -> Iterator[Chunk]:
    """The chunks that :func:`_keep` wrote."""
    from pyarrow import parquet

    file.seek(0)
    for batch in parquet.ParquetFile(file).iter_batches(CHUNK):
        yield batch["text"].to_pylist(), batch["embedding"].flatten().to_numpy().reshape(len(batch), -1)


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
def _npy(path: Path, stored: Stored) -> Iterator[Write]:
    """Embeddings alone, row by row; the header, whose size numpy keeps fixed for growing arrays, is written last."""
    rows = 0

    def write(texts: list[str], embeddings: np.ndarray) -> None:
        nonlocal rows
        file.write(embeddings.data)
        rows += len(texts)

    def write_header() -> None:
        header = {"descr": stored.dtype.str, "fortran_order": False, "shape": (rows, stored.width)}
        np.lib.format.write_array_header_1_0(file, header)

    with path.open("wb") as file:
        write_header()
        yield write
        file.seek(0)
        write_header()


@contextmanager
def _jsonl(path: Path, stored: Stored) -> Iterator[Write]:
    """One object a text: ``{"text": ..., "embedding": [...]}``."""

    def write(texts: list[str], embeddings: np.ndarray) -> None:
        for text, embedding in zip(texts, embeddings.tolist(), strict=True):
            file.write(json.dumps({"text": text, "embedding": embedding}, ensure_ascii=False) + "\n")

    with path.open("w", encoding="utf-8") as file:
        yield write


@contextmanager
def _parquet(path: Path, stored: Stored) -> Iterator[Write]:
    """Columns ``text`` (string) and ``embedding`` (fixed-size list); what is stored, in the schema's metadata."""
    with path.open("wb") as file, _parquet_writer(file, stored) as write:
        yield write


@contextmanager
def _parquet_writer(file: IO[bytes], stored: Stored) -> Iterator[Write]:
    import pyarrow as pa
    from pyarrow import parquet

    metadata = {"precision": stored.precision}
    if stored.ranges is not None:
        metadata["ranges"] = json.dumps(stored.listed_ranges())
    numbers = pa.list_(pa.from_numpy_dtype(stored.dtype), stored.width)
    schema = pa.schema([("text", pa.string()), ("embedding", numbers)], metadata)

    def write(texts: list[str], embeddings: np.ndarray) -> None:
        column = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), stored.width)
        writer.write_table(pa.table([pa.array(texts), column], schema=schema))

    with parquet.ParquetWriter(file, schema) as writer:
        yield write


_WRITERS = {".npy": _npy, ".jsonl": _jsonl, ".parquet": _parquet}
