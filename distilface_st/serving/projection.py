"""Embeddings in the plane."""

from __future__ import annotations

import numpy as np


def plane(embeddings: np.ndarray) -> np.ndarray:
    """The first two principal components, centred, on one scale in [-1, 1].

    Args:
        embeddings: Shape (n, d).

    Returns:
        Shape (n, 2), float64. Equal embeddings give equal points, and the same input always the same picture.

    Example:
        >>> plane(np.array([[0.0, 3.0], [0.0, 1.0], [0.0, -1.0]])).round(3).tolist()
        [[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]
    """
    rows = np.asarray(embeddings, dtype=np.float64)
    if len(rows) == 0:
        return np.zeros((0, 2))
    rows = rows - rows.mean(axis=0)
    _, directions = np.linalg.eigh(rows.T @ rows)
    components = directions[:, ::-1][:, :2]
    largest = components[np.abs(components).argmax(axis=0), np.arange(components.shape[1])]
    points = rows @ (components * np.sign(largest))  # an eigenvector's sign is arbitrary
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    scale = np.abs(points).max()
    return np.asarray(points / scale if scale > 1e-12 else np.zeros_like(points)) + 0.0
