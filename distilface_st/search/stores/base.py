"""What a store of passages and vectors must do; each kind is imported when it is used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from ...errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    import numpy as np

    from ..filters import Condition
    from ..hits import Passage


class Scored(NamedTuple):
    """Key and score of a passage."""

    key: int
    score: float


class Counts(NamedTuple):
    """How much a store holds."""

    documents: int
    passages: int


class VectorStore(ABC):
    """Passages with their vectors, of length 1, in the index's folder or on a server.

    Every passage has a key, a whole number. A change is made whole or not at all, and with it the ``position`` that
    the caller gives, so that work that was killed goes on where it was. Searches may come from several threads.
    ``settings`` are the store's own, as :meth:`check` returns them.
    """

    files: ClassVar[tuple[str, ...]]
    """Names of all files and folders that an empty store has: what may be removed where making one was cut off."""
    is_transactional: ClassVar[bool]
    """Whether a change that was cut off leaves nothing behind; otherwise making it again completes it."""

    def __init__(self, folder: Path, dimension: int, settings: dict[str, Any], create: bool = False) -> None:
        self.folder = folder
        self.dimension = dimension
        self.settings = settings

    @classmethod
    @abstractmethod
    def check(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Settings with defaults filled in; an InputError for one that this store does not have or take."""

    @abstractmethod
    def add(self, passages: Sequence[Passage], vectors: np.ndarray, documents: Sequence[str], position: str) -> None:
        """Put documents in, in the place of those with the same ids; ``documents`` without a passage are taken out.

        ``passages`` are all of the documents', in order, and ``vectors`` have shape (passages, dimension), float32.
        """

    @abstractmethod
    def delete(self, documents: Sequence[str], position: str) -> int:
        """Take documents out; how many were there."""

    @abstractmethod
    def position(self) -> str:
        """What was given with the last change; empty for a new store."""

    @abstractmethod
    def set_position(self, position: str) -> None:
        """Change the position alone."""

    @abstractmethod
    def known(self, documents: Sequence[str]) -> set[str]:
        """Those of the ids that the store has."""

    @abstractmethod
    def search(self, vectors: np.ndarray, k: int, conditions: Sequence[Condition] = ()) -> list[list[Scored]]:
        """For each vector, of length 1, the ``k`` nearest passages by dot product that meet the conditions."""

    @abstractmethod
    def matching(self, conditions: Sequence[Condition]) -> Collection[int]:
        """Keys of all passages whose documents meet the conditions."""

    @abstractmethod
    def fetch(self, keys: Sequence[int]) -> dict[int, Passage]:
        """Passages by key."""

    @abstractmethod
    def texts(self) -> Iterator[tuple[int, str]]:
        """Key and text of every passage, in an order that stays while nothing changes."""

    @abstractmethod
    def sample(self, size: int, seed: int) -> tuple[list[Passage], np.ndarray]:
        """Some passages at random with their vectors."""

    @abstractmethod
    def counts(self) -> Counts:
        """How much there is."""

    @abstractmethod
    def version(self) -> str:
        """A text that changes with every change of the passages."""

    @abstractmethod
    def destroy(self) -> None:
        """Close, and remove all that was ever stored, on a server too."""

    def finish(self) -> None:  # noqa: B027 (a store without such structures has nothing to do)
        """Build what makes searches quick, after many changes."""

    def verify(self) -> None:  # noqa: B027 (as above)
        """Read everything and compare it with its checksums; an InputError says what is damaged."""

    def close(self) -> None:  # noqa: B027 (as above)
        """Let go of files and connections."""


REBUILD = "delete its folder and build the index again"
"""What to do where an index is damaged."""

STORES = {"faiss": "FaissStore", "milvus": "MilvusStore"}


def store_class(kind: str) -> type[VectorStore]:
    """The class of a kind of store, from the module of the same name."""
    if kind not in STORES:
        raise InputError(f"There is no store {kind!r}: choose from {', '.join(STORES)}.")
    return cast("type[VectorStore]", getattr(import_module(f".{kind}", __package__), STORES[kind]))
