"""Positions of values that are not zero, as the runs of zeros before them.

A token below the span is a gap: so many zeros, and then a value. The token that is the span itself
is so many zeros and no value. Zeros after the last value have no token.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.compressed.symbols import coded_bits

__all__ = ["MAX_SPAN_BITS", "best_span", "positions_of", "tokens_of"]

MAX_SPAN_BITS = 12
"""The span is a power of two, of 4,096 at most."""

_SPAN_BITS = (2, 4, 6, 8, 10, 12)
_BLOCK = 1 << 20
_COUNTED = 1 << 16  # gaps below it are counted by how long they are


def _gaps(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.diff(positions, prepend=-1) - 1


def best_span(positions: NDArray[np.int64]) -> tuple[int, float]:
    """Return the span, as a power of two, whose tokens take the fewest bits, and these.

    Args:
        positions: Rising, shape (n,); n is not 0.
    """
    gaps = _gaps(positions)
    lengths, counts = _histogram(gaps)
    bits = {}
    for span_bits in _SPAN_BITS:
        longer, rest = lengths >> span_bits, lengths & ((1 << span_bits) - 1)
        tokens = np.zeros((1 << span_bits) + 1, np.int64)
        np.add.at(tokens, rest, counts)
        tokens[-1] = (longer * counts).sum()
        bits[span_bits] = coded_bits(tokens)
    best = min(bits, key=lambda span_bits: bits[span_bits])
    return best, bits[best]


def _histogram(gaps: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The lengths of gaps that occur, and how often each does."""
    if gaps.max() >= _COUNTED:
        return np.unique(gaps, return_counts=True)
    counts = np.bincount(gaps)
    lengths = np.flatnonzero(counts)
    return lengths, counts[lengths]


def tokens_of(positions: NDArray[np.int64], span_bits: int) -> NDArray[np.uint16]:
    """Return the tokens of rising positions, shape (n,)."""
    gaps = _gaps(positions)
    fillers = gaps >> span_bits
    rest = (gaps & ((1 << span_bits) - 1)).astype(np.uint16)
    if not fillers.any():
        return rest
    ends = np.cumsum(fillers + 1) - 1
    tokens = np.full(int(ends[-1]) + 1, 1 << span_bits, np.uint16)
    tokens[ends] = rest
    return tokens


def positions_of(
    tokens: NDArray[np.unsignedinteger], span_bits: int, size: int
) -> Iterator[NDArray[np.int64]]:
    """Yield the positions that `tokens_of` was given, in parts: they take eight bytes each.

    Args:
        tokens: None above the span.
        span_bits: The span, as a power of two.
        size: Of the blob.

    Raises:
        FormatError: They lead past the blob's end; the sentence lacks the place.
    """
    span = 1 << span_bits
    last = -1
    for start in range(0, tokens.size, _BLOCK):
        block = tokens[start : start + _BLOCK]
        is_value = block < span
        ends = np.cumsum(block + is_value.astype(np.int64))
        ends += last
        last = int(ends[-1])
        if last >= size:
            raise FormatError(f"has positions up to {last:,}, but its shape holds {size:,} values")
        yield ends if is_value.all() else ends[is_value]
