"""Embeddings without torch: an exported model on numpy, tokenizers and one engine."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..pretrained import shipped_model
from .engines import batch_feeds, open_engine
from .manifest import read_manifest
from .tokenization import SentenceTokenizer, check_sentences

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

_CHUNK = 512
"""Sentences tokenized at once, while the graph runs the chunk before."""


class EdgeEncoder:
    """A sentence encoder that needs numpy, tokenizers and onnxruntime (or OpenVINO), and imports nothing else.

    Sentences are sorted by length and cut into batches of about as many tokens each, so that padding is rare; the
    next sentences are tokenized while the graph runs. It may be called from several threads.

    Args:
        folder: A folder that ``distilface export``, :func:`distilface_st.export_model` or
            :func:`distilface_st.pack_model` wrote; by default :func:`distilface_st.shipped_model`.
        runtime: ``onnxruntime``, ``openvino``, or ``auto`` to time both; see
            :func:`distilface_st.inference.engines.open_engine`.
        threads: Processor threads; by default all cores.
        providers: onnxruntime's execution providers, or OpenVINO's device.
        options: Settings of the engine.

    Raises:
        InputError: A folder that is no exported model, or a damaged one.
        MissingExtraError: The runtime is not installed.

    Example:
        ::

            encoder = EdgeEncoder()  # or a folder
            embeddings = encoder.encode(["It is sunny.", "He drove to work."])  # (2, d), float32
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        runtime: str | None = None,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        folder = shipped_model() if folder is None else folder
        self.manifest = read_manifest(folder)
        self._tokenizer = SentenceTokenizer(folder, self.manifest)
        self._engine = open_engine(folder, runtime, threads, providers, options, self.manifest)
        settings = _settings(Path(folder))
        self.prompts: dict[str, str] = settings.get("prompts") or {}
        self.default_prompt_name: str | None = settings.get("default_prompt_name")
        self.truncate_dim: int | None = settings.get("truncate_dim")

    @property
    def dimension(self) -> int:
        """Width of the embeddings, before any truncation."""
        return self.manifest.dimension

    @property
    def runtime(self) -> str:
        """The engine that runs: ``onnxruntime`` or ``openvino``."""
        return self._engine.runtime

    @property
    def max_seq_length(self) -> int:
        """Longest input in tokens; longer text is cut."""
        return self._tokenizer.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self._tokenizer.max_seq_length = value

    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        batch_tokens: int = 1024,
    ) -> np.ndarray:
        """Embed sentences.

        Args:
            sentences: A string, or a list of strings.
            prompt_name: A prompt of the model, put before every sentence; by default its default prompt.
            prompt: The prompt itself.
            normalize_embeddings: Scale embeddings to length 1.
            truncate_dim: Keep this many of the first dimensions; by default what the model says.
            batch_tokens: Tokens in a batch, padding included; a longer sentence is a batch of its own.

        Returns:
            Shape (sentences, d), float32, row i for sentence i; for a string, shape (d,).

        Raises:
            InputError: Something that is not a string, a prompt or a dimension that does not exist.
        """
        prompt = self._prompt(prompt, prompt_name)
        dimension = self._dimension(truncate_dim)
        if batch_tokens < 1:
            raise InputError(f"batch_tokens is {batch_tokens}: it must be at least 1.")
        if isinstance(sentences, str):
            one = self._one(sentences, prompt)[:, :dimension].copy()
            return (_unit(one) if normalize_embeddings else one).reshape(dimension)
        sentences = list(sentences)
        check_sentences(sentences)
        embeddings = np.empty((len(sentences), dimension), dtype=np.float32)
        prompt_length = self._prompt_length(prompt)
        for rows, ids in self._batches(sentences, prompt, batch_tokens):
            feeds = batch_feeds(*self._tokenizer.pad(ids), self.manifest, prompt_length)
            embeddings[rows] = self._engine.run(feeds)[:, :dimension]
        return _unit(embeddings) if normalize_embeddings else embeddings

    def token_counts(self, sentences: Sequence[str]) -> list[int]:
        """Tokens of each sentence before it is cut at the longest input, special tokens not counted."""
        check_sentences(sentences)
        return self._tokenizer.counts(sentences)

    def _one(self, sentence: str, prompt: str) -> np.ndarray:
        ids = np.array([self._tokenizer.ids_of_one(prompt + sentence if prompt else sentence)], dtype=np.int64)
        return self._engine.run(batch_feeds(ids, None, self.manifest, self._prompt_length(prompt)))

    def _batches(
        self, sentences: list[str], prompt: str, batch_tokens: int
    ) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Row numbers and token ids of each batch, from long to short."""
        order = sorted(range(len(sentences)), key=lambda row: -len(sentences[row]))
        chunks = [order[start : start + _CHUNK] for start in range(0, len(order), _CHUNK)]

        def tokenize(chunk: list[int]) -> list[list[int]]:
            return self._tokenizer.ids([prompt + sentences[row] if prompt else sentences[row] for row in chunk])

        with ThreadPoolExecutor(1) as ahead:
            following = ahead.submit(tokenize, chunks[0]) if chunks else None
            for index, chunk in enumerate(chunks):
                ids = following.result() if following else []
                following = ahead.submit(tokenize, chunks[index + 1]) if index + 1 < len(chunks) else None
                by_length = sorted(range(len(chunk)), key=lambda i: -len(ids[i]))
                for part in _cut(by_length, ids, batch_tokens):
                    yield [chunk[i] for i in part], [ids[i] for i in part]

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        if prompt is not None:
            return prompt
        name = name or self.default_prompt_name
        if name is None:
            return ""
        if name not in self.prompts:
            raise InputError(f"The model has no prompt {name!r}; it has {', '.join(self.prompts) or 'none'}.")
        return self.prompts[name]

    def _prompt_length(self, prompt: str) -> int:
        return self._tokenizer.prompt_length(prompt) if prompt and not self.manifest.include_prompt else 0

    def _dimension(self, truncate_dim: int | None) -> int:
        wanted = next(size for size in (truncate_dim, self.truncate_dim, self.dimension) if size is not None)
        if not 1 <= wanted <= self.dimension:
            raise InputError(f"truncate_dim is {wanted}: the model has {self.dimension} dimensions.")
        return wanted


def _cut(order: list[int], ids: list[list[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Parts of ``order``, sorted from long to short, each of at most ``batch_tokens`` tokens with its padding."""
    start = 0
    while start < len(order):
        end = start + max(1, batch_tokens // len(ids[order[start]]))
        yield order[start:end]
        start = end


def _unit(rows: np.ndarray) -> np.ndarray:
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "config_sentence_transformers.json"
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    return settings
