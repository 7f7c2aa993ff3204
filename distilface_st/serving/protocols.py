"""What the server asks of an encoder and of a search index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


class ServedEncoder(Protocol):
    """An encoder as the server uses it. It may be called from several threads."""

    @property
    def name(self) -> str:
        """The model's name to clients."""

    @property
    def dimension(self) -> int:
        """Width of the embeddings, d."""

    @property
    def max_tokens(self) -> int | None:
        """Longest input in tokens; longer text is cut. ``None``: no limit."""

    @property
    def query_prompt(self) -> str | None:
        """Name of the model's prompt for queries, where it has one."""

    def encode(self, texts: Sequence[str], prompt_name: str | None = None) -> np.ndarray:
        """Embeddings of length 1, shape (texts, d), float32; by default with the model's default prompt."""

    def count_tokens(self, texts: Sequence[str], prompt_name: str | None = None) -> list[int]:
        """How many tokens of each text the model reads, special and prompt ones included."""


class SearchHit(Protocol):
    """A passage found."""

    @property
    def id(self) -> str:
        """The document's name."""

    @property
    def score(self) -> float:
        """How well it fits; higher is better."""

    @property
    def text(self) -> str:
        """The passage."""

    @property
    def metadata(self) -> dict[str, Any]:
        """What is known of the document."""

    @property
    def passage(self) -> int:
        """Which of the document's passages it is, from 0."""

    @property
    def highlight(self) -> tuple[int, int] | None:
        """Where in ``text`` the best sentence begins and ends, in characters."""


class ServedIndex(Protocol):
    """A search index as the server uses it. It may be called from several threads."""

    encoder: Any

    @property
    def model(self) -> str:
        """The model that made it: a folder or a name."""

    def search(
        self,
        queries: list[str],
        k: int = 10,
        filter: dict[str, Any] | None = None,  # noqa: A002 (the index's name for it)
        hybrid: bool = False,
        highlight: bool = True,
    ) -> Sequence[Sequence[SearchHit]]:
        """The best ``k`` passages of each query. Raises InputError where the filter does not fit."""

    def sample(self, n: int, seed: int = 0) -> tuple[Sequence[SearchHit], np.ndarray]:
        """At most ``n`` passages and their embeddings, of shape (passages, d)."""

    def info(self) -> dict[str, Any]:
        """What the index is: documents, passages, dimension, model, store, fields."""
