"""Embeddings in fewer bytes: a byte a dimension, or a bit; numpy alone, with sentence-transformers' numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
"""What the numbers of an embedding are stored as."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

SCALED: tuple[Precision, ...] = ("int8", "uint8")
"""Precisions that need to know between which numbers each dimension lies."""

_BUCKETS = 255


def quantize_embeddings(embeddings: ArrayLike, precision: str, ranges: ArrayLike | None = None) -> np.ndarray:
    """What ``sentence_transformers.util.quantize_embeddings`` gives, bit for bit.

    ``uint8`` cuts the range of each dimension into 255 steps and rounds down; what lies outside goes to its ends.
    ``ubinary`` keeps a bit a dimension, 1 where a number is greater than 0: eight to a byte, the first in the highest
    bit, zeros where the last byte is not full. ``int8`` and ``binary`` are these less 128.

    Args:
        embeddings: Shape (n, d) or (d,), floats.
        precision: ``float32``, ``int8``, ``uint8``, ``binary`` or ``ubinary``.
        ranges: For ``int8`` and ``uint8``: the least and the greatest number of each dimension, shape (2, d). By
            default those of the embeddings themselves, so that a row depends on the others: give the same ranges to
            whatever is to be compared.

    Returns:
        Shape (n, d) or (d,); for ``binary`` and ``ubinary`` with d / 8 columns, rounded up.

    Raises:
        InputError: A precision that is none of these, embeddings that are quantized already, a single one without
            ranges, or ranges of another shape.

    Example:
        >>> embeddings = np.array([[-1.0, 0.0], [0.0, 155.0], [254.0, 255.0]])
        >>> quantize_embeddings(embeddings, "uint8").tolist()
        [[0, 0], [1, 155], [255, 255]]
        >>> quantize_embeddings(embeddings[1], "int8", ranges=ranges_of(embeddings)).tolist()
        [-127, 27]
        >>> quantize_embeddings(embeddings, "ubinary").tolist()
        [[0], [64], [192]]
    """
    check_precision(precision)
    embeddings = np.asarray(embeddings)
    if embeddings.dtype in (np.int8, np.uint8):
        raise InputError(f"The embeddings are quantized already, to {embeddings.dtype}: give them as floats.")
    if precision == "float32":
        return embeddings.astype(np.float32)
    if precision in SCALED:
        octets = _scaled(embeddings, _checked_ranges(embeddings, precision, ranges))
    else:
        octets = np.packbits(embeddings > 0, axis=-1)
    # With the highest bit turned over, the byte of a number is that of the number less 128.
    return (octets ^ 0x80).view(np.int8) if precision in ("int8", "binary") else octets


def ranges_of(embeddings: np.ndarray) -> np.ndarray:
    """The least and the greatest number of each dimension, shape (2, d), of embeddings (n, d), n at least 1."""
    return np.stack([embeddings.min(axis=0), embeddings.max(axis=0)])


def quantized_width(dimension: int, precision: str) -> int:
    """How many numbers are stored of an embedding: bytes that eight dimensions share, or one a dimension."""
    return -(-dimension // 8) if precision in ("binary", "ubinary") else dimension


def check_precision(precision: str) -> None:
    """Refuse, with an :class:`InputError`, what is no precision."""
    if precision not in PRECISIONS:
        raise InputError(f"There is no precision {precision!r}: choose from {', '.join(PRECISIONS)}.")


def check_calibration(count: int, precision: str) -> None:
    """Refuse to find ranges in a single embedding, whose dimensions have none."""
    if count == 1:
        raise InputError(
            f"{precision} needs the range of each dimension, and a single embedding has none: embed several texts, or "
            "give the ranges of others (quantize_embeddings in distilface_st.inference.precision)."
        )


def _checked_ranges(embeddings: np.ndarray, precision: str, ranges: ArrayLike | None) -> np.ndarray:
    dimension = embeddings.shape[-1]
    if ranges is None:
        check_calibration(len(np.atleast_2d(embeddings)), precision)
        ranges = ranges_of(embeddings) if len(embeddings) else np.zeros((2, dimension))
    ranges = np.asarray(ranges, dtype=np.float32)
    if ranges.shape != (2, dimension):
        raise InputError(f"Ranges have shape (2, {dimension}) for these embeddings, not {ranges.shape}.")
    return ranges


def _scaled(embeddings: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    least, greatest = ranges
    steps = (greatest - least) / _BUCKETS
    steps[steps == 0] = 1  # a dimension that is the same everywhere
    numbers: np.ndarray = np.clip(np.floor((embeddings - least) / steps), 0, _BUCKETS)
    return numbers.astype(np.uint8)
