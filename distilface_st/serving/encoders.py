"""Models as the server runs them: unit rows, token counts, and safe to call from several threads."""

from __future__ import annotations

import copy
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..inference.edge_encoder import EdgeEncoder
from ..inference.manifest import is_export
from ..inference.tokenization import SentenceTokenizer
from ..pretrained import SHIPPED, is_shipped, resolve_name, shipped_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentence_transformers import SentenceTransformer


_RUN_TOKENS = 128
"""Tokens in one run of a graph. On a processor a padded token costs the same in runs of any size (distilface-mini: 46
to 52 us, one core), and the fewer texts there are to sort, the more padding a large run has: 32 docstring sentences of
499 tokens took 27 ms in runs of 128 and 60 ms in runs of 1,024."""


class ExportedEncoder:
    """An exported or packed model, without torch.

    Args:
        folder: The folder.
        runtime: As in :class:`distilface_st.EdgeEncoder`.
        threads: Processor threads; by default all cores.

    Attributes:
        model: The ``EdgeEncoder``.
    """

    def __init__(self, folder: str | os.PathLike[str], runtime: str | None = None, threads: int | None = None) -> None:
        self.name = model_name(folder)
        self.model = EdgeEncoder(folder, runtime=runtime, threads=threads)
        self._tokenizer = SentenceTokenizer(folder, self.model.manifest)
        self.dimension = self.model.truncate_dim or self.model.dimension
        self.max_tokens: int | None = self.model.max_seq_length
        self.query_prompt = _query_prompt(self.model)

    def encode(self, texts: Sequence[str], prompt_name: str | None = None) -> np.ndarray:
        """Embeddings of length 1, shape (texts, d), float32; by default with the model's default prompt."""
        if len(texts) == 1:  # which skips the threads and the sorting that a list needs
            return np.asarray(self.model.encode(texts[0], prompt_name=prompt_name, normalize_embeddings=True)[None])
        return np.asarray(self.model.encode(texts, prompt_name, normalize_embeddings=True, batch_tokens=_RUN_TOKENS))

    def count_tokens(self, texts: Sequence[str], prompt_name: str | None = None) -> list[int]:
        """How many tokens of each text the model reads, special and prompt ones included."""
        return [len(ids) for ids in self._tokenizer.ids(_prompted(self.model, texts, prompt_name))]


class TorchEncoder:
    """A ``SentenceTransformer``.

    Args:
        model: The model.
        name: Its name to clients.

    Attributes:
        model: The model.
    """

    def __init__(self, model: SentenceTransformer, name: str) -> None:
        self.name = name
        self.model = model
        # a copy: setting a tokenizer's truncation while another thread uses it is an error
        self._tokenizer: Any = copy.deepcopy(model.tokenizer)
        self._counting, self._encoding = threading.Lock(), threading.Lock()
        self.max_tokens: int | None = model.max_seq_length
        self.query_prompt = _query_prompt(model)
        self.dimension = len(self.encode(["dimension"])[0])

    def encode(self, texts: Sequence[str], prompt_name: str | None = None) -> np.ndarray:
        """Embeddings of length 1, shape (texts, d), float32; by default with the model's default prompt."""
        with self._encoding:
            rows = self.model.encode(
                list(texts), prompt_name=prompt_name, normalize_embeddings=True, show_progress_bar=False
            )
        return np.asarray(rows, dtype=np.float32)

    def count_tokens(self, texts: Sequence[str], prompt_name: str | None = None) -> list[int]:
        """How many tokens of each text the model reads, special and prompt ones included."""
        prompted = _prompted(self.model, texts, prompt_name)
        with self._counting:
            if hasattr(self._tokenizer, "encode_batch"):  # a bare tokenizer, as static embeddings have
                return [len(encoding.ids) for encoding in self._tokenizer.encode_batch(prompted)]
            ids = self._tokenizer(prompted, truncation=self.max_tokens is not None, max_length=self.max_tokens)
        return [len(row) for row in ids["input_ids"]]


def open_encoder(
    model: str | os.PathLike[str] | None = None,
    *,
    device: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
) -> ExportedEncoder | TorchEncoder:
    """Open a model for serving: an exported or packed folder without torch, any other with it.

    Args:
        model: A folder, a Hub name or a shipped model's name; by default :func:`distilface_st.shipped_model`.
        device: For a model that is not exported: where to run.
        runtime: For an exported model: ``onnxruntime``, ``openvino`` or ``auto``.
        threads: For an exported model: processor threads.

    Returns:
        The encoder.

    Raises:
        InputError: No such model, or a damaged one.
        MissingExtraError: The runtime is not installed.
    """
    folder = str(shipped_model()) if model is None else resolve_name(os.fspath(model))
    if is_export(folder):
        return ExportedEncoder(folder, runtime, threads)
    from ..models.load import load_model

    opened = load_model(folder, device, runtime=runtime, threads=threads)
    return TorchEncoder(opened, model_name(folder))


def model_name(model: str | os.PathLike[str]) -> str:
    """What clients call a model: a shipped one by its name, a folder by its own, a Hub name as it is.

    Example:
        >>> model_name("runs/first/model/"), model_name("mini"), model_name("sentence-transformers/all-MiniLM-L6-v2")
        ('model', 'distilface-mini', 'sentence-transformers/all-MiniLM-L6-v2')
    """
    text = os.fspath(model)
    for name in SHIPPED:
        if (is_shipped(text) and text.endswith(name)) or Path(text) == _shipped_folder(name):
            return f"distilface-{name}"
    return text if _may_be_hub_name(text) else Path(text).resolve().name


def _query_prompt(model: EdgeEncoder | SentenceTransformer) -> str | None:
    """As :mod:`distilface_st.search` embeds queries: with the prompt named ``query``, if it is not empty."""
    return "query" if model.prompts.get("query") else None


def _prompted(model: EdgeEncoder | SentenceTransformer, texts: Sequence[str], prompt_name: str | None) -> list[str]:
    prompt = model.prompts.get(prompt_name or model.default_prompt_name or "") or ""
    return [f"{prompt}{text}" for text in texts]


def _may_be_hub_name(text: str) -> bool:
    return not Path(text).exists() and text.count("/") == 1 and not text.endswith("/")


def _shipped_folder(name: str) -> Path | None:
    try:
        return shipped_model(name)
    except ValueError:
        return None
