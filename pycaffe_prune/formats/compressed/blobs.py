"""One blob in a compressed file: the smallest of the exact encodings, found by measuring them.

The size of every way is told from how often each symbol occurs; only the smallest one is coded.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.compressed.gaps import (
    MAX_SPAN_BITS,
    best_span,
    positions_of,
    tokens_of,
)
from pycaffe_prune.formats.compressed.pieces import Cursor, Part, Piece, number
from pycaffe_prune.formats.compressed.symbols import Symbols, encode_symbols, read_symbols
from pycaffe_prune.formats.compressed.values import (
    Coding,
    StoredValues,
    Values,
    encode_values,
    measure,
    read_values,
)
from pycaffe_prune.formats.hashed import MAX_SEED, bucket_values, hashed_blob

__all__ = ["Encoding", "Hash", "StoredBlob", "encode_blob", "encode_hashed", "read_blob"]

Bits = NDArray[np.uint32]

_HASHING = 40  # bytes for each weight while places are hashed
_WORTH = 0.995  # storing the zeros too, or by columns, must save so much: decoding takes longer


class Encoding(IntEnum):
    """Which values of a blob are stored."""

    ALL = 0
    """All, in C order."""
    NON_ZERO = 1
    """Those of which a bit is set, in C order, and where they are."""
    NON_ZERO_COLUMNS = 2
    """As `NON_ZERO`, but with the first axis fastest: down the columns of a matrix."""
    HASHED = 3
    """One for each bucket of a hash of the places (`formats.hashed`)."""


class Hash(NamedTuple):
    """What tells the bucket of each of a blob's weights."""

    buckets: int
    seed: int


def encode_hashed(blob: Blob, told: Hash) -> list[Piece]:
    """Return a hashed blob as it stands in a file: the values of its buckets.

    Raises:
        FormatError: Its weights are not those of so many values by that hash, or are fewer.
    """
    values = None
    if 1 <= told.buckets <= blob.size and 0 <= told.seed <= MAX_SEED:
        values = bucket_values(blob, told.buckets, told.seed)
    if values is None:
        raise FormatError(
            f"is none of {told.buckets:,} values by the hash with the seed {told.seed}; give what "
            "it was hashed with"
        )
    found = measure(values.view("<u4"))
    return [
        _told(Encoding.HASHED),
        number(told.buckets),
        number(told.seed),
        *encode_values(found, found.coding()[0]),
    ]


def encode_blob(blob: Blob) -> list[Piece]:
    """Return a blob as it stands in a file; its shape is not part of it."""
    bits = np.ascontiguousarray(blob, "<f4").reshape(-1).view("<u4")
    positions = np.flatnonzero(bits)
    zeros = bits.size - positions.size
    if not zeros:
        return _encode_all(bits)
    kept = measure(bits[positions])
    if not positions.size:
        return _encode_non_zero(Encoding.NON_ZERO, positions, 0, kept)
    encoding, ordered, span_bits, position_bits = _best_order(positions, blob.shape)
    if kept.coding(zeros)[1] < _WORTH * (position_bits + kept.coding()[1]):
        return _encode_all(bits)
    if encoding is Encoding.NON_ZERO_COLUMNS:
        kept = measure(bits[_transposed(ordered, blob.shape)])
    return _encode_non_zero(encoding, ordered, span_bits, kept)


def _transposed(positions: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Positions with the first axis fastest, as those in C order."""
    rest, first = np.divmod(positions, shape[0])
    first *= math.prod(shape[1:])
    first += rest
    return first


def _encode_all(bits: Bits) -> list[Piece]:
    values = measure(bits)
    return [_told(Encoding.ALL), *encode_values(values, values.coding()[0])]


def _encode_non_zero(
    encoding: Encoding, positions: NDArray[np.int64], span_bits: int, values: Values
) -> list[Piece]:
    return [
        _told(encoding),
        number(positions.size),
        Piece(Part.FRAMING, bytes([span_bits])),
        *encode_symbols(tokens_of(positions, span_bits), Part.POSITIONS),
        *encode_values(values, values.coding()[0]),
    ]


def _told(encoding: Encoding) -> Piece:
    return Piece(Part.FRAMING, bytes([encoding]))


def _best_order(
    positions: NDArray[np.int64], shape: tuple[int, ...]
) -> tuple[Encoding, NDArray[np.int64], int, float]:
    """The order with the smaller positions, these in it, their span and their bits."""
    by_rows = (Encoding.NON_ZERO, positions, *best_span(positions))
    if len(shape) < 2 or not 1 < shape[0] < math.prod(shape):
        return by_rows
    row, column = np.divmod(positions, math.prod(shape[1:]))
    column *= shape[0]
    column += row
    column.sort()
    by_columns = (Encoding.NON_ZERO_COLUMNS, column, *best_span(column))
    return by_columns if by_columns[3] < _WORTH * by_rows[3] else by_rows


@dataclass(frozen=True)
class StoredBlob:
    """A blob as it stands in a file, still coded."""

    shape: tuple[int, ...]
    encoding: Encoding
    values: StoredValues
    tokens: Symbols | None = None
    """Where the values are; None: everywhere."""
    span_bits: int = 0
    seed: int = 0
    """Of the hash, where they are the values of its buckets."""

    @property
    def size(self) -> int:
        """How many values the blob has."""
        return math.prod(self.shape)

    @property
    def memory(self) -> int:
        """The bytes that decoding takes at most, its result included."""
        if self.encoding is Encoding.HASHED:
            return _HASHING * self.size + self.values.memory
        if self.tokens is None:
            return self.values.memory
        return 4 * self.size + self.tokens.memory + self.values.memory

    @property
    def coding(self) -> Coding:
        """How the values stand in the file."""
        return self.values.coding

    def decode(self) -> Blob:
        """Return the blob, to the last bit.

        Raises:
            FormatError: Its positions or values are damaged; the sentence lacks the place.
        """
        kept = self.values.decode()
        if self.encoding is Encoding.HASHED:
            return hashed_blob(kept.view("<f4"), self.shape, self.seed)
        if self.tokens is None:
            return kept.view("<f4").reshape(self.shape)
        bits = np.zeros(self.size, "<u4")
        found = 0
        for positions in positions_of(self.tokens.decode(), self.span_bits, self.size):
            places = positions
            if self.encoding is Encoding.NON_ZERO_COLUMNS:
                places = _transposed(positions, self.shape)
            part = kept[found : found + places.size]
            found += places.size
            if part.size == places.size:
                bits[places] = part
        if found != kept.size:
            raise FormatError(f"has {kept.size:,} values but {found:,} positions")
        return bits.view("<f4").reshape(self.shape)


def read_blob(cursor: Cursor, shape: tuple[int, ...]) -> StoredBlob:
    """Read what `encode_blob` wrote, without decoding it.

    Args:
        cursor: Is moved past it.
        shape: Of the blob; the caller has seen that Caffe's blobs can have it.

    Raises:
        FormatError: There is no such thing; the sentence lacks the place.
    """
    told = cursor.byte()
    if told not in Encoding.__members__.values():
        raise FormatError(f"has the encoding {told}, which this version does not know")
    encoding = Encoding(told)
    size = math.prod(shape)
    if encoding is Encoding.NON_ZERO_COLUMNS and not (size and shape):
        raise FormatError("has columns, but its shape has none")
    if encoding is Encoding.ALL:
        return StoredBlob(shape, encoding, read_values(cursor, size))
    if encoding is Encoding.HASHED:
        return _read_hashed(cursor, shape)
    count = cursor.number()
    span_bits = cursor.byte()
    if count > size or span_bits > MAX_SPAN_BITS:
        raise FormatError(f"says that {count:,} of its {size:,} values are not zero")
    tokens = read_symbols(cursor, size, Part.POSITIONS)
    if tokens.frequencies.size > (1 << span_bits) + 1:
        raise FormatError("has positions that are not of its span")
    values = read_values(cursor, count)
    return StoredBlob(shape, encoding, values, tokens, span_bits)


def _read_hashed(cursor: Cursor, shape: tuple[int, ...]) -> StoredBlob:
    told = Hash(cursor.number(), cursor.number())
    if not 1 <= told.buckets <= math.prod(shape) or told.seed > MAX_SEED:
        raise FormatError(f"says that its values are hashed to {told.buckets:,} buckets")
    values = read_values(cursor, told.buckets)
    return StoredBlob(shape, Encoding.HASHED, values, seed=told.seed)
