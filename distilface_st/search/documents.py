"""Documents read from files of any size and split into passages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..datasets.readers import TEXT_COLUMNS, listed, read_records
from ..datasets.segmentation import cut_points, joined, split_sentences
from ..datasets.sources import file_kind, find_source
from ..errors import InputError
from .filters import SURROGATE
from .hits import Document, Passage

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

LONGEST_ID = 512  # bytes


def read_documents(
    source: str | os.PathLike[str], id_field: str | None = None, text_field: str | None = None
) -> Iterator[Document]:
    """Read documents one by one, blank ones included; the record's other fields are their metadata, as they were.

    A cell of a .csv or .tsv is text, whatever it looks like: :class:`.filters.Condition` says how a filter compares it.
    A whole number beyond 64 bits, such as a hash, is text, too.

    Args:
        source: .txt (a document a line), .jsonl, .csv, .tsv (each also .gz), .parquet, .arrow, a folder of those, or a
            Hub dataset.
        id_field: Field with the id, a string or a whole number; by default ``id`` where the first record has one, else
            documents are numbered from 0, in a folder with the file's name before.
        text_field: Field with the text; by default the first of ``text``, ``sentence``, ``content``, ``body``, else
            the only one that holds text.

    Raises:
        InputError: A source that cannot be read, that holds no record, or a record without an id or a text.
    """
    files = find_source(source).files
    is_empty = True
    for path in files:
        named = id_field
        for number, (where, record) in enumerate(read_records(path)):
            if number == 0:
                if file_kind(path) != ".txt" and named is None and "id" in record:
                    named = "id"
                text_field = text_field or _text_field(record, where)
            text = record.get(str(text_field))
            text = "" if text is None else text
            if text_field not in record or not isinstance(text, str):
                raise InputError(f"{where}: no text in field {text_field!r}; found: {listed(record)}")
            counted = f"{path.name}:{number}" if len(files) > 1 else str(number)
            identity = counted if named is None else _identity(record.get(named), named, where)
            if SURROGATE.search(text) or SURROGATE.search(identity):
                raise InputError(f"{where}: half a surrogate pair, which is not text")
            metadata = {str(name): _plain(value) for name, value in record.items() if name not in (named, text_field)}
            is_empty = False
            yield Document(identity, text, metadata, where, is_numbered=named is None)
    if is_empty:
        raise InputError(f"{source} holds no document.")


def _text_field(record: dict[str, Any], where: str) -> str:
    lowered = {name.lower(): name for name in reversed(record)}
    known = [lowered[name] for (name,) in TEXT_COLUMNS if name in lowered]
    texts = [name for name, value in record.items() if isinstance(value, str)]
    if known or len(texts) == 1:
        return (known or texts)[0]
    raise InputError(f"{where}: name the field that holds the text (--text-field); found: {listed(record)}")


def _identity(value: Any, id_field: str, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise InputError(f"{where}: field {id_field!r} must hold an id, a string or a whole number")
    size = len(str(value).encode(errors="surrogatepass"))
    if size > LONGEST_ID:
        raise InputError(f"{where}: an id of {size} bytes; at most {LONGEST_ID} are kept")
    return str(value)


def _plain(value: Any) -> Any:
    """The value as stores hold it: a date as text, and a whole number beyond 64 bits; what is no number as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)  # as a number it would be rounded, and equal its neighbours
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value if value is None or isinstance(value, (bool, int)) else str(value)


class PassageSplitter:
    """Splits documents into passages: whole sentences up to a budget of tokens; a longer sentence is cut between words.

    A word that is longer still is cut between graphemes.

    At most ``overlap`` tokens of a passage's end, whole sentences, are repeated at the beginning of the next.

    Example:
        >>> words = lambda texts: [len(text.split()) for text in texts]
        >>> document = Document("1", "One two three four. Five six seven eight. Nine ten eleven.")
        >>> [passage.text for passage in PassageSplitter(words, 8, 0)([document])]
        ['One two three four. Five six seven eight.', 'Nine ten eleven.']
    """

    def __init__(self, token_counts: Callable[[Sequence[str]], list[int]], budget: int, overlap: int) -> None:
        if budget < 8 or not 0 <= overlap < budget / 2:
            raise InputError(
                f"Passages of {budget} tokens with {overlap} repeated: give 8 or more, and repeat less than half."
            )
        self.token_counts = token_counts
        self.budget = budget
        self.overlap = overlap

    def __call__(self, documents: Sequence[Document]) -> list[Passage]:
        """The passages of documents, in order; a blank document has none."""
        parts = [_sentences(document.text, self.budget) for document in documents]
        # A token has a byte at least, so that a short text is one passage, and its tokens need no counting.
        counted = [i for i, units in enumerate(parts) if len(units) > 1 or len("".join(units).encode()) > self.budget]
        counts = iter(self.token_counts([unit for index in counted for unit in parts[index]]))
        for index in counted:
            pieces = [piece for unit in parts[index] for piece in self._cut(unit, next(counts))]
            parts[index] = self._join(pieces)
        return [
            Passage(document.id, number, text, document.metadata)
            for document, texts in zip(documents, parts, strict=True)
            for number, text in enumerate(texts)
        ]

    def _join(self, sized: list[tuple[str, int]]) -> list[str]:
        passages: list[str] = []
        begun: list[tuple[str, int]] = []
        size = 0
        for unit, count in sized:
            if begun and size + count > self.budget:
                passages.append(joined([text for text, _ in begun]))
                begun = self._repeated(begun, self.budget - count)
                size = sum(tokens for _, tokens in begun)
            begun.append((unit, count))
            size += count
        return [*passages, joined([text for text, _ in begun])]

    def _repeated(self, passage: list[tuple[str, int]], room: int) -> list[tuple[str, int]]:
        kept, size = 0, 0
        for _, count in reversed(passage[1:]):
            if size + count > min(self.overlap, room):
                break
            size += count
            kept += 1
        return passage[len(passage) - kept :]

    def _cut(self, unit: str, count: int) -> list[tuple[str, int]]:
        """A unit as it is, or where it is longer than the budget in halves of words, again and again."""
        if count <= self.budget:
            return [(unit, count)]
        whole, joint = cut_points(unit)
        if len(whole) < 2:
            return [(unit, count)]
        halves = [joint.join(half) for half in (whole[: len(whole) // 2], whole[len(whole) // 2 :])]
        return [piece for half in zip(halves, self.token_counts(halves), strict=True) for piece in self._cut(*half)]


def _sentences(text: str, budget: int) -> list[str]:
    """The sentences of a text, or the text whole where it cannot be over the budget; none of a blank one."""
    text = text.strip()
    if len(text.encode()) <= budget:
        return [text] if text else []
    return [sentence for line in text.splitlines() for sentence in split_sentences(line)]
