"""One encoder for every room: opened by name, the fast way where there is one, and asked for rows of length 1.

An encoder is anything with sentence-transformers' ``encode``: an ``EdgeEncoder``, a ``SentenceTransformer``, or an
object of a user's own.
"""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from ..errors import InputError
from ..inference.edge_encoder import EdgeEncoder, check_finite
from ..inference.edge_encoder import Kind as Kind  # noqa: PLC0414 (names for other rooms)
from ..inference.edge_encoder import prompt_of as prompt_of  # noqa: PLC0414
from ..inference.manifest import is_export, read_manifest
from ..inference.tokenization import TOKENIZER
from ..inference.tokenization import check_sentences as check_sentences  # noqa: PLC0414 (a name for other rooms)
from ..pretrained import find_model
from ..pretrained import lasting_name as lasting_name  # noqa: PLC0414 (a name for other rooms)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from sentence_transformers import SentenceTransformer

    from ..inference.manifest import Manifest

TORCH = "torch"
"""The runtime that is none of an exported graph's."""

_ENDLESS = 10**9
"""No limit: sentence-transformers says infinity, transformers 10^30."""


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


def embeddings_of(encoder: Encoder, texts: Sequence[str], kind: Kind | None = None, **options: Any) -> np.ndarray:
    """Embeddings as the encoder gives them, but never one that is not finite: shape (texts, d), float32.

    Every room asks for embeddings here or by :func:`unit_embeddings`. ``kind`` decides which of the encoder's prompts
    goes before the texts, see :func:`.prompt_of`; ``options`` are arguments of the encoder's own. A text without any
    token, not even a special one, has zeros, as in :func:`.embed_batch`.

    Raises:
        InputError: An embedding is not finite.
    """
    check_model(encoder)
    encode: Any = encoder.encode
    if kind is not None and hasattr(encoder, f"encode_{kind}"):
        encode = getattr(encoder, f"encode_{kind}")
        if (name := prompt_of(kind, getattr(encoder, "prompts", None) or {})) is not None:
            options = {"prompt_name": name, **options}
    if isinstance(encoder, EdgeEncoder) and len(texts) == 1:
        rows = encode(texts[0], **options)[None]  # a lone text is spared the threads that a list is worth
    else:
        empty = _tokenless(encoder, texts, kind, options)
        kept = [row for row in range(len(texts)) if row not in empty]
        rows = 0 if empty and not kept else encode([texts[row] for row in kept], convert_to_numpy=True, **options)
        if empty:
            found, rows = rows, np.zeros((len(texts), embedding_dimension(encoder)), np.float32)
            rows[kept] = found
    embeddings = np.array(rows, dtype=np.float32)
    if not len(texts):
        return embeddings.reshape(0, embedding_dimension(encoder))
    check_finite(embeddings, texts)
    return embeddings


def _tokenless(encoder: Any, texts: Sequence[str], kind: Kind | None, options: dict[str, Any]) -> set[int]:
    """Rows of texts without any token: torch takes no batch of them, and of one beside others it reads the padding."""
    tokenizer: Any = getattr(encoder, "tokenizer", None)
    if not len(texts) or not hasattr(tokenizer, "pad_token") or tokenizer.num_special_tokens_to_add():
        return set()
    name = options.get("prompt_name") or (None if kind else encoder.default_prompt_name)
    if options.get("prompt", encoder.prompts.get(name)):
        return set()
    # Not by a call of transformers', which sets padding and truncation: an error while another thread encodes.
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        masks = tokenizer(list(texts), verbose=False)["attention_mask"]
    else:
        masks = [one.attention_mask for one in fast.encode_batch(list(texts))]
    return {row for row, mask in enumerate(masks) if not any(mask)}


def unit_embeddings(
    encoder: Encoder,
    texts: Sequence[str],
    kind: Kind | None = None,
    batch_size: int = 32,
    show_progress_bar: bool = False,
    **options: Any,
) -> np.ndarray:
    """:func:`embeddings_of` texts, of length 1, shape (texts, d), float32; zeros stay zeros.

    ``batch_size`` is for all but an ``EdgeEncoder``, which cuts its own batches, by tokens.

    Raises:
        InputError: An embedding, or its length, is not finite.
    """
    if not isinstance(encoder, EdgeEncoder):
        options["batch_size"] = batch_size
    embeddings = embeddings_of(encoder, texts, kind, show_progress_bar=show_progress_bar, **options)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    check_finite(norms, texts)
    embeddings /= np.maximum(norms, 1e-12)
    return embeddings


def distinct_embeddings(
    encoder: Encoder,
    sentences: Iterable[str],
    batch_size: int,
    show_progress_bar: bool = False,
    kind: Kind | None = None,
) -> tuple[dict[str, int], np.ndarray]:
    """Encode each distinct sentence once, for cosine similarity, and refuse an embedding of zeros, which has none.

    Returns the row of each sentence, and rows of length 1, shape (distinct sentences, d), float32.
    """
    rows = {sentence: row for row, sentence in enumerate(dict.fromkeys(sentences))}
    texts = list(rows)
    embeddings = unit_embeddings(encoder, texts, kind, batch_size, show_progress_bar)
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


def longest_input(encoder: Any) -> int | None:
    """Tokens that an encoder reads at most, special ones included; None where it cuts nowhere or does not say."""
    limits = [getattr(encoder, "max_seq_length", None)]
    if hasattr(encoder, "state_dict"):
        limits.append(_positions(getattr(encoder[0], "model", None)))
    return min((int(limit) for limit in limits if limit is not None and limit < _ENDLESS), default=None)


def manifest_of(encoder: Any) -> Manifest | None:
    """The manifest of an exported model, opened as an ``EdgeEncoder`` or a SentenceTransformer; else None."""
    if not isinstance(encoder, EdgeEncoder):
        encoder = next(iter(encoder), None) if hasattr(encoder, "state_dict") else None
    return getattr(encoder, "manifest", None)


def runtime_of(encoder: Any) -> str | None:
    """``torch`` of a SentenceTransformer that runs in it: a packed model's graph gives slightly other embeddings."""
    return TORCH if hasattr(encoder, "state_dict") and manifest_of(encoder) is None else None


def check_model(encoder: Any) -> None:
    """Refuse a SentenceTransformer that reads no batches of text; have one cut text where its positions end.

    Raises:
        InputError: It reads images or sounds, too, or its tokenizer cannot pad.
    """
    if not hasattr(encoder, "state_dict"):
        return
    others = [kind for kind in getattr(encoder, "modalities", ()) if kind not in ("text", "message")]
    if others:
        raise InputError(f"This model reads {', '.join(map(str, others))}, too: only models of text alone are taken.")
    tokenizer = getattr(encoder, "tokenizer", None)
    if getattr(tokenizer, "pad_token", "") is None:
        raise InputError(
            "The model's tokenizer has no padding token, so that sentences make no batch: set one, such as "
            "tokenizer.pad_token = tokenizer.eos_token, and save model and tokenizer."
        )
    longest = longest_input(encoder)
    if tokenizer is not None and longest is not None and longest < (encoder.max_seq_length or _ENDLESS):
        encoder.max_seq_length = longest


def _positions(network: Any) -> int | None:
    """Tokens that a network's table of learned positions has room for, if it has one.

    RoBERTa and its kin count from behind the padding token's row, so that 514 rows are 512 positions.
    """
    for place, name in ((getattr(network, "embeddings", None), "position_embeddings"), (network, "wpe")):
        table: Any = getattr(place, name, None)
        if hasattr(table, "num_embeddings"):
            return int(table.num_embeddings) - (0 if table.padding_idx is None else table.padding_idx + 1)
    return None


def token_counter(encoder: Encoder) -> Callable[[Sequence[str]], list[int]]:
    """Counts the tokens of texts before any cut, special ones left out; characters over four without a tokenizer.

    It has a tokenizer of its own: setting the truncation of one that another thread uses is an error.
    """
    if isinstance(encoder, EdgeEncoder):
        return encoder.token_counts
    tokenizer: Any = getattr(encoder, "tokenizer", None)
    if tokenizer is None:
        return lambda texts: [len(text) // 4 + 1 for text in texts]
    if not isinstance(getattr(tokenizer, "backend_tokenizer", tokenizer), Tokenizer):
        slow = copy.deepcopy(tokenizer)
        return lambda texts: [len(slow.encode(text, add_special_tokens=False, verbose=False)) for text in texts]
    uncut = own_tokenizer(encoder)
    return lambda texts: [len(found.ids) for found in uncut.encode_batch_fast(list(texts), add_special_tokens=False)]


def special_tokens(encoder: Any) -> int:
    """How many special tokens an encoder's tokenizer puts around a text."""
    tokenizer = own_tokenizer(encoder) if isinstance(encoder, EdgeEncoder) else getattr(encoder, "tokenizer", None)
    return int(tokenizer.num_special_tokens_to_add(False)) if tokenizer is not None else 0


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
