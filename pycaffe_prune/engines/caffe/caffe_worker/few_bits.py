"""Weights on few levels: `pruning.few_bits`, said again for a Python that cannot import it.

A test holds them against each other.
"""

import numpy as np

_CUTS, _BINS = 64, 1024
_TERNARY = 0.7


def on_few_levels(weights, rule, bits, kept=None):
    """As `pruning.few_bits.on_few_levels`; ``bits`` are None for the rules that take none."""
    alive = weights if kept is None else weights[kept]
    if not alive.size:
        return np.zeros_like(weights)
    if rule == "binary":
        moved = _binary(alive)
    elif rule == "ternary":
        moved = _ternary(alive)
    else:
        moved = _stepped(alive, rule, 1 << bits)
    if kept is None:
        return moved
    whole = np.zeros_like(weights)
    whole[kept] = moved
    return whole


def _binary(weights):
    level = np.float32(np.abs(weights).mean(dtype=np.float64))
    return np.where(weights < 0, -level, level)


def _ternary(weights):
    sizes = np.abs(weights)
    far = sizes > np.float32(_TERNARY * sizes.mean(dtype=np.float64))
    level = np.float32(sizes[far].mean(dtype=np.float64)) if far.any() else np.float32(0)
    return np.where(far, np.copysign(level, weights), np.float32(0))


def _stepped(weights, rule, count):
    low, high = weights.min(), weights.max()
    whole = _on_steps(weights, low, high, count)
    if rule == "min-max":
        return whole
    low, high = _least_squares_range(weights, low, high, count)
    cut = _on_steps(weights, low, high, count)
    return cut if _error(weights, cut) < _error(weights, whole) else whole


def _on_steps(weights, low, high, count):
    low64, high64 = float(low), float(high)
    levels = np.linspace(low64, high64, count).astype(np.float32)
    steps = np.float32((count - 1) / (high64 - low64) if high64 > low64 else 0)
    codes = np.rint((weights - low) * steps)
    return levels[np.clip(codes, 0, count - 1, out=codes).astype(np.intp)]


def _least_squares_range(weights, low, high, count):
    low64, high64 = float(low), float(high)
    if not high64 > low64:
        return low, high
    width = (high64 - low64) / _BINS
    places = ((weights.reshape(-1) - low) * np.float32(1 / width)).astype(np.intp)
    counts = np.bincount(np.minimum(places, _BINS - 1), minlength=_BINS)
    middles = low64 + width * (np.arange(_BINS) + 0.5)
    cuts = max(-low64, high64) * np.arange(_CUTS, 0, -1)[:, None] / _CUTS
    lows, highs = np.maximum(low64, -cuts), np.minimum(high64, cuts)
    fits = (highs > lows)[:, 0]
    lows, highs = lows[fits], highs[fits]
    steps = (highs - lows) / (count - 1)
    codes = np.clip(np.rint((middles - lows) / steps), 0, count - 1)
    best = np.argmin(np.dot((lows + steps * codes - middles) ** 2, counts))
    return np.float32(lows[best, 0]), np.float32(highs[best, 0])


def _error(weights, moved):
    return float(np.square(weights - moved, dtype=np.float64).sum())
