"""sentence-transformers' four similarity functions in numpy; greater is always more similar."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError

SIMILARITY_FUNCTIONS = ("cosine", "dot", "euclidean", "manhattan")


def similarity(embeddings1: Any, embeddings2: Any, name: str = "cosine") -> Any:
    """The similarity, (n, m), of each row of one, (n, d) or (d,), with each row of the other, (m, d) or (d,).

    Both are arrays or torch tensors, the result is of the first's kind. Euclidean and manhattan are negative distances.

    Example:
        >>> similarity(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0], [3.0, 0.0]])).tolist()
        [[0.0, 1.0]]
    """
    a, b = _rows(embeddings1, name), _rows(embeddings2, name)
    if name in ("cosine", "dot"):
        return _like(embeddings1, a @ b.T)
    if name == "manhattan":
        return _like(embeddings1, -np.stack([np.abs(row - b).sum(axis=1) for row in a]))
    # In float64, since the difference of large sums leaves few digits of a small distance.
    a, b = a.astype(np.float64), b.astype(np.float64)
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * (a @ b.T)
    return _like(embeddings1, -np.sqrt(np.maximum(squared, 0)).astype(np.float32))


def pairwise_similarity(embeddings1: Any, embeddings2: Any, name: str = "cosine") -> Any:
    """The similarity of row i of one with row i of the other; both (n, d), the result (n,). As :func:`similarity`."""
    a, b = _rows(embeddings1, name), _rows(embeddings2, name)
    if name in ("cosine", "dot"):
        return _like(embeddings1, (a * b).sum(axis=1))
    return _like(embeddings1, -np.linalg.norm(a - b, ord=1 if name == "manhattan" else 2, axis=1))


def _rows(embeddings: Any, name: str) -> np.ndarray:
    if name not in SIMILARITY_FUNCTIONS:
        raise InputError(f"There is no similarity {name!r}: choose from {', '.join(SIMILARITY_FUNCTIONS)}.")
    detached = embeddings.detach().cpu().float() if hasattr(embeddings, "detach") else embeddings
    rows = np.atleast_2d(np.asarray(detached, dtype=np.float32))
    if name == "cosine":
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows


def _like(first: Any, result: np.ndarray) -> Any:
    if not hasattr(first, "detach"):
        return result
    import torch

    return torch.from_numpy(np.ascontiguousarray(result)).to(first.device)
