"""A smaller vocabulary for the same tokenizer: what text does not need is left out, and no text becomes unknown."""

from __future__ import annotations

import json
import tempfile
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from ..errors import InputError
from ..models.encoders import check_sentences
from ..utils.chunks import chunked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from transformers import PreTrainedTokenizerBase


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

    Returns:
        A tokenizer of the same class and settings with ``size`` tokens, and ``kept``, shape (new size,), int64: the old
        id of each new one. ``embeddings[kept]`` are its embeddings. Where nothing is left out, the tokenizer itself.

    Raises:
        InputError: The tokenizer is of another kind; ``size`` is less than what must be kept; the vocabulary cannot
            be trimmed so that the second holds; a text is no string.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise InputError(
            f"Only fast WordPiece tokenizers can be trimmed: {type(tokenizer).__name__} is not a fast tokenizer."
        )
    if (kind := type(backend.model).__name__) != "WordPiece":
        raise InputError(f"Only WordPiece vocabularies can be trimmed: that of {type(tokenizer).__name__} is {kind}.")
    ids = backend.get_vocab(with_added_tokens=True)
    if size >= len(ids):
        return tokenizer, np.arange(max(ids.values()) + 1, dtype=np.int64)
    state = json.loads(backend.to_str())
    required, barred = _required_and_barred(state)
    if size < len(required):
        raise InputError(
            f"A vocabulary of {size} tokens is too small: {len(required)} must be kept, special tokens and characters."
        )
    counts = _count(backend, texts, max(ids.values()) + 1)
    free = sorted(set(ids.values()) - required - barred, key=lambda old: (-counts[old], old))
    kept = np.array(sorted([*required, *free[: size - len(required)]]), dtype=np.int64)
    return _rebuilt(tokenizer, _renumbered(state, kept)), kept


def _required_and_barred(state: dict[str, Any]) -> tuple[set[int], set[int]]:
    """Ids that must be kept, and ids that must not be.

    A token is replaceable where each of its characters is a token: its first one as it stands, the others as a
    continuation. Others are kept. If another token reached into an irreplaceable continuation, the rest of that might
    match nothing, so such tokens are barred. At a word's beginning none does: there the longest token that is kept is
    at most as long as the one before.
    """
    model = state["model"]
    prefix: str = model["continuing_subword_prefix"]
    vocabulary: dict[str, int] = model["vocab"]
    continued = {token: token[len(prefix) :] for token in vocabulary if token.startswith(prefix) and token != prefix}
    first = {token for token in vocabulary if len(token) == 1}
    following = {body for body in continued.values() if len(body) == 1}

    def is_replaceable(token: str) -> bool:
        if token in continued:
            return following.issuperset(continued[token])
        return token[:1] in first and following.issuperset(token[1:])

    irreplaceable = {token for token in vocabulary if not is_replaceable(token)}
    within = [continued[token] for token in irreplaceable if token in continued]
    stumps = {body[:end] for body in within for end in range(1, len(body))}
    barred = {
        token for token, body in continued.items() if any(body[start:] in stumps for start in range(1, len(body)))
    }
    special: dict[int, int] = {}
    _map_ids(state["post_processor"], lambda old: special.setdefault(old, old))
    known = {*vocabulary.values(), *(entry["id"] for entry in state["added_tokens"])}
    padding = {state["padding"]["pad_id"]} & known if state["padding"] else set()
    required = {*special, *padding, *(entry["id"] for entry in state["added_tokens"])}
    required |= {old for token, old in vocabulary.items() if token in irreplaceable or token == model["unk_token"]}
    required |= {old for token, old in vocabulary.items() if token in first or continued.get(token) in following}
    if both := sorted(token for token in barred if vocabulary[token] in required):
        raise InputError(
            f"This vocabulary cannot be trimmed: what follows {both[0]!r} could become unknown, because it has "
            "characters that are no tokens of their own."
        )
    return required, {vocabulary[token] for token in barred}


def _count(backend: Tokenizer, texts: Iterable[str], size: int) -> np.ndarray:
    """How often each id occurs, shape (size,): texts are not cut, and no special tokens are added."""
    whole = Tokenizer.from_str(backend.to_str())
    whole.no_truncation()
    whole.no_padding()
    counts = np.zeros(size, dtype=np.int64)
    for batch in chunked(texts, 1000):
        check_sentences(batch)
        encodings = whole.encode_batch_fast(batch, add_special_tokens=False)
        found = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64)
        counts += np.bincount(found, minlength=size)
    return counts


def _renumbered(state: dict[str, Any], kept: np.ndarray) -> dict[str, Any]:
    """The tokenizer's JSON with the kept tokens only, under their new ids."""
    new = {int(old): index for index, old in enumerate(kept)}
    vocabulary = {token: new[old] for token, old in state["model"]["vocab"].items() if old in new}
    if padding := state["padding"]:
        padding = {**padding, "pad_id": new.get(padding["pad_id"], padding["pad_id"])}
    return {
        **state,
        "model": {**state["model"], "vocab": vocabulary},
        "added_tokens": [{**entry, "id": new[entry["id"]]} for entry in state["added_tokens"]],
        "padding": padding,
        "post_processor": _map_ids(state["post_processor"], new.__getitem__),
    }


def _map_ids(processor: dict[str, Any] | None, change: Callable[[int], int]) -> dict[str, Any] | None:
    """A post-processor with ``change`` applied to the id of each special token that it adds."""
    if processor is None:
        return None
    changed = dict(processor)
    if "special_tokens" in processor:  # TemplateProcessing
        tokens = processor["special_tokens"].items()
        changed["special_tokens"] = {name: {**token, "ids": [*map(change, token["ids"])]} for name, token in tokens}
    for name in {"sep", "cls"} & processor.keys():  # BertProcessing, RobertaProcessing
        changed[name] = [processor[name][0], change(processor[name][1])]
    if "processors" in processor:  # Sequence
        changed["processors"] = [_map_ids(part, change) for part in processor["processors"]]
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
