"""Reading text out of files, block by block, as columns of strings; each fault is reported with file and line."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .columns import listed
from .sources import file_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from .columns import Block, Columns
    from .sources import Source

_BLOCK_BYTES = 1 << 21
_BATCH_ROWS = 4096


def read_blocks(source: Source, columns: Columns) -> Iterator[Block]:
    """Read the wanted columns of all files of a source.

    Args:
        source: The files. A line of a .txt file is a record of one column.
        columns: The columns to read from files that have several.

    Yields:
        Blocks of a few MB of text, cells as they stand in the file. A missing value (JSON ``null``) is an empty string.

    Raises:
        InputError: If a file cannot be read as what its suffix says.
    """
    if columns.names is not None and all(file_kind(file) == ".txt" for file in source.files):
        raise InputError(f"{source.name}: a .txt file has no columns, it is read whole; leave out {columns.names[0]!r}")
    for file in source.files:
        yield from _READERS[str(file_kind(file))](file, columns)


def _read_txt(path: Path, columns: Columns) -> Iterator[Block]:
    if columns.width > 1:
        raise InputError(
            f"{path}: a .txt file holds one text a line; pairs need two columns (.tsv, .csv, .jsonl, .parquet)"
        )
    for _, lines in line_blocks(path):
        yield [lines]


def _read_tsv(path: Path, columns: Columns) -> Iterator[Block]:
    indices: list[int] | None = None
    width = 0
    for first, lines in line_blocks(path):
        block = _empty_block(columns)
        for number, line in enumerate(lines, first):
            cells = line.rstrip("\r").split("\t")
            if indices is None:
                width = len(cells)
                indices, is_header = _tsv_layout(cells, columns, f"{path}:{number}")
                if is_header:
                    continue
            _add_cells(block, cells, indices, width, path, number)
        yield block


def _tsv_layout(cells: list[str], columns: Columns, where: str) -> tuple[list[int], bool]:
    if columns.is_headerless(cells):
        return [0, 1], False
    return columns.find([cell.strip() for cell in cells], where), True


def _read_csv(path: Path, columns: Columns) -> Iterator[Block]:
    lines = (line + "\n" for _, block in line_blocks(path) for line in block)
    rows = csv.reader(lines, strict=True)
    indices: list[int] | None = None
    width = 0
    block = _empty_block(columns)
    size = 0
    number = 1
    try:
        for cells in rows:
            if indices is None:
                width = len(cells)
                indices = columns.find([cell.strip() for cell in cells], f"{path}:1")
            else:
                _add_cells(block, cells, indices, width, path, number)
                size += sum(map(len, cells)) + 1
            number = rows.line_num + 1
            if size >= _BLOCK_BYTES:
                yield block
                block, size = _empty_block(columns), 0
    except csv.Error as error:
        raise InputError(f"{path}:{number}: cannot be read as CSV ({error})") from error
    yield block


def _add_cells(block: Block, cells: list[str], indices: list[int], width: int, path: Path, number: int) -> None:
    if len(cells) == width:
        for column, index in zip(block, indices, strict=True):
            column.append(cells[index])
    elif not any(cell.strip() for cell in cells):
        _add_blank(block)
    else:
        raise InputError(f"{path}:{number}: {len(cells)} cells where the first line has {width}")


def _empty_block(columns: Columns) -> Block:
    return [[] for _ in range(columns.width)]


def _add_blank(block: Block) -> None:
    for column in block:
        column.append("")


def _read_jsonl(path: Path, columns: Columns) -> Iterator[Block]:
    fields: list[str] | None = None
    for first, lines in line_blocks(path):
        block = _empty_block(columns)
        for number, line in enumerate(lines, first):
            if not line.strip():
                _add_blank(block)
                continue
            where = f"{path}:{number}"
            record = parse_record(line, where)
            if fields is None:
                names = list(record)
                fields = [names[index] for index in columns.find(names, where)]
            for column, field in zip(block, fields, strict=True):
                column.append(_text_field(record, field, where))
        yield block


def parse_record(line: str, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputError: Something else.
    """
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON ({error})") from error
    except RecursionError:
        raise InputError(f"{where}: JSON nested too deeply") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: a JSON object a line is needed, found {_json_type(record)}")
    return record


def _text_field(record: dict[str, Any], field: str, where: str) -> str:
    try:
        value = record[field]
    except KeyError:
        raise InputError(f"{where}: no field {field!r}; found: {listed(list(record))}") from None
    if isinstance(value, str):
        if not value.isascii():
            _check_unicode(value, field, where)
        return value
    if value is None:
        return ""
    raise InputError(f"{where}: field {field!r} must be a string, found {_json_type(value)}")


def _check_unicode(value: str, field: str, where: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{where}: field {field!r} holds half a surrogate pair, which is not text") from None


def _json_type(value: object) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "null")


def _read_parquet(path: Path, columns: Columns) -> Iterator[Block]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = _text_columns(file.schema_arrow, columns, path)
            yield from _columns_of(file.iter_batches(_BATCH_ROWS, columns=names), names)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from error


def _read_arrow(path: Path, columns: Columns) -> Iterator[Block]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as batches:
            names = _text_columns(batches.schema, columns, path)
            yield from _columns_of((part for batch in batches for part in _parts(batch)), names)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Arrow stream ({error})") from error


def _parts(batch: Any) -> Iterator[Any]:
    return (batch.slice(start, _BATCH_ROWS) for start in range(0, batch.num_rows, _BATCH_ROWS))


def _columns_of(batches: Iterable[Any], names: list[str]) -> Iterator[Block]:
    for batch in batches:
        batch.validate(full=True)  # neither format promises that its strings are UTF-8
        yield [[value or "" for value in batch.column(name).to_pylist()] for name in names]


def _text_columns(schema: Any, columns: Columns, path: Path) -> list[str]:
    import pyarrow as pa

    names = [schema.names[index] for index in columns.find(schema.names, str(path))]
    for name in names:
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise InputError(f"{path}: column {name!r} must hold strings, found {kind}")
    return names


def line_blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a UTF-8 file without their line feeds, in blocks, each with the number of its first line from 1."""
    number = 1
    with _open(path) as file:
        while raw := _read(file, path, number):
            raw = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            lines = _decode(raw, path, number).split("\n")
            if not lines[-1]:
                lines.pop()
            yield number, lines
            number += len(lines)


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _read(file: BinaryIO | gzip.GzipFile, path: Path, number: int) -> bytes:
    try:
        return file.read(_BLOCK_BYTES) + file.readline()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: not a whole gzip file; it breaks off after line {number - 1} or later ({error})"
        ) from error


def _decode(raw: bytes, path: Path, number: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = number + raw.count(b"\n", 0, error.start)
        found = f"byte 0x{raw[error.start]:02x}"
        raise InputError(f"{path}:{line}: not UTF-8 ({found}); convert the file to UTF-8 first") from error


_READERS = {
    ".txt": _read_txt,
    ".tsv": _read_tsv,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
}
