"""A smaller vocabulary for the same tokenizer: what text does not need is left out, and no text becomes unknown."""

from __future__ import annotations

import json
import tempfile
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from ..errors import InputError
from ..inference.tokenization import check_sentences

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from transformers import PreTrainedTokenizerBase

_BATCH = 1000


def trim_vocabulary(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], size: int
) -> tuple[PreTrainedTokenizerBase, np.ndarray]:
    """Keep the most frequent tokens of a WordPiece tokenizer.

    Kept are all special and added tokens, every single character (as a word's beginning and as its continuation), and
    then the tokens that are most frequent in ``texts``; of equally frequent ones, and of those never seen, the ones
    with the lower ids. They are numbered anew in their old order. Two things hold, because WordPiece takes the longest
    token that fits, from left to right:

    1. Covered text stays as it is: text whose tokens are all kept, and none unknown, is split into the same tokens.
    2. Nothing is lost: text without an unknown token before has none afterwards. What is split anew is split into
       shorter tokens, in the end into characters.

    For the second, tokens with a character that is no token itself are kept too, and tokens that could end within one
    of them are not; vocabularies of BERT models have neither.

    Args:
        tokenizer: A fast WordPiece tokenizer, such as ``SentenceTransformer.tokenizer``. It is not changed.
        texts: What is to be covered: many sentences like those that will be embedded. Read once, in batches.
        size: Tokens to keep in all.

    Returns:
        A tokenizer of the same class and settings, and ``kept``, shape (new size,), int64: the old id of each new one.
        ``embeddings[kept]`` are its embeddings. Where nothing is left out, the tokenizer itself.

    Raises:
        InputError: The tokenizer is of another kind; ``size`` is less than what must be kept; the vocabulary cannot
            be trimmed so that the second holds; a text is no string.

    Example:
        ::

            tokenizer, kept = trim_vocabulary(model.tokenizer, sentences, 8000)
            weights = embedding.weight[torch.from_numpy(kept)]
    """
    backend = _word_piece(tokenizer)
    ids = backend.get_vocab(with_added_tokens=True)
    if size >= len(ids):
        return tokenizer, np.arange(max(ids.values()) + 1, dtype=np.int64)
    state = json.loads(backend.to_str())
    required, barred = _required(state, ids)
    if size < len(required):
        raise InputError(
            f"A vocabulary of {size} tokens is too small: {len(required)} must be kept, special tokens and characters."
        )
    counts = _count(backend, texts, max(ids.values()) + 1)
    free = sorted(set(ids.values()) - required - barred, key=lambda old: (-counts[old], old))
    kept = np.array(sorted([*required, *free[: size - len(required)]]), dtype=np.int64)
    return _rebuilt(tokenizer, _renumbered(state, kept)), kept


def _word_piece(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise InputError(
            f"Only fast WordPiece tokenizers can be trimmed: {type(tokenizer).__name__} is not a fast tokenizer."
        )
    if (kind := type(backend.model).__name__) != "WordPiece":
        raise InputError(f"Only WordPiece vocabularies can be trimmed: that of {type(tokenizer).__name__} is {kind}.")
    return backend


def _required(state: dict[str, Any], ids: dict[str, int]) -> tuple[set[int], set[int]]:
    """Ids that must be kept, and ids that must not be."""
    prefix: str = state["model"]["continuing_subword_prefix"]
    vocabulary: dict[str, int] = state["model"]["vocab"]
    continued = {token: token[len(prefix) :] for token in vocabulary if token.startswith(prefix) and token != prefix}
    fragile, barred = _fragile(vocabulary, continued)
    required = {entry["id"] for entry in state["added_tokens"]} | _processor_ids(state["post_processor"])
    required |= {vocabulary[token] for token in fragile}
    required |= {old for token, old in vocabulary.items() if 1 in (len(token), len(continued.get(token, "")))}
    required |= {ids[state["model"]["unk_token"]]} if state["model"]["unk_token"] in ids else set()
    required |= {state["padding"]["pad_id"]}.intersection(ids.values()) if state["padding"] else set()
    if both := sorted(token for token in barred if vocabulary[token] in required):
        raise InputError(
            f"This vocabulary cannot be trimmed: what follows {both[0]!r} could become unknown, because it has "
            "characters that are no tokens of their own."
        )
    return required, {vocabulary[token] for token in barred}


def _fragile(vocabulary: Collection[str], continued: dict[str, str]) -> tuple[set[str], set[str]]:
    """Tokens that shorter ones cannot replace, and continuations that could end within one of them.

    A token is replaceable where each of its characters is a token: its first one as it stands, the others as a
    continuation. If another token reached into an irreplaceable continuation, the rest of that might match nothing.
    At a word's beginning none does: there the longest token that is kept is at most as long as the one before.
    """
    beginnings = {token for token in vocabulary if len(token) == 1}
    following = {body for body in continued.values() if len(body) == 1}

    def replaceable(token: str) -> bool:
        if token in continued:
            return following.issuperset(continued[token])
        return token[:1] in beginnings and following.issuperset(token[1:])

    fragile = {token for token in vocabulary if not replaceable(token)}
    irreplaceable = [continued[token] for token in fragile if token in continued]
    stumps = {body[:end] for body in irreplaceable for end in range(1, len(body))}
    barred = {
        token for token, body in continued.items() if any(body[start:] in stumps for start in range(1, len(body)))
    }
    return fragile, barred


def _count(backend: Tokenizer, texts: Iterable[str], size: int) -> np.ndarray:
    """How often each id occurs, shape (size,): texts are not cut, and no special tokens are added."""
    whole = Tokenizer.from_str(backend.to_str())
    whole.no_truncation()
    whole.no_padding()
    counts = np.zeros(size, dtype=np.int64)
    for batch in _batches(texts):
        check_sentences(batch)
        encodings = whole.encode_batch_fast(batch, add_special_tokens=False)
        found = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64)
        counts += np.bincount(found, minlength=size)
    return counts


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _processor_ids(processor: dict[str, Any] | None) -> set[int]:
    """Ids of the special tokens that a post-processor adds."""
    if processor is None:
        return set()
    ids = {old for token in processor.get("special_tokens", {}).values() for old in token["ids"]}
    ids |= {processor[name][1] for name in ("sep", "cls") if name in processor}
    return ids.union(*(_processor_ids(part) for part in processor.get("processors", ())))


def _renumbered(state: dict[str, Any], kept: np.ndarray) -> dict[str, Any]:
    """The tokenizer's JSON with the kept tokens only, under their new ids."""
    new = {int(old): index for index, old in enumerate(kept)}
    model = state["model"]
    vocabulary = {token: new[old] for token, old in model["vocab"].items() if old in new}
    added = [{**entry, "id": new[entry["id"]]} for entry in state["added_tokens"]]
    padding = state["padding"]
    if padding:
        padding = {**padding, "pad_id": new.get(padding["pad_id"], padding["pad_id"])}
    return {
        **state,
        "model": {**model, "vocab": vocabulary},
        "added_tokens": added,
        "padding": padding,
        "post_processor": _renumbered_processor(state["post_processor"], new),
    }


def _renumbered_processor(processor: dict[str, Any] | None, new: dict[int, int]) -> dict[str, Any] | None:
    if processor is None:
        return None
    changed = dict(processor)
    if "special_tokens" in processor:
        tokens = processor["special_tokens"]
        changed["special_tokens"] = {
            name: {**token, "ids": [new[old] for old in token["ids"]]} for name, token in tokens.items()
        }
    for name in ("sep", "cls"):
        if name in processor:
            changed[name] = [processor[name][0], new[processor[name][1]]]
    if "processors" in processor:
        changed["processors"] = [_renumbered_processor(part, new) for part in processor["processors"]]
    return changed


def _rebuilt(tokenizer: PreTrainedTokenizerBase, state: dict[str, Any]) -> PreTrainedTokenizerBase:
    """A tokenizer of the same class and settings on another backend, by way of saved files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        (folder / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
        config = folder / "tokenizer_config.json"
        settings = json.loads(config.read_text(encoding="utf-8"))
        settings.pop("added_tokens_decoder", None)  # old ids; tokenizer.json has the new ones
        config.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
        trimmed: PreTrainedTokenizerBase = type(tokenizer).from_pretrained(folder)
    trimmed.name_or_path = tokenizer.name_or_path
    added = {entry["content"]: entry["id"] for entry in state["added_tokens"]}
    if trimmed.get_vocab() != state["model"]["vocab"] | added:
        raise InputError(f"Cannot trim {type(tokenizer).__name__}: it does not load with another vocabulary.")
    return trimmed
