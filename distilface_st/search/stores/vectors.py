"""Vectors in a flat file, compared all of them, or by a FAISS structure that finds most of the nearest quickly."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import InputError
from ...inference.precision import quantize_embeddings, quantized_width
from ...utils.extras import require
from .base import REBUILD

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

KINDS = ("exact", "hnsw", "ivf-pq", "int8", "binary")

BLOCK = 16_384
"""Rows compared at once: 25 MB at 384 dimensions, float32, and the similarities of a hundred queries beside them."""

HNSW_LINKS, HNSW_BUILD, HNSW_SEARCH = 32, 80, 96  # links of a node; candidates while building; while searching
_IVF_PROBES = 32
_TRAINED_ON = 131_072
IVF_ROWS = 2048  # from which on clusters and their codes can be learned; fewer rows are compared all
_ADDED_AT_ONCE = 65_536


class VectorFile:
    """float32 rows of one width, row i at byte ``4 * i * dimension``, without a header. A missing file has no rows."""

    def __init__(self, path: Path, dimension: int) -> None:
        self.path = path
        self.dimension = dimension

    def write(self, start: int, vectors: np.ndarray) -> str:
        """Write rows from ``start`` on, over what an unfinished change left there, to the disk; their checksum."""
        data = np.ascontiguousarray(vectors, dtype="<f4")
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            file.seek(start * self.dimension * 4)
            file.write(data.data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        return self.digest(data)

    def rows(self, count: int) -> np.ndarray:
        """The first ``count`` rows, mapped and not read."""
        if not count:
            return np.zeros((0, self.dimension), np.float32)
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size < count * self.dimension * 4:
            raise InputError(f"{self.path} is cut short ({size:,} bytes): the index is damaged; {REBUILD}.")
        return np.memmap(self.path, "<f4", "r", shape=(count, self.dimension))

    @staticmethod
    def digest(vectors: np.ndarray) -> str:
        """64-bit BLAKE2b of rows."""
        return hashlib.blake2b(np.ascontiguousarray(vectors).data, digest_size=8).hexdigest()


class Nearest(NamedTuple):
    """Row numbers and similarities of each query, best first, both of shape (queries, k)."""

    rows: np.ndarray
    similarities: np.ndarray


def best_of(parts: Iterable[Nearest], k: int) -> Nearest:
    """The best ``k`` of what was found in several places; of equal similarities, the lower row comes first."""
    rows, similarities = (np.hstack(found) for found in zip(*parts, strict=True))
    order = np.lexsort((rows, -similarities), axis=1)[:, :k]
    return Nearest(np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1))


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int, rows: np.ndarray | None = None) -> Nearest:
    """Exact nearest rows of ``vectors`` (n, d) to ``queries`` (q, d) by dot product, block by block, on all cores.

    The vectors may be mapped from a file. ``rows`` are the numbers of the only rows to look at, ascending.
    """
    faiss = load_faiss()
    total = len(vectors) if rows is None else len(rows)
    if not min(k, total):
        return Nearest(np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32))

    def of_block(start: int) -> Nearest:
        numbers = None if rows is None else rows[start : start + BLOCK]
        block = vectors[start : start + BLOCK] if numbers is None else vectors[numbers]
        scores, best = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        return Nearest(best + start if numbers is None else numbers[best], scores)

    return best_of(_threads(os.getpid()).map(of_block, range(0, total, BLOCK)), k)


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """Threads that each run FAISS alone: its own wait for one another, and for whatever else keeps a core busy.

    A forked process has none of its parent's threads and would wait for them for ever: here, so that it needs threads
    of its own, and in FAISS, so that no thread that may be forked runs it.
    """
    return ThreadPoolExecutor(os.cpu_count() or 1, "nearest", lambda: load_faiss().omp_set_num_threads(1))


def load_faiss() -> Any:
    """The library, imported on use."""
    return require("faiss", "A FAISS index", "search")


def check_kind(kind: str, dimension: int) -> None:
    """Refuse a kind of structure that vectors of this width cannot have."""
    if kind == "ivf-pq" and dimension % 4:
        others = "exact, hnsw, int8 or binary"
        raise InputError(f"ivf-pq is for dimensions that four divides, not for {dimension}: use {others}.")


def build_structure(kind: str, vectors: np.ndarray, path: Path) -> None:
    """Build a structure over all rows, shape (n, d), float32, of length 1, and write it to a file.

    ``hnsw`` is a graph of neighbours and holds the vectors again; ``ivf-pq`` has clusters, of which a few are looked
    at, and a byte for each four dimensions; ``int8`` has all rows, a byte a dimension; ``binary`` has all rows, a bit a
    dimension, its sign, compared by Hamming distance.
    """
    with ThreadPoolExecutor(1) as thread:  # which has FAISS's own threads to itself, see _threads
        thread.submit(_build, kind, vectors, path).result()


def _build(kind: str, vectors: np.ndarray, path: Path) -> None:
    faiss = load_faiss()
    rows, dimension = vectors.shape
    product = faiss.METRIC_INNER_PRODUCT
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, HNSW_LINKS, product)
        index.hnsw.efConstruction = HNSW_BUILD
    elif kind == "binary":
        index = faiss.IndexBinaryFlat(structure_dimension(kind, dimension))
    elif kind == "int8":
        index = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_8bit, product)
    else:
        clusters = min(4096, int(4 * rows**0.5), rows // 39)
        index = faiss.index_factory(dimension, f"IVF{clusters},PQ{dimension // 4}", product)
    if not index.is_trained:
        step = max(1, rows // _TRAINED_ON)
        index.train(np.ascontiguousarray(vectors[::step][:_TRAINED_ON]))
    for start in range(0, rows, _ADDED_AT_ONCE):  # a mapped file is read part by part, and never whole in memory
        part = np.ascontiguousarray(vectors[start : start + _ADDED_AT_ONCE])
        index.add(quantize_embeddings(part, "ubinary") if kind == "binary" else part)
    write = faiss.write_index_binary if kind == "binary" else faiss.write_index
    with path.open("wb") as file:  # opened here, since C takes not every name, see open_structure
        write(index, faiss.PyCallbackIOWriter(file.write))


def structure_dimension(kind: str, dimension: int) -> int:
    """Dimensions of a structure over vectors of this width: as many, but for ``binary`` the bits of whole bytes."""
    return 8 * quantized_width(dimension, "ubinary") if kind == "binary" else dimension


def open_structure(kind: str, path: Path) -> Any:
    """Open a structure, mapped from its file where FAISS can.

    It cannot where the path holds what C's ``fopen`` does not take: on Windows letters of other alphabets, elsewhere
    bytes that are not UTF-8.
    """
    faiss = load_faiss()
    read = faiss.read_index_binary if kind == "binary" else faiss.read_index
    with suppress(RuntimeError, TypeError):
        return read(str(path), faiss.IO_FLAG_MMAP_IFC)
    try:
        with path.open("rb") as file:
            return read(faiss.PyCallbackIOReader(file.read))
    except RuntimeError as error:
        raise InputError(f"{path} is damaged: {REBUILD} ({str(error).splitlines()[0][:120]}).") from error


def candidates(index: Any, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
    """Row numbers of likely nearest rows, shape (queries, k), -1 where there are no more.

    ``allowed``, of shape (n,), says of each row whether it may be found.
    """
    faiss = load_faiss()
    bits = None if allowed is None else np.packbits(allowed, bitorder="little")
    selector = None if bits is None else faiss.IDSelectorBitmap(bits)
    if isinstance(index, faiss.IndexHNSW):
        parameters = faiss.SearchParametersHNSW(efSearch=max(HNSW_SEARCH, 2 * k), sel=selector)
    elif isinstance(index, faiss.IndexIVF):
        parameters = faiss.SearchParametersIVF(nprobe=min(_IVF_PROBES, index.nlist), sel=selector)
    else:
        parameters = faiss.SearchParameters(sel=selector)
    if isinstance(index, faiss.IndexBinary):
        queries = quantize_embeddings(queries, "ubinary")
    parts = np.array_split(queries, max(1, min(len(queries), os.cpu_count() or 1)))
    found = _threads(os.getpid()).map(lambda part: index.search(part, k, params=parameters)[1], parts)
    return np.vstack(list(found))
