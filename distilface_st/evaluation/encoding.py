"""What the evaluators share: encoding each distinct sentence once, and the CSV that grows by a line an evaluation."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import InputError
from ..inference.edge_encoder import EdgeEncoder

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence


class Encoder(Protocol):
    """Anything that encodes sentences as ``SentenceTransformer`` does."""

    def encode(self, inputs: list[str], /, *, batch_size: int, show_progress_bar: bool, convert_to_numpy: bool) -> Any:
        """Embeddings, shape (sentences, d)."""


AnyEncoder = Encoder | EdgeEncoder
"""What the evaluators take."""


def encode_distinct(
    model: AnyEncoder, sentences: Iterable[str], batch_size: int, show_progress_bar: bool = False
) -> tuple[dict[str, int], np.ndarray]:
    """Encode each distinct sentence once, in one pass (``SentenceTransformer.encode`` sorts it by length).

    Args:
        model: The encoder, with its own length limit and prompt. An ``EdgeEncoder`` cuts its own batches.
        sentences: Sentences; repeated ones cost nothing.
        batch_size: Sentences in one forward pass.
        show_progress_bar: Whether the encoder shows its progress.

    Returns:
        The row of each sentence, and rows of length 1, shape (distinct sentences, d), float32.

    Raises:
        InputError: An embedding is zero or not finite.
    """
    rows = {sentence: row for row, sentence in enumerate(dict.fromkeys(sentences))}
    if isinstance(model, EdgeEncoder):
        embeddings = model.encode(list(rows))
    else:
        embeddings = model.encode(
            list(rows), batch_size=batch_size, show_progress_bar=show_progress_bar, convert_to_numpy=True
        )
    return rows, unit_rows(np.asarray(embeddings, dtype=np.float32), list(rows))


def unit_rows(vectors: np.ndarray, sentences: Sequence[str]) -> np.ndarray:
    """Scale rows to length 1.

    Args:
        vectors: Shape (n, d), float32.
        sentences: What each row embeds, for the error.

    Raises:
        InputError: A row is zero or not finite.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if bad.size:
        kind = "zero" if norms[bad[0], 0] == 0 else "not finite"
        raise InputError(
            f"The model's embedding of {sentences[bad[0]]!r} is {kind} ({bad.size} of {len(norms)} are so): "
            "cosine similarity is undefined. Training may have diverged."
        )
    return np.asarray(vectors / norms)


def append_csv(path: str | os.PathLike[str], row: dict[str, Any]) -> None:
    """Append a row to a CSV file, which is made with a header where it does not exist.

    Raises:
        InputError: The file has other columns.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    if not is_new:
        with path.open(newline="", encoding="utf-8") as file:
            header = next(csv.reader(file), [])
        if header != list(row):
            raise InputError(f"{path} has other columns than this evaluation: use another output folder or name.")
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)
