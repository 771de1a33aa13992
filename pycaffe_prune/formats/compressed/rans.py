"""The entropy coder: range ANS with many states that take turns, so that NumPy does a turn at once.

Asymmetric numeral systems (Duda 2013) in the range variant: a symbol of frequency ``f`` out of
``2**precision`` takes a state ``x`` to ``(x // f << precision) + x % f + start``; decoding takes it
back. Symbol ``i`` belongs to state ``i % lanes``. States have 32 bits and stay at 65,536 or more:
what is above goes out in words of 16 bits. The states of a turn take their words in their own
order, which is what lets a turn be a few operations on arrays. Few states are faster with Python's
own numbers: a turn of one costs as much as a turn of a hundred.
"""

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError

__all__ = ["MAX_PRECISION", "decode", "encode", "symbol_type"]

MAX_PRECISION = 16
"""The largest precision: a state must take in a symbol of frequency 1 with one word out at most."""

_LEAST = 1 << 16  # of a state; also where each begins
_FEW = 8  # lanes


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
    way = _encode_few if lanes <= _FEW else _encode_many
    return way(symbols, frequencies, precision, lanes)


def _encode_few(
    symbols: NDArray[np.unsignedinteger],
    frequencies: NDArray[np.uint32],
    precision: int,
    lanes: int,
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    of_symbols, starts = frequencies.tolist(), _starts(frequencies).tolist()
    states = [_LEAST] * lanes
    words = []
    for place, symbol in reversed(list(enumerate(symbols.tolist()))):
        state, frequency = states[place % lanes], of_symbols[symbol]
        if state >= frequency << (32 - precision):
            words.append(state & 0xFFFF)
            state >>= 16
        times, rest = divmod(state, frequency)
        states[place % lanes] = (times << precision) + rest + starts[symbol]
    return np.array(states, np.uint32), np.array(words[::-1], np.uint16)


def _encode_many(
    symbols: NDArray[np.unsignedinteger],
    frequencies: NDArray[np.uint32],
    precision: int,
    lanes: int,
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
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
    way = _decode_few if states.size <= _FEW else _decode_many
    return way(count, frequencies, precision, states, words)


def _decode_few(
    count: int,
    frequencies: NDArray[np.uint32],
    precision: int,
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
) -> NDArray[np.unsignedinteger]:
    of_symbols, starts = frequencies.tolist(), _starts(frequencies).tolist()
    symbol_of = np.repeat(np.arange(frequencies.size), frequencies).tolist()
    left, mask = states.tolist(), (1 << precision) - 1
    coming = iter(words.tolist())
    symbols = []
    for place in range(count):
        state = left[place % len(left)]
        symbol = symbol_of[state & mask]
        symbols.append(symbol)
        state = of_symbols[symbol] * (state >> precision) + (state & mask) - starts[symbol]
        if state < _LEAST:
            word = next(coming, None)
            if word is None:
                raise FormatError("ends before its last symbol")
            state = state << 16 | word
        left[place % len(left)] = state
    if next(coming, None) is not None or any(state != _LEAST for state in left):
        raise FormatError("holds other symbols than its entropy coder was given")
    return np.array(symbols, symbol_type(frequencies.size))


def _decode_many(
    count: int,
    frequencies: NDArray[np.uint32],
    precision: int,
    states: NDArray[np.uint32],
    words: NDArray[np.uint16],
) -> NDArray[np.unsignedinteger]:
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
