"""The shape of a net's weights: what connection pruning by size and unit pruning by onorm go by."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.pruning.criteria.connections import magnitude_mask, sigma_of
from pycaffe_prune.pruning.criteria.units import Scores
from pycaffe_prune.pruning.unit_choice import weight_scores

__all__ = [
    "SHOWN_ALPHAS",
    "LayerShape",
    "NetShape",
    "UnitSpread",
    "kurtosis",
    "net_shape",
    "unit_spread",
]

SHOWN_ALPHAS = (0.5, 1.0, 1.6, 2.2)
"""Those at which tables show `LayerShape.below`."""

_TOP = 0.1


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LayerShape(_Model):
    """The weights of a layer, biases left out."""

    layer: str
    sigma: float
    kurtosis: float
    """Fourth central moment over the squared variance: 3 for a normal distribution, 1.8 for a
    uniform one."""
    below: dict[str, float]
    """The share of weights with |w| < alpha * sigma, by alpha."""


class UnitSpread(_Model):
    """The onorm of a layer's units."""

    layer: str
    variation: float
    """Standard deviation over mean; 0 where all units are alike."""
    top_tenth: float
    """Share of the sum that the tenth of the units with the greatest onorm holds; 0.1 where all
    are alike."""


class NetShape(_Model):
    """A net's fully connected layers."""

    layers: tuple[LayerShape, ...]
    units: tuple[UnitSpread, ...]
    """Of the layers whose units can go."""


def net_shape(
    net: NetParameter,
    model: Caffemodel,
    layers: Sequence[str],
    unit_layers: Sequence[str],
    alphas: Sequence[float],
) -> NetShape:
    """Return the shape of a net's weights.

    Args:
        net: The network's definition.
        model: Its weights.
        layers: The fully connected layers.
        unit_layers: Of them those whose units are pruned.
        alphas: For `LayerShape.below`.

    Raises:
        SurgeryError: Net and weights do not fit, or weights are not finite.
        FormatError: The caffemodel lacks a layer.
    """
    scores = weight_scores(net, model, list(unit_layers), criterion="onorm")
    return NetShape(
        layers=tuple(_layer_shape(name, model.layer(name).blobs[0], alphas) for name in layers),
        units=tuple(unit_spread(name, scores[name]) for name in unit_layers),
    )


def _layer_shape(name: str, weights: Blob, alphas: Sequence[float]) -> LayerShape:
    sigma = sigma_of(weights)
    return LayerShape(
        layer=name,
        sigma=sigma,
        kurtosis=kurtosis(weights),
        below={
            f"{alpha:g}": float(1 - magnitude_mask(weights, alpha * sigma).mean())
            for alpha in alphas
        },
    )


def kurtosis(weights: Blob) -> float:
    """Return the fourth central moment over the squared variance; 0 where all are equal."""
    centred = weights.astype(np.float64) - weights.mean(dtype=np.float64)
    squares = centred * centred
    variance = float(squares.mean())
    return float((squares * squares).mean()) / variance**2 if variance else 0.0


def unit_spread(layer: str, scores: Scores) -> UnitSpread:
    """Return how unlike the scores of a layer's units are; at least one unit, no score below 0."""
    total, mean = float(scores.sum()), float(scores.mean())
    top = np.sort(scores)[::-1][: max(round(_TOP * len(scores)), 1)]
    return UnitSpread(
        layer=layer,
        variation=float(scores.std()) / mean if mean else 0.0,
        top_tenth=float(top.sum()) / total if total else 0.0,
    )
