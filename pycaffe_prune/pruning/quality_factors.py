"""The quality factor of each layer: its threshold in standard deviations (Han et al. 2015)."""

from collections.abc import Mapping

from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.pruning.connections import thresholds
from pycaffe_prune.pruning.criteria.connections import (
    rank_mask,
    smallest_kept,
    weights_to_prune,
)
from pycaffe_prune.pruning.weight_blobs import as_key

__all__ = ["quality_factors"]


def quality_factors(
    model: Caffemodel, rates: Mapping[str, float] | Mapping[BlobKey, float]
) -> dict[BlobKey, float]:
    """Return the factor of each blob by which the rule |w| < factor·sigma prunes nearest its rate.

    Sigma is the standard deviation of all the blob's weights. Never more is pruned than the rate
    says; less only where many weights are equal.

    Args:
        model: The trained, unpruned network.
        rates: Per blob the share of its weights to prune, from the sensitivity of its layer
            (`allocation.allocate`); a layer's name stands for its blob 0.

    Raises:
        SurgeryError: A rate is not in 0 <= rate < 1, or weights are missing or not finite.
        FormatError: A layer is not in the model.
    """
    rate_of = {as_key(place): rate for place, rate in rates.items()}
    found = {}
    for key, sigma in thresholds(model, model, 1.0, rate_of).items():
        weights = model.layer(key[0]).blobs[key[1]]
        mask = rank_mask(weights, weights_to_prune(weights.size, rate_of[key]))
        # Where all weights are equal there is no deviation, and no factor prunes any of them.
        found[key] = smallest_kept([weights], [mask]) / sigma if sigma else 0.0
    return found
