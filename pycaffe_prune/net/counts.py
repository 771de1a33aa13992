"""Parameters, multiply-accumulates and activations of a net, by layer, from its definition."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, computed_field

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, Phase
from pycaffe_prune.net.fork_forms import stock_form
from pycaffe_prune.net.fork_summary import ForkUse, fork_uses
from pycaffe_prune.net.shapes import LayerShapes, Shape, infer_shapes
from pycaffe_prune.net.state_wish import StateWish, chosen_layers, read_net_in_state

__all__ = ["LayerCounts", "NetCounts", "count_file", "count_layers", "uses_of_a_weight"]

_NO_INPUTS: Mapping[str, Shape] = MappingProxyType({})


_RECURRENT = frozenset({"LSTM", "RNN"})


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Top(_Model):
    """A blob that a layer makes."""

    name: str
    shape: tuple[int, ...] | None
    """None: not known."""


class LayerCounts(_Model):
    """One layer of one state of a net."""

    name: str
    type: str
    tops: tuple[Top, ...]
    params: tuple[tuple[int, ...], ...]
    """Shapes of the parameter blobs, in Caffe's order."""
    weights: int
    """Learned factors: weights, gammas, slopes. A shared parameter counts where it is first."""
    biases: int
    statistics: int
    """What BatchNorm keeps: mean, variance, and the factor of both; not learned."""
    macs: int | None
    """Multiply-accumulates for one image in Convolution, Deconvolution and InnerProduct, 0 in other
    layers; None: not known."""
    activations: int | None
    """Values for one image of the tops, without those written in place; None: not known."""
    problem: str | None
    """Why something is not known."""


class NetCounts(_Model):
    """All layers of one state of a net; sums leave out what is not known."""

    path: str
    name: str
    phase: str
    layers: tuple[LayerCounts, ...]
    forks: tuple[ForkUse, ...] = ()
    """What of it stock Caffe does not know."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def weights(self) -> int:
        """Sum over all layers."""
        return sum(layer.weights for layer in self.layers)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def biases(self) -> int:
        """Sum over all layers."""
        return sum(layer.biases for layer in self.layers)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def statistics(self) -> int:
        """Sum over all layers."""
        return sum(layer.statistics for layer in self.layers)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def parameters(self) -> int:
        """All values of a caffemodel of this net: weights, biases and statistics."""
        return sum(layer.weights + layer.biases + layer.statistics for layer in self.layers)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def macs(self) -> int:
        """Sum over the layers whose are known."""
        return sum(layer.macs or 0 for layer in self.layers)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def activations(self) -> int:
        """Sum over the layers whose are known."""
        return sum(layer.activations or 0 for layer in self.layers)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the sums are not whole; empty when they are."""
        return tuple(layer.problem for layer in self.layers if layer.problem is not None)


def count_file(path: Path, state: StateWish, inputs: Mapping[str, Shape] = _NO_INPUTS) -> NetCounts:
    """Count the net that a prototxt gives in ``state``.

    Args:
        path: A net prototxt.
        state: Which of its layers count.
        inputs: Shapes of blobs that it does not tell, as for `infer_shapes`.

    Raises:
        FormatError: The file is missing or no net prototxt, or ``state`` means nothing to it.
        SurgeryError: The net contradicts itself.
    """
    net = read_net_in_state(path, state)
    chosen = chosen_layers(net, state)
    try:
        layers = count_layers(chosen, inputs)
    except SurgeryError as error:
        raise SurgeryError(f"{path}: {error}") from error
    return NetCounts(
        path=str(path),
        name=net.name,
        phase=Phase.Name(state.phase),
        layers=layers,
        forks=fork_uses(net, chosen),
    )


def count_layers(
    layers: Sequence[LayerParameter], inputs: Mapping[str, Shape] = _NO_INPUTS
) -> tuple[LayerCounts, ...]:
    """Count layer by layer.

    Args:
        layers: The layers of one state of a net, as for `infer_shapes`.
        inputs: As for `infer_shapes`.

    Returns:
        One entry per layer, in their order.

    Raises:
        SurgeryError: The net contradicts itself.
    """
    owned: set[str] = set()
    found = []
    for layer, shapes in zip(layers, infer_shapes(layers, inputs), strict=True):
        found.append(_count(layer, shapes, owned))
        owned |= {param.name for param in layer.param if param.name}
    return tuple(found)


def _count(layer: LayerParameter, shapes: LayerShapes, owned: set[str]) -> LayerCounts:
    sizes = [
        0 if index < len(layer.param) and layer.param[index].name in owned else math.prod(shape)
        for index, shape in enumerate(shapes.params)
    ]
    statistics = sum(sizes[:3]) if layer.type == "BatchNorm" else 0
    if layer.type in _RECURRENT:
        weights = sum(
            size for size, shape in zip(sizes, shapes.params, strict=True) if len(shape) > 1
        )
    else:
        weights = sum(sizes[:1]) if _begins_with_weights(layer) else 0
    uses = uses_of_a_weight(layer, shapes)
    return LayerCounts(
        name=layer.name,
        type=layer.type,
        tops=tuple(
            Top(name=name, shape=shape) for name, shape in zip(layer.top, shapes.tops, strict=True)
        ),
        params=shapes.params,
        weights=weights,
        biases=sum(sizes) - weights - statistics,
        statistics=statistics,
        # A weight that is another layer's too is used here once more.
        macs=uses and uses * math.prod(shapes.params[0]),
        activations=_activations(layer, shapes),
        problem=shapes.problem,
    )


def _begins_with_weights(layer: LayerParameter) -> bool:
    """Whether blob 0 is a weight; with two bottoms, Scale's only blob is its bias."""
    return layer.type not in ("BatchNorm", "Bias") and not (
        layer.type == "Scale" and len(layer.bottom) > 1
    )


def uses_of_a_weight(layer: LayerParameter, shapes: LayerShapes) -> int | None:
    """Return how often each weight of blob 0 is multiplied for one image.

    The places where a Convolution's kernel is put (padding counts as multiplied, as Caffe does it),
    1 for most InnerProducts, 0 for layers that have no multiply-accumulates; None: not known.
    """
    if shapes.problem is not None:
        return None
    layer = stock_form(layer)
    if layer.type == "Convolution":
        places, axis = shapes.tops, layer.convolution_param.axis
    elif layer.type == "Deconvolution":
        places, axis = shapes.bottoms, layer.convolution_param.axis
    elif layer.type == "InnerProduct":
        places, axis = shapes.tops, -1
    elif layer.type in _RECURRENT:
        return None  # each of their matrices is used another number of times
    else:
        return 0
    return sum(_places(shape, axis) for shape in places if shape is not None)


def _places(shape: Shape, axis: int) -> int:
    """How many values of one image each channel has."""
    return math.prod(
        extent for place, extent in enumerate(shape) if place not in (0, axis % len(shape))
    )


def _activations(layer: LayerParameter, shapes: LayerShapes) -> int | None:
    """Values of one image; a scalar, such as a loss, belongs to no image."""
    made = [
        shape
        for name, shape in zip(layer.top, shapes.tops, strict=True)
        if name not in layer.bottom
    ]
    if None in made:
        return None
    return sum(math.prod(shape[1:]) for shape in made if shape)
