"""How often symbols occur, in the whole numbers that the entropy coder works with, and as bits."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.compressed.rans import MAX_PRECISION

__all__ = ["MAX_ORDER", "Cost", "Table", "best_table", "least_cost", "table_bytes", "table_from"]

MAX_ORDER = 7
"""The highest order of the Exp-Golomb code that frequencies are written in."""

_WORTH = 1.0002  # a higher precision must save so much, since its tables decode slower
_MOST_BITS = 2 * (MAX_PRECISION + 1)  # of one frequency


@dataclass(frozen=True)
class Table:
    """Frequencies of the symbols 0, 1, … that are 2**precision together."""

    frequencies: NDArray[np.uint32]
    precision: int
    order: int
    """Of the Exp-Golomb code that takes the fewest bits for them."""


@dataclass(frozen=True)
class Cost:
    """The precision and order that make table and symbols smallest together."""

    precision: int
    order: int
    bits: float
    """What both take; within a thousandth, since the frequencies' sum is not made right yet."""


def least_cost(counts: NDArray[np.int64]) -> Cost:
    """Return what the best table of symbols costs.

    Args:
        counts: How often each symbol occurs: at most 65,536, the last not 0.
    """
    used = int(np.count_nonzero(counts))
    if used == 1:
        return Cost(0, 0, 0.0)
    least = max(1, math.ceil(math.log2(used)))
    most = max(least, min(MAX_PRECISION, int(counts.sum()).bit_length() + 2))
    costs = [_cost(counts, precision) for precision in range(least, most + 1)]
    good = min(cost.bits for cost in costs) * _WORTH
    return next(cost for cost in costs if cost.bits <= good)


def _cost(counts: NDArray[np.int64], precision: int) -> Cost:
    rounded = _rounded(counts, precision)
    used = counts > 0
    shares = np.log2(rounded.sum()) - np.log2(rounded[used])
    lengths = _table_bits(rounded)
    order = int(np.argmin(lengths))
    return Cost(precision, order, float((counts[used] * shares).sum() + lengths[order]))


def best_table(counts: NDArray[np.int64]) -> Table:
    """Return the table that makes it and the symbols smallest together.

    Args:
        counts: As for `least_cost`.
    """
    cost = least_cost(counts)
    frequencies = _scaled(counts, cost.precision)
    return Table(frequencies.astype(np.uint32), cost.precision, cost.order)


def _rounded(counts: NDArray[np.int64], precision: int) -> NDArray[np.int64]:
    """The counts as shares of about ``2**precision``; what occurs has at least 1."""
    found: NDArray[np.int64] = np.rint(counts * ((1 << precision) / counts.sum())).astype(np.int64)
    np.maximum(found, counts > 0, out=found)
    return found


def _scaled(counts: NDArray[np.int64], precision: int) -> NDArray[np.int64]:
    """The counts as shares of ``2**precision``; what occurs has at least 1."""
    found = _rounded(counts, precision)
    while excess := int(found.sum()) - (1 << precision):
        step = 1 if excess > 0 else -1
        able = np.flatnonzero((found > 1) if step > 0 else (counts > 0))
        # The bits that the symbols cost more, or less, with one step.
        change = counts[able] * np.log2(found[able] / (found[able] - step))
        chosen = able[np.argsort(change, kind="stable")[: abs(excess)]]
        found[chosen] -= step
    return found


def _table_bits(frequencies: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many bits the Exp-Golomb code of each order takes for all of them."""
    orders = np.arange(MAX_ORDER + 1)
    digits = np.frexp(frequencies + (1 << orders[:, None]))[1].sum(axis=1, dtype=np.int64)
    return np.asarray(2 * digits - frequencies.size * (1 + orders), np.int64)


def table_bytes(table: Table) -> bytes:
    """Return the frequencies as bits, the first bit the highest of its byte, padded with zeros."""
    codes = []
    for frequency in table.frequencies.tolist():
        binary = f"{frequency + (1 << table.order):b}"
        codes.append("0" * (len(binary) - table.order - 1) + binary)
    text = "".join(codes)
    padded = text.ljust(-(-len(text) // 8) * 8, "0")
    return int(padded, 2).to_bytes(len(padded) // 8, "big")


def table_from(
    ahead: memoryview, alphabet: int, precision: int, order: int
) -> tuple[NDArray[np.uint32], int]:
    """Read what `table_bytes` wrote.

    Args:
        ahead: Bytes that begin with it.
        alphabet: How many frequencies there are.
        precision: They are ``2**precision`` together.
        order: Of their Exp-Golomb code.

    Returns:
        The frequencies and how many bytes they took.

    Raises:
        FormatError: There are no such frequencies; the sentence lacks the place.
    """
    usable = ahead[: alphabet * _MOST_BITS // 8 + 1]
    text = f"{int.from_bytes(usable, 'big'):0{8 * len(usable)}b}"
    frequencies = np.empty(alphabet, np.uint32)
    at = 0
    for symbol in range(alphabet):
        one = text.find("1", at)
        end = 2 * one - at + order + 1
        if one < 0 or one - at > MAX_PRECISION or end > len(text):
            raise FormatError("has a damaged table of frequencies")
        frequencies[symbol] = int(text[one:end], 2) - (1 << order)
        at = end
    if int(frequencies.sum(dtype=np.int64)) != 1 << precision:
        raise FormatError("has a table of frequencies with a wrong sum")
    return frequencies, -(-at // 8)
