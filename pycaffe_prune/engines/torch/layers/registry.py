"""Layers by Caffe's names of their types."""

from collections.abc import Callable, Mapping

from pycaffe_prune.engines.torch.layers import (
    accuracy,
    activations,
    columns,
    convolution,
    filtering,
    inner_product,
    losses,
    normalization,
    output,
    pooling,
    pyramid,
    random,
    recurrent,
    scale,
    shaping,
)
from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.net.fork_shapes import is_fork_type

__all__ = ["LAYERS", "make_layer", "require_known"]

LAYERS: Mapping[str, Callable[[LayerSetup], Layer]] = {
    **accuracy.LAYERS,
    **activations.LAYERS,
    **columns.LAYERS,
    **convolution.LAYERS,
    **filtering.LAYERS,
    **inner_product.LAYERS,
    **losses.LAYERS,
    **normalization.LAYERS,
    **output.LAYERS,
    **pooling.LAYERS,
    **pyramid.LAYERS,
    **random.LAYERS,
    **recurrent.LAYERS,
    **scale.LAYERS,
    **shaping.LAYERS,
}
"""What makes the layers of each type."""


def require_known(layer: LayerParameter) -> None:
    """Refuse a layer of a type that is not in `LAYERS`.

    Raises:
        EngineError: It is of such a type.
    """
    if layer.type not in LAYERS:
        remedy = "use --engine caffe"
        if is_fork_type(layer.type):
            remedy = (
                "it is a fork's: convert --to stock makes it Caffe's own where one does the same"
            )
        raise EngineError(
            f"layer '{layer.name}' is of type '{layer.type}', which the torch engine does not "
            f"have; {remedy}"
        )


def make_layer(setup: LayerSetup) -> Layer:
    """Make a layer of a net.

    Raises:
        EngineError: The torch engine has no layers of this type, or does not do what the settings
            ask for.
        SurgeryError: The settings contradict the shapes.
    """
    require_known(setup.param)
    return LAYERS[setup.param.type](setup)
