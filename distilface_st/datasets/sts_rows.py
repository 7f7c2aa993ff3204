"""Scored sentence pairs as they lie in files: lines, columns and scores, with errors that name file and line."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Row = tuple[str, str, float]
"""First sentence, second sentence, gold score."""

GOLD_MAXIMUM = 5.0

_KEYS = ("sentence1", "sentence2", "score")


def read_lines(path: Path) -> list[str]:
    """Lines ended by LF or CRLF and by nothing else: other separators Unicode knows occur inside sentences."""
    if not path.is_file():
        raise InputError(f"{path} is missing.")
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if raw[-1] == b"":
        raw.pop()
    return [_decode(line.removesuffix(b"\r"), f"{path}, line {number}") for number, line in enumerate(raw, 1)]


def split_columns(line: str, least: int, where: str) -> list[str]:
    """The line's tab-separated columns, of which there must be ``least`` or more."""
    columns = line.split("\t")
    if len(columns) < least:
        raise InputError(f"{where}: {len(columns)} tab-separated column(s), where at least {least} are needed.")
    return columns


def make_row(first: Any, second: Any, score: Any, where: str, maximum: float | None = GOLD_MAXIMUM) -> Row:
    """Check two sentences and a score; without a ``maximum`` any finite score will do."""
    for sentence in (first, second):
        if not isinstance(sentence, str) or not sentence.strip():
            raise InputError(f"{where}: a sentence is empty or not text ({sentence!r}).")
    return first, second, parse_score(score, where, maximum)


def parse_score(score: Any, where: str, maximum: float | None = GOLD_MAXIMUM) -> float:
    """A finite number, from 0 to ``maximum`` where there is one."""
    try:
        value = math.nan if isinstance(score, bool) else float(score)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or (maximum is not None and not 0 <= value <= maximum):
        wanted = "a finite number" if maximum is None else f"a number from 0 to {maximum:g}"
        raise InputError(f"{where}: the score is {score!r}, not {wanted}.")
    return value


def read_table(path: Path) -> Iterator[Row]:
    """Rows of a .tsv or .csv: sentence 1, sentence 2, score, or as a header orders them. Blank lines pass."""
    order = (0, 1, 2)
    for number, cells in _cells(path):
        header = [cell.strip().lower() for cell in cells]
        if number == 1 and set(_KEYS) <= set(header):
            order = (header.index("sentence1"), header.index("sentence2"), header.index("score"))
            continue
        if not any(header):
            continue
        where = f"{path}, line {number}"
        if len(cells) <= max(order):
            raise InputError(f"{where}: {len(cells)} column(s), where sentence 1, sentence 2 and a score are needed.")
        first, second, score = (cells[column] for column in order)
        try:
            yield make_row(first, second, score, where, maximum=None)
        except InputError as error:
            hint = " A header must name the columns sentence1, sentence2 and score." if number == 1 else ""
            raise InputError(f"{error}{hint}") from None


def read_json_lines(path: Path) -> Iterator[Row]:
    """Rows of a .jsonl: objects with the keys sentence1, sentence2, score. Blank lines pass."""
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not JSON ({error.msg} at column {error.colno}).") from None
        if not isinstance(record, dict) or not set(_KEYS) <= record.keys():
            raise InputError(f"{where}: not an object with the keys sentence1, sentence2 and score.")
        yield make_row(record["sentence1"], record["sentence2"], record["score"], where, maximum=None)


def _decode(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte, column = line[error.start], error.start + 1
        raise InputError(f"{where}: not UTF-8 (byte {byte:#04x} at byte {column} of the line); convert it.") from None


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    lines = read_lines(path)
    if path.suffix.lower() == ".tsv":
        yield from ((number, line.split("\t")) for number, line in enumerate(lines, 1))
        return
    reader = csv.reader((f"{line}\n" for line in lines), strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error}).") from None
