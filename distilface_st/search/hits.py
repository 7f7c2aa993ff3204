"""What is stored and what is found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Document:
    """A text with a name.

    Attributes:
        id: Unique in an index.
        text: Its text.
        metadata: Everything else that is known of it: JSON values by name.
        where: File and line it was read from, for messages.
        is_numbered: Whether its id is its place in the corpus, for want of one of its own.
    """

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    where: str = ""
    is_numbered: bool = False


@dataclass(frozen=True)
class Passage:
    """Part ``number``, from 0, of the document with this id, with the document's metadata."""

    document: str
    number: int
    text: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Hit:
    """A document that a query found.

    Attributes:
        id: The document's id.
        score: Cosine similarity of query and passage, -1 to 1; in hybrid search the fused score, above 0.
        text: The document's best passage.
        metadata: The document's.
        passage: Which of its passages, from 0.
        highlight: Start and end of the sentence in ``text`` that is nearest to the query, in characters; None where
            it was not asked for.
    """

    id: str
    score: float
    text: str
    metadata: dict[str, Any]
    passage: int
    highlight: tuple[int, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON values by name."""
        return asdict(self)
