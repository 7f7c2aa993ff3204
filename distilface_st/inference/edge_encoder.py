"""Embeddings without torch: an exported model on numpy, tokenizers and one engine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import InputError
from ..pretrained import lasting_name, resolve_name
from ..utils.chunks import chunked
from ..utils.files import read_json
from .engines import embed_batch, open_engine
from .manifest import read_manifest
from .precision import check_precision, quantize_embeddings
from .similarity import pairwise_similarity, similarity
from .tokenization import SentenceTokenizer, check_sentences, sentence_list

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

Kind = Literal["query", "document"]
"""Text that a model may embed otherwise than the rest."""

_PROMPTS: dict[Kind, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}

_CHUNK = 512
"""Sentences tokenized at once, while the graph runs the chunk before."""


class EdgeEncoder:
    """A sentence encoder that needs numpy, tokenizers and onnxruntime (or OpenVINO), and imports nothing else.

    It answers the calls of a ``SentenceTransformer`` with the same arguments, so that it goes wherever one does: into
    sentence-transformers' evaluators, into MTEB, into our own. Sentences are sorted by length and cut into batches of
    about as many tokens each, so that padding is rare; the next sentences are tokenized while the graph runs. It may be
    called from several threads. A copy, also one that was pickled and opened in another process, opens the folder anew.

    Args:
        folder: A folder that ``distilface export``, :func:`distilface_st.export_model` or
            :func:`distilface_st.pack_model` wrote, or the name of a shipped model; by default ``distilface-mini``.
        runtime: ``onnxruntime``, ``openvino``, or ``auto`` to time both; see
            :func:`distilface_st.inference.engines.open_engine`.
        threads: Processor threads; by default all cores.
        providers: onnxruntime's execution providers, best first; by default the CPU's.
        device: OpenVINO's device; by default ``CPU``.
        options: Settings of the engine.

    Attributes:
        folder: Where the model lies.
        manifest: What it says of itself, a :class:`distilface_st.Manifest`.
        prompts: The model's prompts, by name.
        default_prompt_name: The prompt used where none is named, if any.
        truncate_dim: How many of the dimensions ``encode`` keeps by default; ``None`` for all.
        similarity_fn_name: ``cosine``, ``dot``, ``euclidean`` or ``manhattan``.

    Raises:
        InputError: A folder that is no exported model, or a damaged one.
        MissingExtraError: The runtime is not installed.

    Example:
        ::

            encoder = EdgeEncoder()  # or a folder
            embeddings = encoder.encode(["It is sunny.", "He drove to work."])  # (2, d), float32
            encoder.similarity(embeddings, embeddings)  # (2, 2)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        runtime: str | None = None,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        device: str | None = None,
    ) -> None:
        self._name = lasting_name(folder)
        self._engine_settings: dict[str, Any] = {
            "threads": threads,
            "providers": providers,
            "options": options,
            "device": device,
        }
        self._open(runtime)
        try:
            settings = read_json(self.folder / "config_sentence_transformers.json")
        except FileNotFoundError:
            settings = {}
        self.prompts: dict[str, str] = settings.get("prompts") or {}
        self.default_prompt_name: str | None = settings.get("default_prompt_name")
        self.truncate_dim: int | None = settings.get("truncate_dim")
        self.similarity_fn_name: str = settings.get("similarity_fn_name") or "cosine"

    def _open(self, runtime: str | None) -> None:
        self.folder = Path(resolve_name(self._name))
        self.manifest = read_manifest(self.folder)
        self._tokenizer = SentenceTokenizer(self.folder, self.manifest)
        self._engine = open_engine(self.folder, runtime, manifest=self.manifest, **self._engine_settings)

    def __getstate__(self) -> dict[str, Any]:
        """All but the engine and the tokenizer: where the encoder arrives, its folder is opened anew."""
        kept = {name: value for name, value in vars(self).items() if name not in ("_engine", "_tokenizer")}
        return {**kept, "runtime": self.runtime, "max_seq_length": self.max_seq_length}

    def __setstate__(self, state: dict[str, Any]) -> None:
        runtime, longest, made_of = state.pop("runtime"), state.pop("max_seq_length"), state["manifest"]
        vars(self).update(state)
        self._open(runtime)
        if self.manifest != made_of:
            raise InputError(f"{self.folder} holds another model than when this encoder was copied: open it again.")
        self.max_seq_length = longest

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

    def get_embedding_dimension(self) -> int:
        """Width of what ``encode`` gives."""
        return self.truncate_dim or self.dimension

    get_sentence_embedding_dimension = get_embedding_dimension

    def encode(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        *,
        batch_tokens: int = 1024,
        **mteb: Any,
    ) -> Any:
        """Embed sentences, as ``SentenceTransformer.encode`` does.

        Args:
            inputs: A string, or a sequence of strings: a list, an array, a column of a table, ...
            prompt_name: A prompt of the model, put before every sentence; by default its default prompt.
            prompt: The prompt itself.
            batch_size: Most sentences in a batch; by default as many as ``batch_tokens`` allows.
            show_progress_bar: Whether to show progress, with tqdm.
            output_value: ``sentence_embedding``: an exported graph gives nothing else.
            precision: ``float32``, ``int8`` or ``uint8`` (a byte a dimension), ``binary`` or ``ubinary`` (a bit, d / 8
                columns). int8 and uint8 take the range of each dimension from the texts of the call, as
                sentence-transformers does, so that an embedding depends on the others; for one text, or to compare
                those of two calls, give ranges to :func:`distilface_st.inference.precision.quantize_embeddings`.
            convert_to_numpy: Give an array; where it is false, a list of torch tensors.
            convert_to_tensor: Give a torch tensor instead.
            normalize_embeddings: Scale embeddings to length 1.
            truncate_dim: Keep this many of the first dimensions; by default what the model says.
            batch_tokens: Tokens in a batch, padding included; a longer sentence is a batch of its own.
            **mteb: What MTEB adds to a call: ``task_metadata``, ``hf_split``, ``hf_subset`` and ``prompt_type``.

        Returns:
            Shape (sentences, d), float32 or as ``precision`` says, row i for sentence i; for a string, shape (d,). A
            sentence without any token, not even a special one, has zeros.

        Raises:
            InputError: Something that is not a string; a prompt, a dimension or a precision that does not exist; one
                text in int8 or uint8; an embedding that is not finite.
            TypeError: An argument that is none of these.
        """
        if mteb:
            if unknown := set(mteb) - {"task_metadata", "hf_split", "hf_subset", "prompt_type", "num_proc"}:
                raise TypeError(f"encode() got an unexpected keyword argument {min(unknown)!r}")
            from mteb.models import SentenceTransformerEncoderWrapper

            wrapper: Any = SentenceTransformerEncoderWrapper
            return wrapper(self).encode(inputs, **mteb, batch_size=batch_size, show_progress_bar=show_progress_bar)
        prompt = self._prompt(prompt, prompt_name)
        dimension = next(size for size in (truncate_dim, self.truncate_dim, self.dimension) if size is not None)
        if not 1 <= dimension <= self.dimension:
            raise InputError(f"truncate_dim is {dimension}: the model has {self.dimension} dimensions.")
        if output_value != "sentence_embedding":
            raise InputError(f"output_value is {output_value!r}: an exported model gives sentence_embedding alone.")
        for name, value in (("batch_size", batch_size), ("batch_tokens", batch_tokens)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: it must be at least 1.")
        precision = "float32" if precision is None else precision
        check_precision(precision)
        is_one = isinstance(inputs, str)
        inputs = inputs if is_one else sentence_list(inputs)
        if is_one:  # spared the threads that a list is worth
            ids = np.array([self._tokenizer.ids_of_one(prompt + inputs if prompt else inputs)], dtype=np.int64)
            embeddings = embed_batch(self._engine, ids, None, self.manifest, self._prompt_length(prompt))
            embeddings = embeddings[:, :dimension].copy()
        else:
            embeddings = self._many(inputs, prompt, dimension, batch_size, batch_tokens, bool(show_progress_bar))
        check_finite(embeddings, [inputs] if is_one else inputs)
        if normalize_embeddings:
            embeddings /= np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        if precision != "float32":
            embeddings = quantize_embeddings(embeddings, precision)
        if convert_to_tensor or not convert_to_numpy:
            import torch

            tensor = torch.from_numpy(embeddings)
            return tensor[0] if is_one else tensor if convert_to_tensor else list(tensor)
        return embeddings[0] if is_one else embeddings

    def encode_query(
        self, inputs: Any, prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> Any:
        """Embed queries: :meth:`encode` with the prompt that :func:`prompt_of` names, or without one."""
        return self._encode_kind("query", inputs, prompt_name, prompt, options)

    def encode_document(
        self, inputs: Any, prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> Any:
        """Embed documents, likewise."""
        return self._encode_kind("document", inputs, prompt_name, prompt, options)

    def _encode_kind(
        self, kind: Kind, inputs: Any, prompt_name: str | None, prompt: str | None, options: dict[str, Any]
    ) -> Any:
        if prompt is None and prompt_name is None:
            prompt_name = prompt_of(kind, self.prompts)
            prompt = "" if prompt_name is None else None
        return self.encode(inputs, prompt_name, prompt, **options)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """How alike embeddings are by the model's own similarity function.

        Args:
            embeddings1: Shape (n, d); arrays or torch tensors, and the result is of the same kind.
            embeddings2: Shape (m, d).

        Returns:
            Shape (n, m); greater is more similar.
        """
        return similarity(embeddings1, embeddings2, self.similarity_fn_name)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """How alike row i of one and row i of the other are; both (n, d), the result (n,)."""
        return pairwise_similarity(embeddings1, embeddings2, self.similarity_fn_name)

    def token_counts(self, sentences: Sequence[str]) -> list[int]:
        """Tokens of each sentence before it is cut at the longest input, special tokens not counted."""
        sentences = sentence_list(sentences)
        check_sentences(sentences)
        return self._tokenizer.counts(sentences)

    def input_lengths(self, sentences: Sequence[str]) -> list[int]:
        """Tokens of each sentence that the model reads: cut at the longest input, special tokens counted."""
        return [len(ids) for ids in self._tokenizer.ids(sentence_list(sentences))]

    @property
    def model_card_data(self) -> SimpleNamespace:
        """A card that keeps nothing, for evaluators of sentence-transformers that write their scores into a model's."""
        return SimpleNamespace(
            model_name=self.manifest.model["name"],
            base_model=None,
            base_model_revision=None,
            set_evaluation_metrics=lambda *_: None,
        )

    @property
    def mteb_model_meta(self) -> Any:
        """What MTEB asks of a model that it is to take as it is."""
        from mteb.models import ModelMeta

        return ModelMeta.create_empty(
            overwrites={
                "name": f"distilface-st/{self.manifest.model['name']}",
                "revision": self.manifest.model["fingerprint"],
                "max_tokens": self.max_seq_length,
                "embed_dim": self.get_embedding_dimension(),
            }
        )

    def _many(
        self,
        sentences: list[str],
        prompt: str,
        dimension: int,
        batch_size: int | None,
        batch_tokens: int,
        show_progress_bar: bool,
    ) -> np.ndarray:
        check_sentences(sentences)
        embeddings = np.empty((len(sentences), dimension), dtype=np.float32)
        prompt_length = self._prompt_length(prompt)
        progress: AbstractContextManager[Any] = nullcontext()
        if show_progress_bar:
            from tqdm.auto import tqdm  # type: ignore[import-untyped]

            progress = tqdm(total=len(sentences), desc="Sentences")
        with progress as bar:
            for rows, ids in self._batches(sentences, prompt, batch_size, batch_tokens):
                batch = embed_batch(self._engine, *self._tokenizer.pad(ids), self.manifest, prompt_length)
                embeddings[rows] = batch[:, :dimension]
                if bar is not None:
                    bar.update(len(rows))
        return embeddings

    def _batches(
        self, sentences: list[str], prompt: str, batch_size: int | None, batch_tokens: int
    ) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Row numbers and token ids of each batch, from long to short."""
        chunks = list(chunked(sorted(range(len(sentences)), key=lambda row: -len(sentences[row])), _CHUNK))

        def tokenize(chunk: list[int]) -> list[list[int]]:
            return self._tokenizer.ids([prompt + sentences[row] if prompt else sentences[row] for row in chunk])

        with ThreadPoolExecutor(1) as ahead:
            following = ahead.submit(tokenize, chunks[0]) if chunks else None
            for index, chunk in enumerate(chunks):
                ids = following.result() if following else []
                following = ahead.submit(tokenize, chunks[index + 1]) if index + 1 < len(chunks) else None
                by_length = sorted(range(len(chunk)), key=lambda i: -len(ids[i]))
                for part in _cut(by_length, ids, batch_tokens, batch_size):
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


def prompt_of(kind: Kind, prompts: Mapping[str, str]) -> str | None:
    """Name of the prompt for queries (``query``) or documents (``document``, ``passage``, ``corpus``), in this order.

    It is sentence-transformers' order, but that an empty prompt gives way to a later one that is not: beside the
    ``passage`` of a model such as E5 sentence-transformers puts an empty ``document``, which would hide it.

    Example:
        >>> prompt_of("document", {"query": "query: ", "document": "", "passage": "passage: "})
        'passage'
    """
    names = [name for name in _PROMPTS[kind] if name in prompts]
    return next((name for name in names if prompts[name]), names[0] if names else None)


def check_finite(embeddings: np.ndarray, texts: Sequence[str]) -> None:
    """Refuse embeddings, shape (texts, d), with a NaN or an infinity: an InputError with a text of which it is so."""
    if np.isfinite(embeddings).all():
        return
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    raise InputError(
        f"The model's embedding of {texts[bad[0]][:80]!r} is not finite ({bad.size} of {len(texts)} are so): its "
        "weights are damaged, or its training has diverged."
    )


def _cut(
    order: list[int], ids: list[list[int]], batch_tokens: int, batch_size: int | None = None
) -> Iterator[list[int]]:
    """Parts of ``order``, sorted from long to short, each of at most so many tokens with its padding, and sentences."""
    start = 0
    while start < len(order):
        end = start + min(max(1, batch_tokens // max(1, len(ids[order[start]]))), batch_size or len(order))
        yield order[start:end]
        start = end
