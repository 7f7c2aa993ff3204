"""One encoder for every room: opened by name, the fast way where there is one, and asked for rows of length 1.

An encoder is anything with sentence-transformers' ``encode``: an ``EdgeEncoder``, a ``SentenceTransformer``, or an
object of a user's own.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from tokenizers import Tokenizer

from ..errors import InputError
from ..inference.edge_encoder import EdgeEncoder
from ..inference.manifest import is_export, read_manifest
from ..inference.tokenization import TOKENIZER
from ..inference.tokenization import check_sentences as check_sentences  # noqa: PLC0414 (a name for other rooms)
from ..pretrained import ASSETS, DEFAULT_MODEL, find_model, is_shipped

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from sentence_transformers import SentenceTransformer

TORCH = "torch"
"""The runtime that is none of an exported graph's."""


class Encoder(Protocol):
    """Anything that encodes sentences as ``SentenceTransformer`` does."""

    def encode(self, inputs: list[str], /, *, batch_size: int, show_progress_bar: bool, convert_to_numpy: bool) -> Any:
        """Embeddings, shape (sentences, d)."""


def open_encoder(
    name: str | os.PathLike[str] | None = None,
    *,
    device: str | None = None,
    runtime: str | None = None,
    threads: int | None = None,
) -> EdgeEncoder | SentenceTransformer:
    """Open a model to embed with: a shipped, packed or exported one without torch, any other with it.

    Args:
        name: A folder, a Hub name, a shipped model's name, or ``bundled``; by default ``distilface-mini``.
        device: Where a SentenceTransformer is to run; naming one opens a packed model in torch.
        runtime: ``torch``, or for an exported model ``onnxruntime``, ``openvino`` or ``auto``; by default the fastest
            that is installed.
        threads: For an exported model: processor threads; all cores by default.

    Raises:
        InputError: As :func:`distilface_st.load_model`.
    """
    if needs_torch(name, device, runtime):
        from .load import load_model

        return load_model(name, device, runtime=runtime, threads=threads)
    return EdgeEncoder(name, runtime, threads)


def needs_torch(name: str | os.PathLike[str] | None, device: str | None = None, runtime: str | None = None) -> bool:
    """Whether :func:`open_encoder` opens a model in torch, which takes seconds to import. The arguments are its own."""
    folder = find_model(name)
    if device is not None or runtime == TORCH or not is_export(folder):
        return True
    # A packed model opens in torch, too: where no engine is installed it is slower, and not out of reach.
    manifest = read_manifest(folder)
    return runtime is None and manifest.is_packed and not any(find_spec(engine) for engine in manifest.graphs)


def lasting_name(name: str | os.PathLike[str] | None) -> str:
    """A name that opens the same model from another working folder: the absolute path of a folder, else as it is."""
    known = str(DEFAULT_MODEL if name is None else name)
    folder = Path(known).absolute()
    if is_shipped(known) or folder.parent == ASSETS:
        return f"distilface-{folder.name.removeprefix('distilface-')}"
    return str(folder) if folder.is_dir() else known


def unit_embeddings(
    encoder: Encoder,
    texts: Sequence[str],
    kind: Literal["query", "document"] | None = None,
    batch_size: int = 32,
    show_progress_bar: bool = False,
    **options: Any,
) -> np.ndarray:
    """Embeddings of length 1, the way every room asks for them: shape (texts, d), float32; zeros stay zeros.

    ``kind`` decides which of the encoder's prompts goes before the texts; ``batch_size`` is for all but an
    ``EdgeEncoder``, which cuts its own batches, by tokens; ``options`` are more arguments of the encoder's own.

    Raises:
        InputError: An embedding is not finite.
    """
    encode: Any = encoder.encode if kind is None else getattr(encoder, f"encode_{kind}", encoder.encode)
    is_edge = isinstance(encoder, EdgeEncoder)
    if not is_edge:
        options["batch_size"] = batch_size
    if is_edge and len(texts) == 1:
        rows = encode(texts[0], **options)[None]  # a lone text is spared the threads that a list is worth
    else:
        rows = encode(list(texts), show_progress_bar=show_progress_bar, convert_to_numpy=True, **options)
    embeddings = np.array(rows, dtype=np.float32)
    if not len(texts):
        return embeddings.reshape(0, embedding_dimension(encoder))
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if (bad := np.flatnonzero(~np.isfinite(norms))).size:
        raise InputError(
            f"The model's embedding of {texts[bad[0]][:80]!r} is not finite ({bad.size} of {len(norms)} are so): its "
            "weights are damaged, or its training has diverged."
        )
    embeddings /= np.maximum(norms, 1e-12)
    return embeddings


def distinct_embeddings(
    encoder: Encoder, sentences: Iterable[str], batch_size: int, show_progress_bar: bool = False
) -> tuple[dict[str, int], np.ndarray]:
    """Encode each distinct sentence once, for cosine similarity, and refuse an embedding of zeros, which has none.

    Returns the row of each sentence, and rows of length 1, shape (distinct sentences, d), float32.
    """
    rows = {sentence: row for row, sentence in enumerate(dict.fromkeys(sentences))}
    texts = list(rows)
    embeddings = unit_embeddings(encoder, texts, None, batch_size, show_progress_bar)
    if (zero := np.flatnonzero(~embeddings.any(axis=1))).size:
        raise InputError(
            f"The model's embedding of {texts[zero[0]]!r} is zero ({zero.size} of {len(texts)} are so): "
            "cosine similarity is undefined. Training may have diverged."
        )
    return rows, embeddings


def embedding_dimension(encoder: Encoder) -> int:
    """Width of an encoder's embeddings: what it says, or what it gives."""
    known = getattr(encoder, "get_embedding_dimension", lambda: None)()
    return int(known or unit_embeddings(encoder, ["."]).shape[1])


def longest_input(encoder: Encoder) -> int:
    """Tokens that an encoder reads at most, special ones included; 512 of one that does not say."""
    return int(getattr(encoder, "max_seq_length", None) or 512)


def token_counts(encoder: Encoder, texts: Sequence[str]) -> list[int]:
    """Tokens of each text before any cut, special ones left out; characters over four where there is no tokenizer."""
    if not texts:
        return []
    if isinstance(encoder, EdgeEncoder):
        return encoder.token_counts(texts)
    tokenizer = getattr(encoder, "tokenizer", None)
    if tokenizer is None:
        return [len(text) // 4 + 1 for text in texts]
    ids = tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return [len(row) for row in ids]


def own_tokenizer(encoder: Encoder) -> Tokenizer:
    """A copy of an encoder's tokenizer that neither cuts nor pads.

    Raises:
        InputError: The encoder has none of ``tokenizers``.
    """
    if isinstance(encoder, EdgeEncoder):
        tokenizer = Tokenizer.from_file(str(encoder.folder / TOKENIZER))
    else:
        known: Any = getattr(encoder, "tokenizer", None)
        known = getattr(known, "backend_tokenizer", known)  # transformers' around it; a static model has it alone
        if not isinstance(known, Tokenizer):
            raise InputError(f"{type(known).__name__} is no tokenizer of token ids: send text.")
        tokenizer = Tokenizer.from_str(known.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
