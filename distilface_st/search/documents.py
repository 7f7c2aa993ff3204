"""Documents read from files of any size, with their ids and everything else that the files say of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..datasets.readers import listed, read_records
from ..datasets.sources import file_kind, find_source
from ..errors import InputError
from ..utils.chunks import chunked as in_chunks
from .hits import Document

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

__all__ = ["in_chunks", "read_documents"]

TEXT_FIELDS = ("text", "sentence", "content", "body")
ID_FIELD = "id"
LONGEST_ID = 512
"""Bytes of an id."""


def read_documents(
    source: str | os.PathLike[str], id_field: str | None = None, text_field: str | None = None
) -> Iterator[Document]:
    """Read documents one by one.

    Args:
        source: .txt (a document a line), .jsonl, .csv, .tsv (each also .gz), .parquet, .arrow, a folder of those, or a
            Hub dataset.
        id_field: Field with the id, a string or a whole number; by default ``id`` where the first record has one, else
            documents are numbered from 0, in a folder with the file's name before.
        text_field: Field with the text; by default the first of ``text``, ``sentence``, ``content``, ``body``, else
            the only one that holds text.

    Yields:
        Documents in order, blank ones included. Metadata are the record's other fields.

    Raises:
        InputError: A file that cannot be read, a record without text or id, or one that is not what it should be; with
            file and line.
    """
    files = find_source(source).files
    for path in files:
        named = id_field
        for number, (where, record) in enumerate(read_records(path)):
            if number == 0:
                if file_kind(path) != ".txt" and named is None and ID_FIELD in record:
                    named = ID_FIELD
                text_field = text_field or _text_field(record, where)
            text = record.get(str(text_field), "")
            text = "" if text is None else text
            if text_field not in record or not isinstance(text, str):
                raise InputError(f"{where}: no text in field {text_field!r}; found: {listed(record)}")
            counted = f"{path.name}:{number}" if len(files) > 1 else str(number)
            identity = counted if named is None else _identity(record.get(named), named, where)
            metadata = {str(name): _plain(value) for name, value in record.items() if name not in (named, text_field)}
            try:
                text.encode()
            except UnicodeEncodeError:
                raise InputError(f"{where}: half a surrogate pair, which is not text") from None
            yield Document(identity, text, metadata, where)


def _text_field(record: dict[str, Any], where: str) -> str:
    known = [name for name in TEXT_FIELDS if name in record]
    texts = [name for name, value in record.items() if isinstance(value, str)]
    if known or len(texts) == 1:
        return (known or texts)[0]
    raise InputError(f"{where}: name the field that holds the text (--text-field); found: {listed(record)}")


def _identity(value: Any, id_field: str, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise InputError(f"{where}: field {id_field!r} must hold an id, a string or a whole number")
    try:
        size = len(str(value).encode())
    except UnicodeEncodeError:
        raise InputError(f"{where}: half a surrogate pair, which is not text") from None
    if size > LONGEST_ID:
        raise InputError(f"{where}: an id of {size} bytes; at most {LONGEST_ID} are kept")
    return str(value)


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
