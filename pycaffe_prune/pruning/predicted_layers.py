"""Layers with predicted weights: a fixed dictionary, then what is learned, as two stock layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import canonical_axis
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.shapes import Shape, infer_shapes
from pycaffe_prune.pruning.factoring import Factoring, factor_layers, ways_of, weight_matrices
from pycaffe_prune.pruning.low_rank import Way
from pycaffe_prune.pruning.predicted import (
    dictionary,
    normalised,
    predicted,
    relative_error,
    sampled_inputs,
    squared_exponential,
)

__all__ = [
    "Kernel",
    "PredictedLayer",
    "covariance_kernel",
    "drawn",
    "place_kernel",
    "predict_layers",
]

_NO_INPUTS: Mapping[str, Shape] = MappingProxyType({})


@dataclass(frozen=True)
class Kernel:
    """How alike the weights of a layer's inputs are taken to be."""

    samples: NDArray[np.int64]
    """Places of the inputs that the others are predicted from."""
    values: NDArray[np.float64]
    """Between all inputs and these, inputs x samples."""


@dataclass(frozen=True)
class PredictedLayer:
    """What was made of a layer."""

    inputs: int
    samples: int
    before: int
    """Its weights."""
    learned: int
    """Those of the second layer."""
    fixed: int
    """Those of the first, the dictionary."""
    error: float
    """|W - V·D|² / |W|² at the start."""


def drawn(
    net: NetParameter, model: Caffemodel, layer: str, share: float, seed: int
) -> NDArray[np.int64]:
    """Draw the inputs of a layer that the others are predicted from (`sampled_inputs`).

    Raises:
        SurgeryError: The share is not from 0 on and below 1, or the layer cannot be factored.
        FormatError: The caffemodel lacks it.
    """
    if not 0 <= share < 1:
        raise SurgeryError(f"layer '{layer}': a share of {share} of the inputs cannot be predicted")
    return sampled_inputs(_matrices(net, model, layer).shape[2], share, seed)


def _matrices(net: NetParameter, model: Caffemodel, layer: str) -> NDArray[np.float64]:
    return weight_matrices(net, model, layer, _way(net, layer))


def _way(net: NetParameter, layer: str) -> Way:
    return ways_of(net, [layer], Way.FILTERS)[layer]


def place_kernel(
    net: NetParameter,
    model: Caffemodel,
    layer: str,
    samples: NDArray[np.int64],
    scale: float,
    inputs: Mapping[str, Shape] = _NO_INPUTS,
) -> Kernel:
    """Return the squared exponential over the places of what a layer reads.

    Args:
        net: The definition.
        model: Its weights.
        layer: An InnerProduct or Convolution layer of the TEST net.
        samples: Places of the sampled inputs.
        scale: As for `squared_exponential`.
        inputs: Shapes of blobs that the prototxt does not tell, as for `infer_shapes`.

    Raises:
        SurgeryError: What the layer reads has no places, or they are not known.
    """
    shape = _input_shape(net, model, layer, inputs)
    try:
        return Kernel(samples, squared_exponential(shape, samples, scale))
    except SurgeryError as error:
        raise SurgeryError(f"layer '{layer}' {error}") from None


def covariance_kernel(
    layer: str,
    samples: NDArray[np.int64],
    covariance: NDArray[np.float64],
    variances: NDArray[np.float64],
) -> Kernel:
    """Return the covariance of what a layer reads as a kernel (`normalised`).

    Raises:
        SurgeryError: Nothing of it varies.
    """
    try:
        return Kernel(samples, normalised(covariance, variances))
    except SurgeryError as error:
        raise SurgeryError(f"layer '{layer}' {error}") from None


def _input_shape(
    net: NetParameter, model: Caffemodel, name: str, inputs: Mapping[str, Shape]
) -> Shape:
    """The shape of what makes one unit or one value of a filter."""
    layers = layers_in_state(net, NetState.of(net, TEST))
    for layer, shapes in zip(layers, infer_shapes(layers, inputs), strict=True):
        if layer.name != name:
            continue
        if layer.type == "Convolution":
            return model.layer(name).blobs[0].shape[1:]
        (bottom,) = shapes.bottoms
        if bottom is None:
            raise SurgeryError(
                f"the shape of the blob '{layer.bottom[0]}' that layer '{name}' reads is not known"
                + (f": {shapes.problem}" if shapes.problem else "")
            )
        return bottom[canonical_axis(bottom, layer.inner_product_param.axis) :]
    raise SurgeryError(f"the TEST net has no layer '{name}'")


def predict_layers(
    net: NetParameter, model: Caffemodel, kernels: Mapping[str, Kernel], ridge: float
) -> tuple[NetParameter, Caffemodel, dict[str, PredictedLayer]]:
    """Put a fixed dictionary and what is learned in the place of each layer (`factor_layers`).

    The dictionary's ``lr_mult`` and ``decay_mult`` are 0.

    Args:
        net: The definition.
        model: Its weights.
        kernels: By layer.
        ridge: λ of `dictionary`.

    Returns:
        The new net and its weights, and what was made of each layer.

    Raises:
        SurgeryError: A layer cannot be factored.
        FormatError: The caffemodel lacks one.
    """
    made, rows = {}, {}
    for name, kernel in kernels.items():
        matrices = _matrices(net, model, name)
        factors = predicted(matrices, dictionary(kernel.values, kernel.samples, ridge))
        made[name] = Factoring(_way(net, name), factors, fixed=True)
        rows[name] = PredictedLayer(
            inputs=matrices.shape[2],
            samples=len(kernel.samples),
            before=matrices.size,
            learned=factors.second.size,
            fixed=factors.first.size,
            error=relative_error(matrices, factors),
        )
    return *factor_layers(net, model, made), rows
