"""Connection pruning: thresholds, masks, and weights with zeros where the mask says so.

The rule (paper section 5, and its Table 5 by arithmetic): in every fully connected layer a weight
goes when |w| < alpha * sigma. Sigma is the standard deviation of that layer's weights in the
trained, unpruned network; it is taken once and the thresholds stay fixed through the rounds of
pruning and retraining. The other readings are named in `SigmaRule`; the default stands here only.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.mask import Mask, require_fitting_masks
from pycaffe_prune.pruning.counts import require_finite
from pycaffe_prune.pruning.criteria.connections import magnitude_mask, sigma_of

__all__ = [
    "DEFAULT_SIGMA_RULE",
    "SigmaRule",
    "apply_masks",
    "nonzero_where_masked",
    "prune_connections",
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


def thresholds(
    original: Caffemodel,
    current: Caffemodel,
    alpha: float,
    layers: Iterable[str],
    *,
    masks: Mapping[BlobKey, Mask] | None = None,
    rule: SigmaRule = DEFAULT_SIGMA_RULE,
) -> dict[BlobKey, float]:
    """Return alpha * sigma for the weight blob of each layer.

    Args:
        original: The trained, unpruned network.
        current: The network as it is before this round (the first round: the same).
        alpha: Multiple of the standard deviation, not negative.
        layers: Names of layers whose blob 0 is pruned.
        masks: The masks so far, for `SigmaRule.SURVIVORS`.
        rule: Which sigma.

    Raises:
        SurgeryError: alpha is negative or not finite, weights are missing or not finite, or the two
            networks or a mask and its blob differ in shape.
        FormatError: A layer is not in the model.
    """
    if not (np.isfinite(alpha) and alpha >= 0):
        raise SurgeryError(f"alpha is a number from 0 on, not {alpha}")
    names = list(layers)
    source = original if rule is SigmaRule.INITIAL else current
    require_finite(source, names)
    require_fitting_masks(source, masks or {})
    found = {}
    for name in names:
        weights, now = _blob(source, name, 0), _blob(current, name, 0)
        if weights.shape != now.shape:
            shapes = ["x".join(map(str, blob.shape)) for blob in (weights, now)]
            raise SurgeryError(
                f"layer '{name}': the unpruned weights are {shapes[0]}, those to prune "
                f"{shapes[1]}; name the unpruned network of these weights"
            )
        kept = (masks or {}).get((name, 0)) if rule is SigmaRule.SURVIVORS else None
        found[name, 0] = alpha * sigma_of(weights, kept)
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
