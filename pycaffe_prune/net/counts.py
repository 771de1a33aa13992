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

__all__ = [
    "LayerCounts",
    "NetCounts",
    "are_weights",
    "count_file",
    "count_layers",
    "uses_of_weights",
]

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
    """Multiply-accumulates with weights for one image (see `uses_of_weights`); None: not known."""
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
    are = are_weights(layer, shapes.params)
    weights = sum(size for size, is_weight in zip(sizes, are, strict=True) if is_weight)
    uses = uses_of_weights(layer, shapes)
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
        macs=None if uses is None else _macs(uses, shapes.params),
        activations=_activations(layer, shapes),
        problem=shapes.problem,
    )


def are_weights(layer: LayerParameter, params: Sequence[Shape]) -> tuple[bool, ...]:
    """Tell of each parameter blob whether it holds learned factors, as `LayerCounts.weights` does.

    Blob 0 does as a rule (with two bottoms, Scale's only blob is its bias), of LSTM and RNN every
    matrix.
    """
    if layer.type in _RECURRENT:
        return tuple(len(shape) > 1 for shape in params)
    begins = layer.type not in ("BatchNorm", "Bias") and not (
        layer.type == "Scale" and len(layer.bottom) > 1
    )
    return tuple(begins and index == 0 for index in range(len(params)))


def uses_of_weights(layer: LayerParameter, shapes: LayerShapes) -> tuple[int, ...] | None:
    """Return how often each value of each parameter blob is multiplied for one image.

    An image is one place of the data's first axis, here and in all counts. A weight of a
    Convolution is used at the places where the kernel is put (padding counts as multiplied, as
    Caffe does it), of most InnerProducts once. The first axis of LSTM and RNN has T time steps, and
    each step N streams: the weights of the input, of the hidden state and of the RNN's output are
    used N times a step, those of a static input N times for all T steps, so N / T
    (`FillUnrolledNet` of `src/caffe/layers/lstm_layer.cpp` and `rnn_layer.cpp`). Biases are added,
    Embed looks its weights up, and products of two inputs (gates, Eltwise) use no weight: 0.

    Returns:
        One number for each blob; None: not known, or no whole number.
    """
    if shapes.problem is not None:
        return None
    layer, uses = stock_form(layer), 0
    if layer.type in _RECURRENT:
        return _uses_of_recurrent(layer, shapes)
    if layer.type == "Convolution":
        uses = sum(_places(top, layer.convolution_param.axis) for top in shapes.tops if top)
    elif layer.type == "Deconvolution":
        uses = sum(_places(one, layer.convolution_param.axis) for one in shapes.bottoms if one)
    elif layer.type == "InnerProduct":
        uses = sum(_places(top, -1) for top in shapes.tops if top)
    return tuple(0 if index else uses for index in range(len(shapes.params)))


def _uses_of_recurrent(layer: LayerParameter, shapes: LayerShapes) -> tuple[int, ...] | None:
    if not shapes.tops or shapes.tops[0] is None:
        return None
    steps, streams = shapes.tops[0][:2]
    has_static = len(shapes.params) == (4 if layer.type == "LSTM" else 6)
    if has_static and streams % steps:
        return None
    return tuple(
        0 if len(shape) == 1 else streams // steps if has_static and index == 2 else streams
        for index, shape in enumerate(shapes.params)
    )


def _macs(uses: Sequence[int], params: Sequence[Shape]) -> int:
    return sum(count * math.prod(shape) for count, shape in zip(uses, params, strict=True))


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
