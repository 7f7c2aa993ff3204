"""One face for whatever embeds: exported models without torch, any SentenceTransformer, anything with ``encode``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import InputError
from ..inference.edge_encoder import EdgeEncoder
from ..inference.manifest import is_export
from ..pretrained import BUNDLED, is_shipped, resolve_name

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

_LONGEST = 512
"""Tokens of a model that does not say how many it takes."""


class TextEncoder:
    """An encoder with a name and a fingerprint, whose embeddings have length 1.

    Args:
        model: An ``EdgeEncoder``, a ``SentenceTransformer``, or anything whose ``encode`` takes a list of strings and
            gives an array of shape (texts, d).
        name: What opens it again: a folder, a Hub name, a shipped model's name.
        fingerprint: Tells its embeddings from another model's; by default computed from the weights, and for an object
            of another kind, which shows none, its name.
    """

    def __init__(self, model: Any, name: str, fingerprint: str | None = None) -> None:
        self.model = model
        self.name = name
        self.fingerprint = fingerprint or _fingerprint(model, name)
        probe = np.asarray(self._encode(["."], None))
        self.dimension = int(probe.shape[1])

    @property
    def max_tokens(self) -> int:
        """Longest input in tokens."""
        return int(getattr(self.model, "max_seq_length", None) or _LONGEST)

    def encode(self, texts: Sequence[str], *, normalize_embeddings: bool = True) -> np.ndarray:
        """Embeddings of queries or sentences, shape (texts, d), float32, of length 1."""
        return self._encode(list(texts), "query")

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of documents: with the model's prompt for documents, where it has one."""
        return self._encode(list(texts), "document")

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones left out; characters over four where the model shows no tokenizer."""
        if not texts:
            return []
        if isinstance(self.model, EdgeEncoder):
            return self.model.token_counts(texts)
        tokenizer = getattr(self.model, "tokenizer", None)
        if tokenizer is None:
            return [len(text) // 4 + 1 for text in texts]
        ids = tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        return [len(row) for row in ids]

    def _encode(self, texts: list[str], kind: str | None) -> np.ndarray:
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        prompts = getattr(self.model, "prompts", None) or {}
        name = kind if prompts.get(kind) else None
        if isinstance(self.model, EdgeEncoder):
            one = texts[0] if len(texts) == 1 else texts  # a lone text is spared the threads that a list is worth
            return np.atleast_2d(self.model.encode(one, normalize_embeddings=True, prompt_name=name))
        options = {"show_progress_bar": False} if hasattr(self.model, "max_seq_length") else {}
        found = np.array(self.model.encode(texts, **options, **({"prompt_name": name} if name else {})), np.float32)
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found


def open_encoder(
    name: str | os.PathLike[str], device: str | None = None, runtime: str | None = None, threads: int | None = None
) -> TextEncoder:
    """Open a model to embed with: a shipped, packed or exported one without torch, any other with it.

    Args:
        name: A folder, a Hub name, a shipped model's name, or ``bundled``.
        device: Where a SentenceTransformer runs.
        runtime: Of an exported model.
        threads: Of an exported model.

    Raises:
        InputError: As :func:`distilface_st.load_model`.
    """
    known = str(name)
    folder = resolve_name(known)
    if is_export(folder):
        return TextEncoder(EdgeEncoder(folder, runtime, threads), _lasting_name(known, folder))
    if runtime or threads:
        raise InputError(f"{name} is not an exported model, so it has no runtime to choose: `distilface export` it.")
    from ..models.load import load_model

    return TextEncoder(load_model(folder, device=device), _lasting_name(known, folder))


def _lasting_name(name: str, folder: str) -> str:
    """A name that opens the same model from another working folder."""
    if is_shipped(name):
        return f"distilface-{name.removeprefix('distilface-')}"
    return str(Path(folder).absolute()) if Path(folder).is_dir() and name != BUNDLED else name


def _fingerprint(model: Any, name: str) -> str:
    if isinstance(model, EdgeEncoder):
        sums = [entry["sha256"] for graph in model.manifest.graphs.values() for entry in graph.files.values()]
        parts = [model.manifest.model["fingerprint"], *sorted(sums)]
    elif hasattr(model, "state_dict"):
        from ..models.fingerprint import model_fingerprint

        parts = [model_fingerprint(model), *(type(module).__name__ for module in model)]
    else:
        return hashlib.blake2b(f"name {name}".encode(), digest_size=8).hexdigest()
    settings = [dict(model.prompts), model.default_prompt_name, cast("Any", model).truncate_dim]
    return hashlib.blake2b(json.dumps([*parts, *settings]).encode(), digest_size=8).hexdigest()
