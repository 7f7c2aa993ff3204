"""A model as the server runs it: rows of length 1, token counts, and safe to call from several threads."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..models.encoders import embedding_dimension, lasting_name, unit_embeddings

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import numpy as np

Kind = Literal["query"]
"""Text that a model may embed otherwise than the rest."""

_RUN_TOKENS = 128
"""Tokens in one run of an exported graph. On a processor a padded token costs the same in runs of any size
(distilface-mini: 46 to 52 us, one core), and the fewer texts there are to sort, the more padding a large run has: 32
docstring sentences of 499 tokens took 27 ms in runs of 128 and 60 ms in runs of 1,024."""


class ServedEncoder:
    """An encoder with a name for clients.

    Args:
        model: An ``EdgeEncoder`` or a ``SentenceTransformer``.
        name: Its name to clients.

    Attributes:
        model: The encoder.
        name: Its name.
        dimension: Width of the embeddings, d.
        max_tokens: Longest input in tokens; longer text is cut. ``None``: no limit.
        query_kind: ``query`` where the model embeds queries differently from other text.
    """

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name = model, name
        self.dimension = embedding_dimension(model)
        self.max_tokens: int | None = model.max_seq_length
        usual: str = model.prompts.get(model.default_prompt_name or "") or ""
        self._prompts: dict[Kind | None, str] = {None: usual, "query": model.prompts.get("query", usual)}
        routed = any(type(part).__name__ == "Router" for part in getattr(model, "children", list)())
        self.query_kind: Kind | None = "query" if routed or self._prompts["query"] != usual else None
        self._exported = hasattr(model, "input_lengths")
        # A copy, since setting a tokenizer's truncation while another thread uses it is an error.
        self._tokenizer: Any = None if self._exported else copy.deepcopy(model.tokenizer)
        self._counting, self._encoding = threading.Lock(), threading.Lock()

    def encode(self, texts: Sequence[str], kind: Kind | None = None) -> np.ndarray:
        """Embeddings of length 1, shape (texts, d), float32; with the model's default prompt, or that of a kind."""
        options: dict[str, Any] = {"batch_tokens": _RUN_TOKENS} if self._exported else {}
        with self._encoding:
            return unit_embeddings(self.model, texts, kind, **options)

    def count_tokens(self, texts: Sequence[str], kind: Kind | None = None) -> list[int]:
        """How many tokens of each text the model reads, special and prompt ones included."""
        prompted = [self._prompts[kind] + text for text in texts]
        if self._exported:
            return list(self.model.input_lengths(prompted))
        with self._counting:
            if hasattr(self._tokenizer, "encode_batch"):  # a bare tokenizer, as static embeddings have
                return [len(encoding.ids) for encoding in self._tokenizer.encode_batch(prompted)]
            ids = self._tokenizer(prompted, truncation=self.max_tokens is not None, max_length=self.max_tokens)
        return [len(row) for row in ids["input_ids"]]


def display_name(model: str | os.PathLike[str] | None) -> str:
    """What clients call a model: a shipped one by its name, a folder by its own, a Hub name as it is.

    Example:
        >>> display_name("runs/first/model/"), display_name("mini"), display_name("intfloat/e5-small-v2")
        ('model', 'distilface-mini', 'intfloat/e5-small-v2')
    """
    name = lasting_name(model)
    is_path = Path(name).is_absolute() or name.count("/") > 1
    return Path(name).resolve().name if is_path else name
