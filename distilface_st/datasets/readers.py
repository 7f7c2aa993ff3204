"""The reader of all text files: blocks of chosen columns, or whole records. A fault is reported with file and line."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import InputError
from .sources import Source, file_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# pyarrow is imported where its files are read, so that text files are read without waiting for it.

_BLOCK_BYTES = 1 << 21
_BATCH_ROWS = 4096
_SHOWN_NAMES = 8
_SNIFFED_LINES = 64
_SEPARATORS = ",;\t"
_LONGEST_CELL = 2**31 - 1
_STRINGS = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
"""Arrow's types that hold text, or bytes that may be text: Parquet files of other writers often do not say which."""

_JSON_TYPES = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
    type(None): "null",
}

Block = list[list[str]]
"""Consecutive records, as one list of strings for each column."""

TEXT_COLUMNS = (("text",), ("sentence",), ("content",), ("body",))
"""The column read where none is named: the first of these that is there, else the only one."""


@dataclass(frozen=True)
class Columns:
    """Which columns to read: ``names`` that the user gave, else the first entry of ``known`` that is there."""

    known: tuple[tuple[str, ...], ...]
    names: tuple[str, ...] | None = None

    @property
    def width(self) -> int:
        """How many columns are read."""
        return len(self.known[0])

    def find(self, found: Sequence[str], where: str) -> list[int]:
        """Indices of the columns to read among ``found``: those given, else known ones, else all if as many as needed.

        Where none of these applies, the error begins with ``where`` and lists what was found.
        """
        shown = listed(found)
        if self.names is not None:
            for name in self.names:
                if name not in found:
                    raise InputError(f"{where}: no column {name!r}; found: {shown}")
            return [found.index(name) for name in self.names]
        if (indices := self._known_in(found)) is not None:
            return indices
        if len(found) == self.width:
            return list(range(self.width))
        if self.width == 2:
            raise InputError(f"{where}: name the two columns to pair; found: {shown}")
        hint = " (if each line is a pair of sentences, use views=pairs)" if len(found) == 2 else ""
        raise InputError(f"{where}: name the column that holds the text; found: {shown}{hint}")

    def is_headerless(self, first_line: Sequence[str]) -> bool:
        """Whether the first line of a .tsv file is data: two cells to be paired, none asked for, no known names."""
        return self.names is None and len(first_line) == self.width == 2 and self._known_in(first_line) is None

    def _known_in(self, found: Sequence[str]) -> list[int] | None:
        lowered = [name.lower() for name in found]
        for names in self.known:
            if all(name in lowered for name in names):
                return [lowered.index(name) for name in names]
        return None


def listed(names: Iterable[str]) -> str:
    """Names as they are shown in a message: quoted, shortened, the first few of many."""
    names = list(names)
    shown = ", ".join(repr(name[:40]) for name in names[:_SHOWN_NAMES])
    return (shown or "none") + (", ..." if len(names) > _SHOWN_NAMES else "")


def is_unicode(text: str) -> bool:
    r"""Whether a string is text: JSON, and arguments in another encoding than the terminal's, may hold half characters.

    Example:
        >>> is_unicode("caf\u00e9"), is_unicode("caf\udce9")
        (True, False)
    """
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_blocks(source: Source, columns: Columns) -> Iterator[Block]:
    """Read the wanted columns of all files of a source in blocks of a few MB; a line of a .txt file is a record.

    A missing value (JSON ``null``) is an empty string, and a blank line is a record of such.
    """
    if columns.names is not None and all(file_kind(file) == ".txt" for file in source.files):
        raise InputError(f"{source.name}: a .txt file has no columns, it is read whole; leave out {columns.names[0]!r}")
    for path in source.files:
        match file_kind(path):
            case ".txt":
                if columns.width > 1:
                    needed = "pairs need two columns (.tsv, .csv, .jsonl, .parquet)"
                    raise InputError(f"{path}: a .txt file holds one text a line; {needed}")
                yield from ([lines] for _, lines in line_blocks(path))
            case ".jsonl":
                yield from _in_blocks(_fields(path, columns))
            case ".tsv" | ".csv":
                yield from _in_blocks(_cells(path, columns))
            case _:
                for batch in _batches(path, columns):
                    yield [[value or "" for value in column.to_pylist()] for column in batch.columns]


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of one file, each with where it stands (for messages); a line of a .txt file is the field ``text``.

    Blank lines of the other text files pass.
    """
    match file_kind(path):
        case ".txt":
            for number, line in numbered_lines(path):
                yield f"{path}:{number}", {"text": line}
        case ".jsonl":
            for number, record in _objects(path):
                if record is not None:
                    yield f"{path}:{number}", record
        case ".tsv" | ".csv":
            rows = read_rows(path)
            header = [name.strip() for name in next(rows, (1, []))[1]]
            for number, cells in rows:
                if any(cells):
                    check_width(cells, len(header), path, number)
                    yield f"{path}:{number}", dict(zip(header, cells, strict=True))
        case _:
            records = (record for batch in _batches(path) for record in _with_text(batch).to_pylist())
            for number, record in enumerate(records, 1):
                yield f"{path}: record {number}", record


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a .tsv or .csv file, each with the number of the line where it begins, from 1.

    In .tsv quotes are plain characters; in .csv a quoted cell may hold line breaks, and the separator is a comma,
    a semicolon or a tab, whichever cuts the first rows into as many cells each.
    """
    lines = (line for _, line in numbered_lines(path))
    if file_kind(path) == ".tsv":
        yield from enumerate((line.split("\t") for line in lines), 1)
        return
    csv.field_size_limit(_LONGEST_CELL)
    head = list(islice(lines, _SNIFFED_LINES))
    rows = csv.reader((line + "\n" for line in chain(head, lines)), delimiter=_separator(head), strict=True)
    number = 1
    try:
        for cells in rows:
            yield number, cells
            number = rows.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}:{number}: cannot be read as CSV ({error})") from error


def _separator(head: Sequence[str]) -> str:
    """The separator of a .csv file that begins with these lines; where none cuts them evenly, that of the first one."""

    def cells(separator: str) -> tuple[int, int]:
        widths = []
        try:
            for row in csv.reader((line + "\n" for line in head), delimiter=separator, strict=True):
                if any(row):
                    widths.append(len(row))
        except csv.Error as error:
            if "unexpected end" not in str(error):  # a quoted cell may well go on after these lines
                return 0, 0
        first = widths[0] if widths else 0
        return (first if first > 1 and set(widths) == {first} else 0), first

    return max(_SEPARATORS, key=cells)


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file one by one, as :func:`line_blocks` gives them, each with its number from 1."""
    for first, lines in line_blocks(path):
        yield from enumerate(lines, first)


def line_blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a UTF-8 file without what ends them, in blocks, each with the number of its first line from 1.

    LF or CR LF ends a line, and nothing else: other separators that Unicode knows occur inside sentences.
    """
    with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
        yield from decoded_lines(file, str(path))


def decoded_lines(file: BinaryIO | gzip.GzipFile, name: str) -> Iterator[tuple[int, list[str]]]:
    """What :func:`line_blocks` gives, of an open file, standard input say, which messages call by a name."""
    number = 1
    while True:
        try:
            raw = file.read(_BLOCK_BYTES) + file.readline()
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            broken = f"it breaks off after line {number - 1} or later"
            raise InputError(f"{name}: not a whole gzip file; {broken} ({error})") from error
        if not raw:
            return
        raw = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            line = number + raw.count(b"\n", 0, error.start)
            at = error.start - raw.rfind(b"\n", 0, error.start)
            found = f"byte 0x{raw[error.start]:02x} at byte {at} of the line"
            raise InputError(f"{name}:{line}: not UTF-8 ({found}); convert the file to UTF-8 first") from error
        lines = text.replace("\r\n", "\n").removesuffix("\r").split("\n")
        if not lines[-1]:
            lines.pop()
        yield number, lines
        number += len(lines)


def _in_blocks(rows: Iterable[Sequence[str]]) -> Iterator[Block]:
    """Rows of cells, as blocks of columns."""
    kept: list[Sequence[str]] = []
    size = 0
    for cells in rows:
        kept.append(cells)
        size += sum(map(len, cells)) + 1
        if size >= _BLOCK_BYTES:
            yield [list(column) for column in zip(*kept, strict=True)]
            kept, size = [], 0
    if kept:
        yield [list(column) for column in zip(*kept, strict=True)]


def _cells(path: Path, columns: Columns) -> Iterator[Sequence[str]]:
    indices: list[int] | None = None
    width = 0
    for number, cells in read_rows(path):
        if indices is None:
            width = len(cells)
            if file_kind(path) == ".csv" or not columns.is_headerless(cells):
                indices = columns.find([cell.strip() for cell in cells], f"{path}:{number}")
                continue
            indices = [0, 1]
        if len(cells) != width and not any(map(str.strip, cells)):
            yield [""] * len(indices)
            continue
        check_width(cells, width, path, number)
        yield [cells[index] for index in indices]


def check_width(cells: Sequence[str], width: int, path: Path, number: int) -> None:
    """Refuse a row with more or fewer cells than the first one."""
    if len(cells) != width:
        raise InputError(f"{path}:{number}: {len(cells)} cells where the first line has {width}")


def _fields(path: Path, columns: Columns) -> Iterator[Sequence[str]]:
    fields: list[str] | None = None
    for number, record in _objects(path):
        if record is None:
            yield [""] * columns.width
            continue
        if fields is None:
            fields = [list(record)[index] for index in columns.find(list(record), f"{path}:{number}")]
        yield [_text(record, field, path, number) for field in fields]


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The objects of a .jsonl file, each with the number of its line; None for a blank line."""
    for number, line in numbered_lines(path):
        if not line.strip():
            yield number, None
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not valid JSON ({error})") from error
        except RecursionError:
            raise InputError(f"{path}:{number}: JSON nested too deeply") from None
        if not isinstance(record, dict):
            raise InputError(f"{path}:{number}: a JSON object a line is needed, found {_JSON_TYPES[type(record)]}")
        yield number, record


def _text(record: dict[str, Any], field: str, path: Path, number: int) -> str:
    if field not in record:
        raise InputError(f"{path}:{number}: no field {field!r}; found: {listed(record)}")
    value = record[field]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{path}:{number}: field {field!r} must be a string, found {_JSON_TYPES[type(value)]}")
    if not is_unicode(value):
        raise InputError(f"{path}:{number}: field {field!r} holds half a surrogate pair, which is not text")
    return value


def _batches(path: Path, columns: Columns | None = None) -> Iterator[Any]:
    """The record batches of a .parquet or .arrow file; with ``columns``, of these alone, as strings."""
    import pyarrow as pa
    from pyarrow import parquet

    is_parquet = file_kind(path) == ".parquet"
    try:
        with path.open("rb") as opened:
            if is_parquet:
                file = parquet.ParquetFile(opened)
                names = _text_columns(file.schema_arrow, columns, path)
                for batch in file.iter_batches(_BATCH_ROWS, columns=names):
                    yield _checked(batch, names)
                return
            batches = pa.ipc.open_stream(opened)
            names = _text_columns(batches.schema, columns, path)
            for whole in batches:
                for start in range(0, whole.num_rows, _BATCH_ROWS):
                    yield _checked(whole.slice(start, _BATCH_ROWS), names)
    except (pa.ArrowException, OSError) as error:
        what = "Parquet file" if is_parquet else "Arrow stream"
        raise InputError(f"{path}: not a readable {what} ({error})") from error


def _checked(batch: Any, names: list[str] | None) -> Any:
    """The named columns of a batch, as strings; all of them where none are named. Neither format promises UTF-8."""
    import pyarrow as pa

    if names is None:
        batch.validate(full=True)
        return batch
    return pa.RecordBatch.from_arrays([_as_text(batch.column(name)) for name in names], names)


def _as_text(column: Any) -> Any:
    import pyarrow as pa

    text = (column.dictionary_decode() if pa.types.is_dictionary(column.type) else column).cast(pa.large_string())
    text.validate(full=True)
    return text


def _with_text(batch: Any) -> Any:
    """The batch with columns of bytes as strings, where they hold text."""
    import pyarrow as pa

    columns = list(batch.columns)
    for index, field in enumerate(batch.schema):
        if _holds_strings(field.type):
            with suppress(pa.ArrowInvalid):
                columns[index] = _as_text(columns[index])
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _text_columns(schema: Any, columns: Columns | None, path: Path) -> list[str] | None:
    if columns is None:
        return None
    names = [schema.names[index] for index in columns.find(schema.names, str(path))]
    for name in names:
        kind = schema.field(name).type
        if not _holds_strings(kind):
            raise InputError(f"{path}: column {name!r} must hold strings, found {kind}")
    return names


def _holds_strings(kind: Any) -> bool:
    import pyarrow as pa

    return str(kind.value_type if pa.types.is_dictionary(kind) else kind) in _STRINGS
