"""Documents read from files of any size, with their ids and everything else that the files say of them."""

from __future__ import annotations

import csv
import math
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from ..datasets.columns import listed
from ..datasets.readers import line_blocks, parse_record
from ..datasets.sources import file_kind, find_source
from ..errors import InputError
from .hits import Document

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

T = TypeVar("T")

TEXT_FIELDS = ("text", "sentence", "content", "body")
ID_FIELD = "id"
LONGEST_ID = 512
"""Bytes of an id."""

_BATCH_ROWS = 1024


def read_documents(
    source: str | os.PathLike[str], id_field: str | None = None, text_field: str | None = None
) -> Iterator[Document]:
    """Read documents one by one.

    Args:
        source: .txt (a document a line), .jsonl, .csv, .tsv (each also .gz), .parquet, .arrow, a folder of those, or a
            Hub dataset.
        id_field: Field with the id, a string or a whole number; by default ``id`` where the first record has one, else
            documents are numbered from 0, in a folder with the file's name before.
        text_field: Field with the text; by default the first of ``text``, ``sentence``, ``content``, ``body``.

    Yields:
        Documents in order, blank ones included. Metadata are the record's other fields.

    Raises:
        InputError: A file that cannot be read, a record without text or id, or one that is not what it should be; with
            file and line.
    """
    found = find_source(source)
    several = len(found.files) > 1
    for path in found.files:
        kind = str(file_kind(path))
        named = id_field
        for number, (where, record) in enumerate(_READERS[kind](path)):
            if number == 0:
                if kind != ".txt" and named is None and ID_FIELD in record:
                    named = ID_FIELD
                text_field = text_field or _text_field(record, where)
            counted = f"{path.name}:{number}" if several else str(number)
            yield _document(record, named, text_field, counted, where)


def _text_field(record: dict[str, Any], where: str) -> str:
    for name in TEXT_FIELDS:
        if name in record:
            return name
    texts = [name for name, value in record.items() if isinstance(value, str)]
    if len(texts) == 1:
        return texts[0]
    raise InputError(f"{where}: name the field that holds the text (--text-field); found: {listed(list(record))}")


def _document(
    record: dict[str, Any], id_field: str | None, text_field: str | None, number: str, where: str
) -> Document:
    metadata = {str(name): _plain(value) for name, value in record.items() if name not in (id_field, text_field)}
    text = record.get(str(text_field), "")
    if text is None:
        text = ""
    if text_field not in record or not isinstance(text, str):
        raise InputError(f"{where}: no text in field {text_field!r}; found: {listed(list(record))}")
    identity = number if id_field is None else record.get(id_field)
    if isinstance(identity, bool) or not isinstance(identity, (str, int)) or identity == "":
        raise InputError(f"{where}: field {id_field!r} must hold an id, a string or a whole number")
    identity = str(identity)
    try:
        size = len(identity.encode())
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: half a surrogate pair, which is not text") from None
    if size > LONGEST_ID:
        raise InputError(f"{where}: an id of {size} bytes; at most {LONGEST_ID} are kept")
    return Document(identity, text, metadata, where)


def _plain(value: Any) -> Any:
    """The value as JSON can say it: a date as text, what is no number as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value if value is None or isinstance(value, (bool, int)) else str(value)


def _read_txt(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for first, lines in line_blocks(path):
        for number, line in enumerate(lines, first):
            yield f"{path}:{number}", {"text": line}


def _read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for first, lines in line_blocks(path):
        for number, line in enumerate(lines, first):
            if line.strip():
                where = f"{path}:{number}"
                yield where, parse_record(line, where)


def _read_csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = csv.reader((line + "\n" for _, block in line_blocks(path) for line in block), strict=True)
    yield from _with_header(path, rows)


def _read_tsv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from _with_header(path, (line.rstrip("\r").split("\t") for _, block in line_blocks(path) for line in block))


def _with_header(path: Path, rows: Iterator[list[str]]) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 1
    try:
        header = [name.strip() for name in next(rows, [])]
        for cells in rows:
            number += 1
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise InputError(f"{path}: row {number} has {len(cells)} cells, the first one {len(header)}")
            yield f"{path}: row {number}", dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: row {number + 1} cannot be read as CSV ({error})") from error


def _read_parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield from _numbered(path, file.iter_batches(_BATCH_ROWS))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from error


def _read_arrow(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as batches:
            yield from _numbered(path, batches)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Arrow stream ({error})") from error


def _numbered(path: Path, batches: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            for record in batch.slice(start, _BATCH_ROWS).to_pylist():
                number += 1
                yield f"{path}: record {number}", record


_READERS = {
    ".txt": _read_txt,
    ".tsv": _read_tsv,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
}


def in_chunks(documents: Iterator[T], size: int) -> Iterator[list[T]]:
    """Consecutive documents, ``size`` at a time."""
    while chunk := list(islice(documents, size)):
        yield chunk
