"""Connection pruning: thresholds, masks, and weights with zeros where the mask says so.

The rule (docs/protocol.md, "connection pruning" and "sigma"): in every fully connected layer a
weight goes when |w| < alpha * sigma. Sigma is the standard deviation of that layer's weights in the
trained, unpruned network; it is taken once and the thresholds stay fixed through the rounds of
pruning and retraining. The other readings are named in `SigmaRule`; the default stands here only.

Beyond the paper: an alpha for each layer, one threshold for all layers together, and ratios, which
say how many weights go and leave the threshold to the weights. Any matrix of weights can be pruned
so (`pruning.weight_blobs`); where a function takes layers, a name stands for the layer's blob 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.mask import Mask, require_fitting_masks
from pycaffe_prune.pruning.counts import require_finite
from pycaffe_prune.pruning.criteria.connections import (
    magnitude_mask,
    pooled_sigma,
    rank_masks,
    smallest_kept,
    weights_to_prune,
)
from pycaffe_prune.pruning.weight_blobs import as_key

__all__ = [
    "DEFAULT_SIGMA_RULE",
    "SigmaRule",
    "alpha_for_count",
    "apply_masks",
    "global_thresholds",
    "layer_thresholds",
    "nonzero_where_masked",
    "prune_connections",
    "prune_to_global_ratio",
    "prune_to_ratios",
    "resulting_thresholds",
    "thresholds",
]


class SigmaRule(StrEnum):
    """Over which weights, and when, the standard deviation is taken."""

    INITIAL = "initial"
    """All weights of the trained, unpruned network, once."""
    ALL = "all"
    """All weights of the current network, zeros included, at each round."""
    SURVIVORS = "survivors"
    """The weights still kept, at each round."""


DEFAULT_SIGMA_RULE = SigmaRule.INITIAL

Places = Iterable[str] | Iterable[BlobKey]
"""Blobs; a layer's name stands for its blob 0."""
Values = Mapping[str, float] | Mapping[BlobKey, float]

_HUGE = 1e6  # no weight is so many sigmas large, unless all of them are equal


def thresholds(
    original: Caffemodel,
    current: Caffemodel,
    alpha: float,
    layers: Places,
    *,
    masks: Mapping[BlobKey, Mask] | None = None,
    rule: SigmaRule = DEFAULT_SIGMA_RULE,
) -> dict[BlobKey, float]:
    """Return alpha * sigma for the weight blob of each layer.

    Args:
        original: The trained, unpruned network.
        current: The network as it is before this round (the first round: the same).
        alpha: Multiple of the standard deviation, not negative.
        layers: The blobs that are pruned.
        masks: The masks so far, for `SigmaRule.SURVIVORS`.
        rule: Which sigma.

    Raises:
        SurgeryError: alpha is negative or not finite, weights are missing or not finite, or the two
            networks or a mask and its blob differ in shape.
        FormatError: A layer is not in the model.
    """
    alphas = {as_key(place): alpha for place in layers}
    return layer_thresholds(original, current, alphas, masks=masks, rule=rule)


def layer_thresholds(
    original: Caffemodel,
    current: Caffemodel,
    alphas: Values,
    *,
    masks: Mapping[BlobKey, Mask] | None = None,
    rule: SigmaRule = DEFAULT_SIGMA_RULE,
) -> dict[BlobKey, float]:
    """Return alpha * sigma for the weight blob of each layer, each with an alpha of its own.

    Args:
        original: The trained, unpruned network.
        current: The network as it is before this round (the first round: the same).
        alphas: Per blob, the multiple of its standard deviation, not negative.
        masks: The masks so far, for `SigmaRule.SURVIVORS`.
        rule: Which sigma.

    Raises:
        As `thresholds`.
    """
    by_key = _by_key(alphas)
    weights = _judged_weights(original, current, by_key, masks or {}, rule)
    return {
        key: _checked(by_key[key]) * pooled_sigma([blob], [kept])
        for key, (blob, kept) in weights.items()
    }


def global_thresholds(
    original: Caffemodel,
    current: Caffemodel,
    alpha: float,
    layers: Places,
    *,
    masks: Mapping[BlobKey, Mask] | None = None,
    rule: SigmaRule = DEFAULT_SIGMA_RULE,
) -> dict[BlobKey, float]:
    """Return the same threshold for every layer: alpha * sigma of all their weights together.

    Args and errors are those of `thresholds`.
    """
    _checked(alpha)
    keys = _keys(layers)
    weights = _judged_weights(original, current, keys, masks or {}, rule)
    blobs = [blob for blob, _ in weights.values()]
    sigma = pooled_sigma(blobs, [kept for _, kept in weights.values()])
    return dict.fromkeys(weights, alpha * sigma)


def _keys(places: Places) -> list[BlobKey]:
    return list(dict.fromkeys(as_key(place) for place in places))


def _by_key(values: Values) -> dict[BlobKey, float]:
    return {as_key(place): value for place, value in values.items()}


def _checked(alpha: float) -> float:
    if not (np.isfinite(alpha) and alpha >= 0):
        raise SurgeryError(f"alpha is a number from 0 on, not {alpha}")
    return alpha


def _judged_weights(
    original: Caffemodel,
    current: Caffemodel,
    keys: Iterable[BlobKey],
    masks: Mapping[BlobKey, Mask],
    rule: SigmaRule,
) -> dict[BlobKey, tuple[Blob, Mask | None]]:
    """The weights that the rule takes sigma over, each with the mask that restricts it."""
    wanted = list(keys)
    source = original if rule is SigmaRule.INITIAL else current
    require_finite(source, dict.fromkeys(name for name, _ in wanted))
    require_fitting_masks(source, masks)
    found = {}
    for name, index in wanted:
        weights, now = _blob(source, name, index), _blob(current, name, index)
        if weights.shape != now.shape:
            shapes = ["x".join(map(str, blob.shape)) for blob in (weights, now)]
            raise SurgeryError(
                f"layer '{name}': the unpruned weights are {shapes[0]}, those to prune "
                f"{shapes[1]}; name the unpruned network of these weights"
            )
        kept = masks.get((name, index)) if rule is SigmaRule.SURVIVORS else None
        found[name, index] = (weights, kept)
    return found


def prune_connections(
    model: Caffemodel,
    limits: Mapping[BlobKey, float],
    previous: Mapping[BlobKey, Mask] | None = None,
) -> tuple[Caffemodel, dict[BlobKey, Mask]]:
    """Zero every weight below its blob's threshold; what ``previous`` pruned stays pruned.

    Args:
        model: The network to prune.
        limits: One threshold a blob, as from `thresholds`.
        previous: Masks of the round before.

    Returns:
        The pruned model and its masks (True = kept): one for each blob in ``limits``, and those of
        ``previous`` for other blobs, which stay in force.

    Raises:
        SurgeryError: Weights are missing or not finite, or a mask has another shape than its blob.
        FormatError: A layer is not in the model.
    """
    require_finite(model, dict.fromkeys(name for name, _ in limits))
    require_fitting_masks(model, previous or {})
    masks = dict(previous or {})
    for (name, index), limit in limits.items():
        blob = _blob(model, name, index)
        kept = masks.get((name, index))
        masks[name, index] = magnitude_mask(blob, limit, kept)
    return apply_masks(model, masks), masks


def prune_to_ratios(
    model: Caffemodel,
    ratios: Values,
    previous: Mapping[BlobKey, Mask] | None = None,
    scores: Mapping[BlobKey, Blob] | None = None,
) -> tuple[Caffemodel, dict[BlobKey, Mask]]:
    """Zero exactly round(ratio * n) of the n weights of each blob, those with the lowest |w|.

    What ``previous`` pruned stays pruned and counts: a layer that lost more already loses no more.

    Args:
        model: The network to prune.
        ratios: Per blob, the share of its weights that is gone afterwards.
        previous: Masks of the round before.
        scores: Per blob, what is ranked in the place of |w| (`criteria.connection_scores`).

    Returns:
        As `prune_connections`.

    Raises:
        SurgeryError: A ratio is not in 0 <= ratio < 1, or as `prune_connections`.
        FormatError: A layer is not in the model.
    """
    masks = dict(previous or {})
    for key, ratio in _by_key(ratios).items():
        count = weights_to_prune(_blob(model, *key).size, ratio)
        masks |= _ranked(model, [key], count, previous or {}, scores)
    return apply_masks(model, masks), masks


def prune_to_global_ratio(
    model: Caffemodel,
    ratio: float,
    layers: Places,
    previous: Mapping[BlobKey, Mask] | None = None,
    scores: Mapping[BlobKey, Blob] | None = None,
) -> tuple[Caffemodel, dict[BlobKey, Mask]]:
    """Zero exactly round(ratio * n) of the n weights of all layers together, the lowest |w| first.

    Args, results and errors are those of `prune_to_ratios`, with one ratio for all.
    """
    keys = _keys(layers)
    count = weights_to_prune(sum(_blob(model, *key).size for key in keys), ratio)
    masks = dict(previous or {}) | _ranked(model, keys, count, previous or {}, scores)
    return apply_masks(model, masks), masks


def _ranked(
    model: Caffemodel,
    keys: Sequence[BlobKey],
    count: int,
    previous: Mapping[BlobKey, Mask],
    scores: Mapping[BlobKey, Blob] | None,
) -> dict[BlobKey, Mask]:
    require_finite(model, dict.fromkeys(name for name, _ in keys))
    require_fitting_masks(model, previous)
    ranked = [_blob(model, *key) if scores is None else scores[key] for key in keys]
    masks = rank_masks(ranked, count, [previous.get(key) for key in keys])
    return dict(zip(keys, masks, strict=True))


def alpha_for_count(model: Caffemodel, layers: Places, count: int) -> float:
    """Return the one alpha for all blobs by which the paper's rule prunes nearest to ``count``.

    Of all alphas that prune at most ``count`` weights it is the largest, to about nine digits; more
    than equal |w| / sigma at that place are missing only where many weights are equal.

    Args:
        model: The trained, unpruned network.
        layers: The blobs that are pruned.
        count: How many weights are to go, over all layers.

    Raises:
        As `thresholds`.
    """
    weights = [_blob(model, *key) for key in thresholds(model, model, 1.0, layers)]
    sigmas = [pooled_sigma([blob], [None]) for blob in weights]

    def pruned(alpha: float) -> int:
        return sum(
            blob.size - int(np.count_nonzero(magnitude_mask(blob, alpha * sigma)))
            for blob, sigma in zip(weights, sigmas, strict=True)
        )

    low, high = 0.0, 1.0
    while pruned(high) <= count and high < _HUGE:
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if pruned(middle) <= count else (low, middle)
    return low


def resulting_thresholds(model: Caffemodel, masks: Mapping[BlobKey, Mask]) -> dict[BlobKey, float]:
    """Return the threshold that each mask amounts to (`criteria.connections.smallest_kept`)."""
    return {
        key: smallest_kept([model.layer(key[0]).blobs[key[1]]], [mask])
        for key, mask in masks.items()
    }


def _blob(model: Caffemodel, name: str, index: int) -> Blob:
    layer = model.layer(name)
    if index >= len(layer.blobs):
        raise SurgeryError(
            f"layer '{name}' ({layer.type}) has {len(layer.blobs)} blobs, none of index {index}"
        )
    return layer.blobs[index]


def apply_masks(model: Caffemodel, masks: Mapping[BlobKey, Mask]) -> Caffemodel:
    """Return the model with exact zeros (+0.0) where a mask is False.

    Raises:
        SurgeryError: A masked blob is missing, or has another shape than its mask.
        FormatError: A masked layer is not in the model.
    """
    require_fitting_masks(model, masks)
    changed = {}
    for (name, index), mask in masks.items():
        blob = np.asarray(model.layer(name).blobs[index], np.float32)
        # The bits as a whole number times 0 or 1: gives no -0.0, and is faster than np.where.
        changed[name, index] = np.multiply(blob.view(np.uint32), mask).view(np.float32)
    return model.with_blobs(changed)


def nonzero_where_masked(model: Caffemodel, masks: Mapping[BlobKey, Mask]) -> dict[BlobKey, int]:
    """Count, per masked blob, the pruned weights that are not zero: all 0 for a sound model.

    Raises:
        SurgeryError: A masked blob is missing, or has another shape than its mask.
        FormatError: A masked layer is not in the model.
    """
    require_fitting_masks(model, masks)
    counts = {}
    for (name, index), mask in masks.items():
        blob = model.layer(name).blobs[index]
        counts[name, index] = int(np.count_nonzero(blob[~mask]))
    return counts
