"""Trials of one encoder share their tokenization: a text is tokenized once a process, then looked up."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sentence_transformers import SentenceTransformer

_MOST_TEXTS = 200_000


class SharedTokens:
    """What a tokenizer makes of texts, remembered without padding.

    Args:
        most: Texts to remember; later ones are tokenized each time.
    """

    def __init__(self, most: int = _MOST_TEXTS) -> None:
        self._most = most
        self._known: dict[Any, dict[str, dict[str, Tensor]]] = {}
        self._constants: dict[str, Any] = {}

    @contextmanager
    def used_by(self, model: SentenceTransformer) -> Iterator[None]:
        """Have a model look its texts up, in training and in ``encode``."""
        original, own = model.preprocess, model.__dict__.get("preprocess")
        padding = cast("Any", model.tokenizer)

        def preprocess(inputs: Sequence[Any], prompt: str | None = None, **options: Any) -> dict[str, Any]:
            given = {name: value for name, value in options.items() if value is not None}
            simple = all(isinstance(value, str | int) for value in given.values())
            if prompt is not None or not simple or not inputs or not all(isinstance(text, str) for text in inputs):
                return original(inputs, prompt=prompt, **options)
            known = self._known.setdefault(tuple(sorted(given.items())), {})
            if not self._learn(known, [text for text in dict.fromkeys(inputs) if text not in known], original, options):
                return original(inputs, prompt=prompt, **options)
            return self._constants | _padded([known[text] for text in inputs], padding.pad_token_id, padding)

        model.preprocess = preprocess  # type: ignore[method-assign]
        try:
            yield
        finally:
            del model.preprocess
            if own is not None:
                model.preprocess = own  # type: ignore[method-assign]

    def _learn(
        self,
        known: dict[str, dict[str, Tensor]],
        texts: list[str],
        original: Callable[..., dict[str, Any]],
        options: dict[str, Any],
    ) -> bool:
        """Tokenize new texts; False where they cannot be remembered."""
        if not texts:
            return True
        if len(known) + len(texts) > self._most:
            return False
        found = original(texts, prompt=None, **options)
        rows = {name: value for name, value in found.items() if isinstance(value, Tensor) and value.ndim == 2}
        if "attention_mask" not in rows or any(len(value) != len(texts) for value in rows.values()):
            return False
        self._constants = {name: value for name, value in found.items() if name not in rows}
        mask = rows.pop("attention_mask").bool()
        for index, text in enumerate(texts):
            known[text] = {name: value[index][mask[index]].clone() for name, value in rows.items()}
        return True


@cache
def tokens_of(encoder: str) -> SharedTokens:
    """The shared tokens of an encoder in this process."""
    return SharedTokens()


def _padded(rows: list[dict[str, Tensor]], pad: int, tokenizer: Any) -> dict[str, Tensor]:
    side = tokenizer.padding_side
    batch = {
        name: pad_sequence(
            [row[name] for row in rows],
            batch_first=True,
            padding_value=pad
            if name == "input_ids"
            else tokenizer.pad_token_type_id
            if name == "token_type_ids"
            else 0,
            padding_side=side,
        )
        for name in rows[0]
    }
    ones = [torch.ones(len(row["input_ids"]), dtype=torch.long) for row in rows]
    return batch | {"attention_mask": pad_sequence(ones, batch_first=True, padding_side=side)}
