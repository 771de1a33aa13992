"""The entropy coder: range ANS with many states that take turns, so that NumPy does a turn at once.

Asymmetric numeral systems (Duda 2013) in the range variant: a symbol of frequency ``f`` out of
``2**precision`` takes a state ``x`` to ``(x // f << precision) + x % f + start``; decoding takes it
back. Symbol ``i`` belongs to state ``i % lanes``. States have 32 bits and stay at 65,536 or more:
what is above goes out in words of 16 bits. The states of a turn take their words in their own
order, which is what lets a turn be a few operations on arrays.
"""

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError

__all__ = ["MAX_PRECISION", "decode", "encode", "symbol_type"]

MAX_PRECISION = 16
"""The largest precision: a state must take in a symbol of frequency 1 with one word out at most."""

_LEAST = 1 << 16  # of a state; also where each begins


def symbol_type(alphabet: int) -> np.dtype[np.unsignedinteger]:
    """Return the type that symbols of an alphabet of that size are decoded to."""
    return np.dtype(np.uint8 if alphabet <= 1 << 8 else np.uint16)


def _starts(frequencies: NDArray[np.uint32]) -> NDArray[np.uint32]:
    starts = np.zeros_like(frequencies)
    np.cumsum(frequencies[:-1], out=starts[1:])
    return starts


def encode(
    symbols: NDArray[np.unsignedinteger],
    frequencies: NDArray[np.uint32],
    precision: int,
    lanes: int,
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """Encode symbols.

    Args:
        symbols: Shape (n,), of values below ``len(frequencies)``.
        frequencies: One for each symbol of the alphabet, those that occur not 0; their sum is
            ``2**precision``.
        precision: At most `MAX_PRECISION`.
        lanes: How many states take turns.

    Returns:
        The states to begin decoding with, shape (lanes,), and the words that decoding reads.
    """
    starts = _starts(frequencies)
    limits = frequencies.astype(np.uint64) << np.uint64(32 - precision)
    states = np.full(lanes, _LEAST, np.uint64)
    shift = np.uint64(precision)
    words: list[NDArray[np.uint16]] = []
    for begin in reversed(range(0, symbols.size, lanes)):
        turn = symbols[begin : begin + lanes]
        of_turn = states[: turn.size]
        full = of_turn >= limits[turn]
        words.append(of_turn[full].astype(np.uint16))
        of_turn >>= full.astype(np.uint64) << np.uint64(4)
        times, rest = np.divmod(of_turn.astype(np.uint32), frequencies[turn])
        rest += starts[turn]
        np.left_shift(times, shift, out=of_turn)
        of_turn += rest
    words.reverse()
    return states.astype(np.uint32), np.concatenate(words) if words else np.empty(0, np.uint16)


def decode(
    count: int,
    frequencies: NDArray[np.uint32],
    precision: int,
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
) -> NDArray[np.unsignedinteger]:
    """Decode what `encode` made.

    Args:
        count: How many symbols there are; the caller has bounded it.
        frequencies: As they were for `encode`, at most 65,536 of them; their sum is
            ``2**precision``.
        precision: As it was for `encode`.
        states: What `encode` returned, shape (lanes,).
        words: What `encode` returned.

    Returns:
        The symbols, shape (count,), of `symbol_type`.

    Raises:
        FormatError: States and words are not those of ``count`` symbols. The sentence lacks the
            place, which the caller adds.
    """
    if states.size and int(states.min()) < _LEAST:
        raise FormatError("has a damaged state of its entropy coder")
    kind = symbol_type(frequencies.size)
    symbol_of = np.repeat(np.arange(frequencies.size).astype(kind), frequencies)
    frequency_of = frequencies[symbol_of]
    rest_of = np.arange(1 << precision, dtype=np.uint32) - _starts(frequencies)[symbol_of]
    symbols = np.empty(count, kind)
    states = states.copy()
    mask, shift = np.uint32((1 << precision) - 1), np.uint32(precision)
    read = 0
    for begin in range(0, count, states.size):
        of_turn = states[: count - begin]
        slots = of_turn & mask
        symbols[begin : begin + states.size] = symbol_of[slots]
        of_turn >>= shift
        of_turn *= frequency_of[slots]
        of_turn += rest_of[slots]
        low = np.flatnonzero(of_turn < _LEAST)
        taken = words[read : read + low.size]
        if taken.size != low.size:
            raise FormatError("ends before its last symbol")
        of_turn[low] = of_turn[low] << np.uint32(16) | taken
        read += low.size
    if read != words.size or (states != _LEAST).any():
        raise FormatError("holds other symbols than its entropy coder was given")
    return symbols
