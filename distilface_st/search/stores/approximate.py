"""FAISS structures that find most of the nearest vectors without looking at all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from .vectors import load_faiss

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS = ("exact", "hnsw", "ivf-pq", "int8")

HNSW_LINKS, HNSW_BUILD, HNSW_SEARCH = 32, 80, 96
"""Links of a node; candidates while building; candidates while searching."""

IVF_PROBES = 32
_TRAINED_ON = 131_072
_ADDED_AT_ONCE = 65_536


def build(kind: str, vectors: np.ndarray, path: Path, progress: Callable[[int], Any] = lambda done: None) -> None:
    """Build a structure over all rows and write it to a file.

    Args:
        kind: ``hnsw`` (a graph of neighbours; the vectors again), ``ivf-pq`` (clusters, of which a few are looked at;
            a byte for each four dimensions) or ``int8`` (all rows, a byte a dimension).
        vectors: Shape (n, d), float32, of length 1.
        path: Where to.
        progress: Called with the number of rows done.

    Raises:
        InputError: ``ivf-pq`` over too few rows to find clusters.
    """
    faiss = load_faiss()
    index = _empty(faiss, kind, *vectors.shape)
    if not index.is_trained:
        step = max(1, len(vectors) // _TRAINED_ON)
        index.train(np.ascontiguousarray(vectors[::step][:_TRAINED_ON]))
    for start in range(0, len(vectors), _ADDED_AT_ONCE):
        index.add(np.ascontiguousarray(vectors[start : start + _ADDED_AT_ONCE]))
        progress(min(start + _ADDED_AT_ONCE, len(vectors)))
    faiss.write_index(index, str(path))


def _empty(faiss: Any, kind: str, rows: int, dimension: int) -> Any:
    product = faiss.METRIC_INNER_PRODUCT
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, HNSW_LINKS, product)
        index.hnsw.efConstruction = HNSW_BUILD
        return index
    if kind == "int8":
        return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_8bit, product)
    if rows < 2048 or dimension % 4:
        raise InputError(
            f"ivf-pq is for 2,048 passages or more and dimensions that four divides; these are {rows:,} of "
            f"{dimension}: use exact or hnsw."
        )
    clusters = min(4096, int(4 * rows**0.5), rows // 39)
    return faiss.index_factory(dimension, f"IVF{clusters},PQ{dimension // 4}", product)


def open_structure(path: Path) -> Any:
    """Open a structure, mapped from its file where FAISS can.

    Raises:
        InputError: The file is damaged.
    """
    faiss = load_faiss()
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise InputError(f"{path} is damaged: build the index again ({str(error).splitlines()[0][:120]}).") from error
    return index


def candidates(index: Any, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
    """Row numbers of likely nearest rows, shape (queries, k); -1 where there are no more.

    Args:
        index: An opened structure.
        queries: Shape (q, d), float32.
        k: Rows a query.
        allowed: A bit a row, packed, little-endian: which rows may be found; None allows all.
    """
    faiss = load_faiss()
    selector = None if allowed is None else faiss.IDSelectorBitmap(allowed)
    if isinstance(index, faiss.IndexHNSW):
        parameters = faiss.SearchParametersHNSW(efSearch=max(HNSW_SEARCH, 2 * k), sel=selector)
    elif isinstance(index, faiss.IndexIVF):
        parameters = faiss.SearchParametersIVF(nprobe=min(IVF_PROBES, index.nlist), sel=selector)
    else:
        parameters = faiss.SearchParameters(sel=selector)
    found: np.ndarray = index.search(queries, k, params=parameters)[1]
    return found
