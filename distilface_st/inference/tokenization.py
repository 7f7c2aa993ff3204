"""From text to token ids and from token ids to padded batches."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from ..errors import InputError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from .manifest import Manifest

TOKENIZER = "tokenizer.json"


class SentenceTokenizer:
    """The tokenizer of an exported folder: text in, token ids out, cut at the longest input and not padded."""

    def __init__(self, folder: str | os.PathLike[str], manifest: Manifest) -> None:
        path = Path(folder, TOKENIZER)
        if not path.is_file():
            raise InputError(f"{folder} has no {TOKENIZER}: export the model again.")
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise InputError(f"{path} is damaged: {error}") from error
        self.tokenizer.no_padding()
        # transformers' name for the side that text is cut at; the file says it where the model cuts at the left
        self._direction = (self.tokenizer.truncation or {}).get("direction", "right")
        self._pad = manifest.pad_token_id
        self._left = manifest.padding_side == "left"
        self._limit = self.max_seq_length = manifest.max_seq_length
        self._uncut: Tokenizer | None = None

    @property
    def max_seq_length(self) -> int:
        """Longest input in tokens, special ones included; text is cut there. It can be set lower than the model's."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        if not 1 <= value <= self._limit:
            raise InputError(f"max_seq_length is {value}: this model takes 1 to {self._limit} tokens.")
        self._max_seq_length = value
        self.tokenizer.enable_truncation(value, direction=self._direction)

    def ids(self, sentences: Sequence[str]) -> list[list[int]]:
        """Token ids of each sentence, special tokens included."""
        try:
            return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(sentences)]
        except TypeError as error:
            check_sentences(sentences)
            raise InputError(f"Sentences must be a list of strings: {error}.") from error

    def ids_of_one(self, sentence: str) -> list[int]:
        """Token ids of one sentence, with no list or thread in between."""
        try:
            return list(self.tokenizer.encode(sentence).ids)
        except TypeError as error:
            check_sentences([sentence])
            raise InputError(f"A sentence must be a string: {error}.") from error

    def counts(self, sentences: Sequence[str]) -> list[int]:
        """Tokens of each sentence before any cut, special tokens not counted."""
        if self._uncut is None:
            self._uncut = Tokenizer.from_str(self.tokenizer.to_str())
            self._uncut.no_truncation()
        return [len(encoding.ids) for encoding in self._uncut.encode_batch_fast(sentences, add_special_tokens=False)]

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt, a special token at its end not counted, as sentence-transformers counts them."""
        encoding = self.tokenizer.encode(prompt)
        return len(encoding.ids) - sum(encoding.special_tokens_mask[-1:])

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and attention mask of a batch, each of shape (rows, longest), int64."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        longest = int(lengths.max())
        positions = np.arange(longest)
        mask = positions >= longest - lengths[:, None] if self._left else positions < lengths[:, None]
        ids = np.full(mask.shape, self._pad, np.int64)
        ids[mask] = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
        return ids, mask.astype(np.int64)


def sentence_list(sentences: Any) -> list[str]:
    """A list of what is given: a sequence, an array or one column of strings, a generator.

    Raises:
        InputError: One string, or what has names or no order, so that nobody could tell which embedding is whose.
    """
    if (
        isinstance(sentences, (str, bytes, Mapping, set, frozenset))
        or hasattr(sentences, "columns")
        or not np.iterable(sentences)
    ):
        raise InputError(f"Sentences must be a list of strings, not of type {type(sentences).__name__}.")
    return list(sentences)


def check_sentences(sentences: Sequence[object]) -> None:
    """Refuse what the tokenizer would not take, or would take for a pair: no string, or one of invalid Unicode."""
    for number, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise InputError(f"Sentence {number} is of type {type(sentence).__name__}: only strings can be encoded.")
        try:
            sentence.encode()
        except UnicodeEncodeError:
            raise InputError(f"Sentence {number} is not valid Unicode: {sentence[:40]!r}.") from None
