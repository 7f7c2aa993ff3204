"""Vectors in one flat file that only grows, read as pages: opening it reads nothing."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 16_384
"""Rows compared at once: 25 MB at 384 dimensions, float32, and the similarities of a hundred queries beside them."""


class VectorFile:
    """float32 rows of one width, row i at byte ``4 * i * dimension``, without a header.

    Args:
        path: The file; a missing one has no rows.
        dimension: Width of a row.
    """

    def __init__(self, path: Path, dimension: int) -> None:
        self.path = path
        self.dimension = dimension

    def write(self, start: int, vectors: np.ndarray) -> str:
        """Write rows from ``start`` on, over whatever an unfinished change left there, and have them reach the disk.

        Returns:
            Their checksum, see :meth:`digest`.
        """
        data = np.ascontiguousarray(vectors, dtype="<f4")
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            file.seek(start * self.dimension * 4)
            file.write(data.data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        return self.digest(data)

    def rows(self, count: int) -> np.ndarray:
        """The first ``count`` rows, mapped and not read.

        Raises:
            InputError: The file is shorter.
        """
        if not count:
            return np.zeros((0, self.dimension), np.float32)
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size < count * self.dimension * 4:
            raise InputError(f"{self.path} is cut short ({size:,} bytes): the index is damaged; build it again.")
        return np.memmap(self.path, "<f4", "r", shape=(count, self.dimension))

    @staticmethod
    def digest(vectors: np.ndarray) -> str:
        """64-bit BLAKE2b of rows."""
        return hashlib.blake2b(np.ascontiguousarray(vectors).data, digest_size=8).hexdigest()


def nearest(
    vectors: np.ndarray, queries: np.ndarray, k: int, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Exact nearest rows by dot product, block by block, on all cores.

    Args:
        vectors: Shape (n, d), float32; may be mapped from a file.
        queries: Shape (q, d), float32.
        k: Rows a query.
        rows: Numbers of the only rows to look at, ascending; by default all.

    Returns:
        Row numbers, shape (q, min(k, rows)), and similarities, best first.
    """
    faiss = load_faiss()
    total = len(vectors) if rows is None else len(rows)
    k = min(k, total)
    if not k:
        return np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)

    def of_block(start: int) -> tuple[np.ndarray, np.ndarray]:
        numbers = None if rows is None else rows[start : start + BLOCK]
        block = vectors[start : start + BLOCK] if numbers is None else vectors[numbers]
        scores, best = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        return (best + start if numbers is None else numbers[best]), scores

    parts = list(_threads().map(of_block, range(0, total, BLOCK)))
    found = np.concatenate([part[0] for part in parts], axis=1)
    scores = np.concatenate([part[1] for part in parts], axis=1)
    order = np.lexsort((found, -scores), axis=1)[:, :k]
    return np.take_along_axis(found, order, 1), np.take_along_axis(scores, order, 1)


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads that each run FAISS alone: its own wait for one another, and for whatever else keeps a core busy."""
    return ThreadPoolExecutor(os.cpu_count() or 1, "nearest", lambda: load_faiss().omp_set_num_threads(1))


def load_faiss() -> Any:
    """The library, imported on use.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("A FAISS index", "search") from error
    return faiss
