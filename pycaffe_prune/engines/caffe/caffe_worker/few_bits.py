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
    return np.copysign(np.float32(np.abs(weights).mean(dtype=np.float64)), weights)


def _ternary(weights):
    sizes = np.abs(weights)
    far = sizes > np.float32(_TERNARY * sizes.mean(dtype=np.float64))
    count = np.count_nonzero(far)
    level = np.float32((sizes * far).sum(dtype=np.float64) / count if count else 0)
    moved = np.copysign(level, weights) * far
    moved += np.float32(0)  # of -0 it makes +0
    return moved


def _stepped(weights, rule, count):
    low, high = weights.min(), weights.max()
    if rule == "min-max" or not high > low:
        return _on_steps(weights, low, high, count)
    cut_low, cut_high, is_better = _least_squares_range(weights, low, high, count)
    cut = _on_steps(weights, cut_low, cut_high, count)
    if is_better:
        return cut
    whole = _on_steps(weights, low, high, count)
    return cut if _error(weights, cut) < _error(weights, whole) else whole


def _on_steps(weights, low, high, count):
    low64, high64 = float(low), float(high)
    levels = np.linspace(low64, high64, count).astype(np.float32)
    steps = np.float32((count - 1) / (high64 - low64) if high64 > low64 else 0)
    codes = (weights - low) * steps
    return levels.take(np.rint(codes, out=codes).astype(np.intp), mode="clip")


def _least_squares_range(weights, low, high, count):
    low64, high64 = float(low), float(high)
    width = (high64 - low64) / _BINS
    places = ((weights.reshape(-1) - low) * np.float32(1 / width)).astype(np.intp)
    counts = np.bincount(np.minimum(places, _BINS - 1), minlength=_BINS)
    middles = low64 + width * (np.arange(_BINS) + 0.5)
    cuts = max(-low64, high64) * np.arange(_CUTS, 0, -1)[:, None] / _CUTS
    lows, highs = np.maximum(low64, -cuts), np.minimum(high64, cuts)
    fits = (highs > lows)[:, 0]
    lows, highs = lows[fits], highs[fits]
    steps = (highs - lows) / (count - 1)
    off = (middles - lows) / steps
    off -= np.clip(np.rint(off), 0, count - 1)
    off *= off
    off *= counts
    errors = np.sqrt(off.sum(axis=1)) * steps[:, 0]
    best = np.argmin(errors)
    is_better = errors[best] + width * weights.size**0.5 < errors[0]
    return np.float32(lows[best, 0]), np.float32(highs[best, 0]), bool(is_better)


def _error(weights, moved):
    return float(np.square(weights - moved, dtype=np.float64).sum())
