"""Layers by Caffe's names of their types."""

from collections.abc import Callable, Mapping

from pycaffe_prune.engines.torch_engine.layers import (
    accuracy,
    activations,
    convolution,
    inner_product,
    losses,
    normalization,
    pooling,
    random,
    scale,
    shaping,
)
from pycaffe_prune.engines.torch_engine.layers.base import Layer, LayerSetup
from pycaffe_prune.errors import EngineError

__all__ = ["LAYERS", "make_layer"]

LAYERS: Mapping[str, Callable[[LayerSetup], Layer]] = {
    **accuracy.LAYERS,
    **activations.LAYERS,
    **convolution.LAYERS,
    **inner_product.LAYERS,
    **losses.LAYERS,
    **normalization.LAYERS,
    **pooling.LAYERS,
    **random.LAYERS,
    **scale.LAYERS,
    **shaping.LAYERS,
}
"""What makes the layers of each type."""


def make_layer(setup: LayerSetup) -> Layer:
    """Make a layer of a net.

    Raises:
        EngineError: The torch engine has no layers of this type, or does not do what the settings
            ask for.
        SurgeryError: The settings contradict the shapes.
    """
    make = LAYERS.get(setup.param.type)
    if make is None:
        raise EngineError(
            f"layer '{setup.param.name}' is of type '{setup.param.type}', which the torch engine "
            "does not have; use --engine caffe"
        )
    return make(setup)
