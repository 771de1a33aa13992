"""Weights on few levels: k bits with equal steps, binary, ternary.

A rule finds a blob's levels from its own weights, and puts each weight on one of them. Nothing is
kept from one time to the next, so that a training that does so before each pass can go on from its
weights alone. Weights that a mask prunes stay zero and count for no level.

Of equal steps there are two rules. ``min-max`` spans all weights; ``mse`` cuts off what is far out
where that lowers the mean squared error: the range is cut at +-c, with c in 64 steps up to the
largest magnitude, by the error over a histogram, and is that of min-max unless the weights
themselves are nearer with the other. Binary is sign(w) * mean |w| (Courbariaux et al. 2015, with
the scale of Rastegari et al. 2016); ternary has a threshold of 0.7 * mean |w|, and for a level the
mean |w| of those above it (Li et al. 2016).
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.pruning.sharing import SharedBlobs, first_of_each, require_equal_blobs

__all__ = ["BITS", "LevelRule", "Rule", "level_rule", "on_few_levels", "with_few_bits"]

Rule = Literal["min-max", "mse", "binary", "ternary"]
"""How levels are found; see the module."""
BITS = Annotated[int, Field(ge=1, le=8)]
"""Bits of a code."""

_CUTS, _BINS = 64, 1024
_TERNARY = 0.7
_TEXT = re.compile(r"(?P<bits>[0-9]+)bits?(:(?P<rule>min-max|mse))?")


class LevelRule(BaseModel):
    """How the levels of one blob are found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Rule
    bits: BITS | None = None
    """Of equal steps alone."""

    @model_validator(mode="after")
    def _bits_where_they_are_needed(self) -> Self:
        if self.rule in ("min-max", "mse") and self.bits is None:
            raise ValueError(f"the rule '{self.rule}' needs bits, 1 to 8")
        if self.rule in ("binary", "ternary") and self.bits is not None:
            raise ValueError(f"the rule '{self.rule}' takes no bits")
        return self

    @property
    def count(self) -> int:
        """How many levels there are at most, without the zero of what a mask prunes."""
        return {"binary": 2, "ternary": 3}.get(self.rule) or 1 << (self.bits or 0)

    @property
    def told(self) -> str:
        """As `level_rule` reads it."""
        return self.rule if self.bits is None else f"{self.bits}bits:{self.rule}"


def level_rule(text: str) -> LevelRule:
    """Return the rule that a text tells: ``binary``, ``ternary``, ``3bits``, ``3bits:min-max``.

    Without a rule bits are for ``mse``.

    Raises:
        ValueError: It tells none; the sentence says what does.
    """
    if text in ("binary", "ternary"):
        return LevelRule.model_validate({"rule": text})
    found = _TEXT.fullmatch(text)
    if found is None or not 1 <= int(found["bits"]) <= 8:
        raise ValueError(
            f"'{text}' tells no levels; these do: binary, ternary, 1bits to 8bits, 3bits:min-max"
        )
    return LevelRule.model_validate({"rule": found["rule"] or "mse", "bits": int(found["bits"])})


def on_few_levels(weights: Blob, rule: LevelRule, kept: Mask | None = None) -> Blob:
    """Put each weight on one of the levels that a rule finds for all of them.

    Doing it again changes nothing. With ``min-max`` no weight moves by more than half a step.

    Args:
        weights: Any shape, float32, finite.
        rule: How levels are found.
        kept: Same shape; when given, weights at False become +0, and count for nothing.

    Returns:
        A new blob, float32, with at most `LevelRule.count` values besides those zeros.
    """
    alive = weights if kept is None else weights[kept]
    if not alive.size:
        return np.zeros_like(weights)
    if rule.rule == "binary":
        moved = _binary(alive)
    elif rule.rule == "ternary":
        moved = _ternary(alive)
    else:
        moved = _stepped(alive, rule)
    if kept is None:
        return moved
    whole = np.zeros_like(weights)
    whole[kept] = moved
    return whole


def with_few_bits(
    model: Caffemodel,
    rules: Mapping[BlobKey, LevelRule],
    shared: SharedBlobs,
    *,
    keeps_zeros: bool = False,
) -> Caffemodel:
    """Put blobs of a model on few levels, those that layers share in all of them.

    Args:
        model: The weights.
        rules: By blob. Of blobs that are the same memory in Caffe the first one's counts.
        shared: What the net's layers share.
        keeps_zeros: Whether weights that are zero stay so, and count for no level.

    Raises:
        FormatError: A layer is not in the model.
        SurgeryError: A weight is not finite, or layers that share a blob have different ones.
    """
    keys = first_of_each(shared, rules)
    require_equal_blobs(shared, model, keys)
    held = dict(model.blobs())
    moved = {}
    for key in keys:
        if not np.isfinite(held[key]).all():
            raise SurgeryError(f"layer '{key[0]}', blob {key[1]} holds weights that are not finite")
        blob = on_few_levels(held[key], rules[key], held[key] != 0 if keeps_zeros else None)
        for other in shared.get(key, (key,)):
            if other in held:
                moved[other] = blob.reshape(held[other].shape)
    return model.with_blobs(moved)


def _binary(weights: Blob) -> Blob:
    return np.copysign(np.float32(np.abs(weights).mean(dtype=np.float64)), weights)


def _ternary(weights: Blob) -> Blob:
    sizes = np.abs(weights)
    far = sizes > np.float32(_TERNARY * sizes.mean(dtype=np.float64))
    count = np.count_nonzero(far)
    level = np.float32((sizes * far).sum(dtype=np.float64) / count if count else 0)
    moved = np.copysign(level, weights) * far
    moved += np.float32(0)  # of -0 it makes +0
    return moved


def _stepped(weights: Blob, rule: LevelRule) -> Blob:
    low, high = weights.min(), weights.max()
    if rule.rule == "min-max" or not high > low:
        return _on_steps(weights, low, high, rule.count)
    cut_low, cut_high, is_better = _least_squares_range(weights, low, high, rule.count)
    cut = _on_steps(weights, cut_low, cut_high, rule.count)
    if is_better:
        return cut
    whole = _on_steps(weights, low, high, rule.count)
    return cut if _error(weights, cut) < _error(weights, whole) else whole


def _on_steps(weights: Blob, low: np.float32, high: np.float32, count: int) -> Blob:
    low64, high64 = float(low), float(high)
    levels = np.linspace(low64, high64, count).astype(np.float32)
    steps = np.float32((count - 1) / (high64 - low64) if high64 > low64 else 0)
    codes = (weights - low) * steps
    moved: Blob = levels.take(np.rint(codes, out=codes).astype(np.intp), mode="clip")
    return moved


def _least_squares_range(
    weights: Blob, low: np.float32, high: np.float32, count: int
) -> tuple[np.float32, np.float32, bool]:
    """The range, of those cut at +-c, with the least squared error over a histogram.

    And whether that error is less than that of the whole range for certain: moving a weight into
    the middle of its bin changes its distance from the nearest level by half a bin at most.
    """
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


def _error(weights: Blob, moved: Blob) -> float:
    return float(np.square(weights - moved, dtype=np.float64).sum())
