"""A run of symbols, entropy coded: count, table of frequencies, states and words."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.compressed import rans
from pycaffe_prune.formats.compressed.frequencies import (
    MAX_ORDER,
    Table,
    best_table,
    least_cost,
    table_bytes,
    table_from,
)
from pycaffe_prune.formats.compressed.pieces import Cursor, Part, Piece, number

__all__ = [
    "MAX_SYMBOLS",
    "Symbols",
    "coded_bits",
    "count_symbols",
    "encode_symbols",
    "read_symbols",
]

MAX_SYMBOLS = 1 << rans.MAX_PRECISION
"""The most symbols an alphabet has."""

_TURNS = 2048  # of the entropy coder, until it has all its lanes
_MAX_LANES = 4096
_BLOCK = 1 << 20  # what is counted at once: bincount takes eight bytes a symbol
_ORDER_SHIFT = 5


def _lanes(count: int) -> int:
    """How many states the coder of ``count`` symbols has.

    It is a rule, and stands in no file: none can ask for millions of turns.
    """
    return min(_MAX_LANES, 1 << (max(1, -(-count // _TURNS)) - 1).bit_length())


def count_symbols(symbols: NDArray[np.unsignedinteger], alphabet: int) -> NDArray[np.int64]:
    """Return how often each of the symbols below ``alphabet`` occurs."""
    counts = np.zeros(alphabet, np.int64)
    for start in range(0, symbols.size, _BLOCK):
        counts += np.bincount(symbols[start : start + _BLOCK], minlength=alphabet)
    return counts


def coded_bits(counts: NDArray[np.int64]) -> float:
    """Return what symbols that occur so often take, with their table and all else.

    Args:
        counts: One for each symbol of the alphabet; any may be 0.
    """
    if not counts.any():
        return 8.0
    kept = counts[: int(np.flatnonzero(counts)[-1]) + 1]
    cost = least_cost(kept)
    # Beside the states' 32 bits, of which 16 take the place of a word: count, alphabet, words.
    return cost.bits + (16 * _lanes(int(kept.sum())) + 56 if cost.precision else 48)


def encode_symbols(symbols: NDArray[np.unsignedinteger], part: Part) -> list[Piece]:
    """Return symbols as they stand in a file.

    Args:
        symbols: Shape (n,), any n.
        part: What they are there for.
    """
    count = number(symbols.size)
    if not symbols.size:
        return [count]
    table = best_table(count_symbols(symbols, int(symbols.max()) + 1))
    head = [
        count,
        Piece(Part.FRAMING, bytes([table.precision | table.order << _ORDER_SHIFT])),
        number(table.frequencies.size - 1),
    ]
    if not table.precision:
        return head
    return head + _coded(symbols, table, part)


def _coded(symbols: NDArray[np.unsignedinteger], table: Table, part: Part) -> list[Piece]:
    states, words = rans.encode(symbols, table.frequencies, table.precision, _lanes(symbols.size))
    return [
        Piece(Part.TABLES, table_bytes(table)),
        number(words.size),
        Piece(part, states.astype("<u4").tobytes() + words.astype("<u2").tobytes()),
    ]


@dataclass(frozen=True)
class Symbols:
    """Symbols that are still coded."""

    count: int
    frequencies: NDArray[np.uint32]
    precision: int
    states: NDArray[np.uint32]
    words: NDArray[np.uint16]

    @property
    def memory(self) -> int:
        """The bytes that decoding takes at most."""
        return self.count * rans.symbol_type(self.frequencies.size).itemsize

    def decode(self) -> NDArray[np.unsignedinteger]:
        """Return the symbols, shape (count,), each below ``frequencies.size``; read-only.

        Raises:
            FormatError: The words are not those of the symbols; the sentence lacks the place.
        """
        if not self.precision:
            alphabet = max(1, self.frequencies.size)
            only = np.array(alphabet - 1, rans.symbol_type(alphabet))
            return np.broadcast_to(only, (self.count,))
        return rans.decode(self.count, self.frequencies, self.precision, self.states, self.words)


def read_symbols(cursor: Cursor, most: int, part: Part) -> Symbols:
    """Read what `encode_symbols` wrote, without decoding it.

    Args:
        cursor: Is moved past it.
        most: The most symbols that may be there: more would be damage.
        part: What they are there for.

    Raises:
        FormatError: There is no such thing; the sentence lacks the place.
    """
    count = cursor.number()
    if count > most:
        raise FormatError(f"has {count:,} symbols where at most {most:,} can be")
    none = np.empty(0, np.uint32)
    if not count:
        return Symbols(0, none, 0, none, none.astype(np.uint16))
    told = cursor.byte()
    precision, order = told & 31, told >> _ORDER_SHIFT
    alphabet = cursor.number() + 1
    if precision > rans.MAX_PRECISION or order > MAX_ORDER or alphabet > MAX_SYMBOLS:
        raise FormatError("has an entropy coder that is none of this format")
    if not precision:
        frequencies = np.zeros(alphabet, np.uint32)
        frequencies[-1] = 1
        return Symbols(count, frequencies, 0, none, none.astype(np.uint16))
    frequencies, used = table_from(cursor.ahead(cursor.left), alphabet, precision, order)
    cursor.take(used, Part.TABLES)
    words = cursor.number()
    states = cursor.take(4 * _lanes(count), part)
    return Symbols(
        count,
        frequencies,
        precision,
        np.frombuffer(states, "<u4"),
        np.frombuffer(cursor.take(2 * words, part), "<u2"),
    )
