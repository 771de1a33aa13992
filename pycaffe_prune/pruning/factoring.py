"""One layer as two stock layers in a row, in a net and in its weights.

The second layer keeps the name, the top and the bias of the one that there was: what reads it goes
on to do so, and Caffe refuses weights from before, whose shape is another one, where a new name
would have been left at its filler. The first one is called after it, with ``_v``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import (
    ConvolutionParameter,
    LayerParameter,
    NetParameter,
)
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.formats.carried import carried_fields
from pycaffe_prune.net.shape_windows import Window, convolution_window
from pycaffe_prune.pruning.counts import require_finite
from pycaffe_prune.pruning.low_rank import (
    Decomposition,
    Factors,
    Way,
    as_blobs,
    as_matrices,
    decompose,
)
from pycaffe_prune.pruning.sharing import shared_blobs
from pycaffe_prune.pruning.weight_blobs import weight_blobs

__all__ = [
    "Factoring",
    "Split",
    "can_be_factored",
    "decompose_layers",
    "factor_layers",
    "left_out_of_factoring",
    "ways_of",
    "weight_matrices",
    "with_two_layers",
]

_FACTORED = ("Convolution", "InnerProduct")


@dataclass(frozen=True)
class Split:
    """What two layers take the place of one."""

    way: Way
    rank: int
    """Of each group."""
    fixed: bool = False
    """Whether the first of them does not learn."""


@dataclass(frozen=True)
class Factoring:
    """A split with the weights of both layers."""

    way: Way
    factors: Factors
    fixed: bool = False

    @property
    def split(self) -> Split:
        """Without the weights."""
        return Split(self.way, self.factors.rank, self.fixed)


def can_be_factored(net: NetParameter, model: Caffemodel) -> list[tuple[str, str]]:
    """Return name and type of the layers that two can take the place of, in the net's order."""
    left_out = left_out_of_factoring(net, model)
    held = {layer.name for layer in model.layers if layer.blobs}
    types = {layer.name: layer.type for layer in net.layer if layer.type in _FACTORED}
    return [(name, kind) for name, kind in types.items() if name in held and name not in left_out]


def left_out_of_factoring(net: NetParameter, model: Caffemodel) -> dict[str, str]:
    """Return the layers with weights that stay as they are, each with the reason.

    The reason is the end of a sentence that begins with the layer.
    """
    held = {layer.name: layer.blobs for layer in model.layers if layer.blobs}
    shared = shared_blobs(net)
    reasons: dict[str, str] = {}
    for layer in net.layer:
        if not weight_blobs(layer.type, held.get(layer.name, ())):
            continue
        partners = {name for name, _ in shared.get((layer.name, 0), ())} - {layer.name}
        unknown = carried_fields(layer)
        if layer.type not in _FACTORED:
            reasons[layer.name] = (
                f"is of the type {layer.type}; only InnerProduct and Convolution layers are "
                "factored, which two of stock Caffe's layers can take the place of"
            )
        elif unknown:
            reasons[layer.name] = (
                f"has the field {unknown[0]}, which stock Caffe does not know, so what its two "
                "layers should have is not known"
            )
        elif partners:
            reasons[layer.name] = (
                f"shares its weights with layer '{min(partners)}' by param name; give it weights "
                "of its own, or leave both whole"
            )
    return reasons


def weight_matrices(
    net: NetParameter, model: Caffemodel, name: str, way: Way
) -> NDArray[np.float64]:
    """Return the weights of a layer of `can_be_factored` as matrices, groups x rows x columns.

    Raises:
        SurgeryError: They are not finite, or ``way`` is none for this layer.
        FormatError: The caffemodel lacks it.
    """
    require_finite(model, [name])
    layer = _definition(net, name)
    weights = model.layer(name).blobs[0]
    if (way is Way.MATRIX) != (layer.type == "InnerProduct"):
        raise SurgeryError(
            f"layer '{name}' ({layer.type}) is not factored by the way '{way}': InnerProduct "
            f"layers take '{Way.MATRIX}', Convolutions '{Way.SPATIAL}' or '{Way.FILTERS}'"
        )
    if way is Way.SPATIAL and weights.ndim != 4:
        raise SurgeryError(
            f"layer '{name}' (Convolution) has a kernel of {weights.ndim - 2} axes, and the way "
            f"'{way}' needs two; take '{Way.FILTERS}'"
        )
    return as_matrices(_upright(layer, weights), way, _groups(layer))


def ways_of(net: NetParameter, layers: Iterable[str], of_convolutions: Way) -> dict[str, Way]:
    """Return how each layer is read as a matrix: Convolutions as told, InnerProduct layers as is.

    A Convolution whose kernel does not have two axes cannot go by `Way.SPATIAL`.
    """
    types = {layer.name: layer.type for layer in net.layer}
    return {
        name: Way.MATRIX if types[name] == "InnerProduct" else of_convolutions for name in layers
    }


def decompose_layers(
    net: NetParameter, model: Caffemodel, ways: Mapping[str, Way]
) -> dict[str, Decomposition]:
    """Decompose the weights of each layer.

    Raises:
        SurgeryError, FormatError: As `weight_matrices`.
    """
    return {name: decompose(weight_matrices(net, model, name, way)) for name, way in ways.items()}


def _definition(net: NetParameter, name: str) -> LayerParameter:
    return next(layer for layer in net.layer if layer.name == name)


def _groups(layer: LayerParameter) -> int:
    return layer.convolution_param.group if layer.type == "Convolution" else 1


def _is_transposed(layer: LayerParameter) -> bool:
    return layer.type == "InnerProduct" and layer.inner_product_param.transpose


def _upright(layer: LayerParameter, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Units x inputs, also of a layer that has it the other way round."""
    return np.ascontiguousarray(weights.T) if _is_transposed(layer) else weights


def factor_layers(
    net: NetParameter, model: Caffemodel, factorings: Mapping[str, Factoring]
) -> tuple[NetParameter, Caffemodel]:
    """Put two layers in the place of each of some, in the definition and in the weights.

    Args:
        net: The definition, with the layers of all its states.
        model: Its weights.
        factorings: By layer, each one of `can_be_factored`.

    Returns:
        The new net and its caffemodel; the arguments are untouched.

    Raises:
        SurgeryError: A layer cannot be factored.
    """
    left_out = left_out_of_factoring(net, model)
    for name in factorings:
        if name in left_out:
            raise SurgeryError(f"layer '{name}' cannot be factored: it {left_out[name]}")
    splits = {name: factoring.split for name, factoring in factorings.items()}
    names = _Names(net, model, splits)
    layers: list[Layer] = []
    for layer in model.layers:
        factoring = factorings.get(layer.name)
        if factoring is None or not layer.blobs:
            layers.append(layer)
            continue
        definition = _definition(net, layer.name)
        weights = _upright(definition, layer.blobs[0])
        first, second = as_blobs(factoring.factors, factoring.way, weights.shape)
        if _is_transposed(definition):
            first, second = np.ascontiguousarray(first.T), np.ascontiguousarray(second.T)
        # Caffe goes by the name: a file may call the type of the layer otherwise.
        own = layer.param if layer.param.type == definition.type else definition
        before, after = _two(own, factoring.split, names)
        layers += [Layer(before, (first,)), Layer(after, (second, *layer.blobs[1:]))]
    return with_two_layers(net, splits, model), replace(model, layers=tuple(layers))


def with_two_layers(
    net: NetParameter, splits: Mapping[str, Split], model: Caffemodel | None = None
) -> NetParameter:
    """Put two layers in the place of each of some, in every state of a definition.

    Args:
        net: The definition.
        splits: By layer, each one of `can_be_factored`.
        model: Weights whose layers' names are avoided too.
    """
    names = _Names(net, model, splits)
    changed = NetParameter()
    changed.CopyFrom(net)
    changed.ClearField("layer")
    for layer in net.layer:
        split = splits.get(layer.name)
        changed.layer.extend([layer] if split is None else _two(layer, split, names))
    return changed


class _Names:
    """Names for the first layers, their tops and parameters that nothing else has."""

    def __init__(self, net: NetParameter, model: Caffemodel | None, layers: Iterable[str]) -> None:
        taken = {layer.name for layer in net.layer} | set(net.input)
        taken |= {name for layer in net.layer for name in (*layer.bottom, *layer.top)}
        taken |= {layer.name for layer in model.layers} if model else set()
        self._params = {spec.name for layer in net.layer for spec in layer.param}
        self._layers = {name: _free(f"{name}_v", taken) for name in layers}
        self._tops: dict[str, list[str]] = {}
        for layer in net.layer:
            if layer.name in self._layers:
                first = self._layers[layer.name]
                tops = self._tops.setdefault(layer.name, [first])
                tops += [
                    _free(f"{first}_{place}", taken) for place in range(len(tops), len(layer.top))
                ]

    def layer(self, name: str) -> str:
        return self._layers[name]

    def top(self, name: str, place: int) -> str:
        return self._tops[name][place]

    def param(self, name: str) -> str:
        return _free(f"{name}_v", set(self._params))


def _free(name: str, taken: set[str]) -> str:
    """``name``, with a number where it is taken; it is taken from then on."""
    tries = (f"{name}{number}" if number > 1 else name for number in count(1))
    found = next(one for one in tries if one not in taken)
    taken.add(found)
    return found


def _two(
    layer: LayerParameter, split: Split, names: _Names
) -> tuple[LayerParameter, LayerParameter]:
    first, second = LayerParameter(), LayerParameter()
    first.CopyFrom(layer)
    second.CopyFrom(layer)
    first.name = names.layer(layer.name)
    first.top[:] = [names.top(layer.name, place) for place in range(len(layer.top))]
    second.bottom[:] = first.top
    first.ClearField("loss_weight")  # of the top that there was
    second.ClearField("propagate_down")  # said of the bottoms that there were
    del first.param[1:]
    for spec in first.param:
        if spec.name:
            spec.name = names.param(spec.name)
    if split.fixed:
        spec = first.param[0] if first.param else first.param.add()
        spec.lr_mult = spec.decay_mult = 0
    if layer.type == "InnerProduct":
        _two_inner_products(first, second, split)
    else:
        _two_convolutions(first, second, split)
    return first, second


def _two_inner_products(first: LayerParameter, second: LayerParameter, split: Split) -> None:
    settings = first.inner_product_param
    settings.num_output = split.rank
    settings.bias_term = False
    settings.ClearField("bias_filler")
    if settings.axis < 0:  # counted from the end, of a blob that has one axis at the end now
        second.inner_product_param.axis = -1


def _two_convolutions(first: LayerParameter, second: LayerParameter, split: Split) -> None:
    before, after = first.convolution_param, second.convolution_param
    before.num_output = split.rank * before.group
    before.bias_term = False
    before.ClearField("bias_filler")
    window = convolution_window(after, 2) if split.way is Way.SPATIAL else None
    for settings in (after,) if window is None else (before, after):
        for field in ("kernel_size", "stride", "pad", "dilation"):
            settings.ClearField(field)
        for field in ("kernel", "stride", "pad"):
            settings.ClearField(f"{field}_h")
            settings.ClearField(f"{field}_w")
    if window is None:
        after.kernel_size.append(1)
    else:
        _slide_along(before, window, 0)
        _slide_along(after, window, 1)


def _slide_along(settings: ConvolutionParameter, window: Window, axis: int) -> None:
    """Let a Convolution do of ``window`` what lies along one of both axes."""
    for place, end in enumerate("hw"):
        is_it = place == axis
        setattr(settings, f"kernel_{end}", window.kernel[place] if is_it else 1)
        setattr(settings, f"stride_{end}", window.stride[place] if is_it else 1)
        setattr(settings, f"pad_{end}", window.pad[place] if is_it else 0)
    if window.dilation[axis] != 1:
        settings.dilation.extend(window.dilation[axis] if place == axis else 1 for place in (0, 1))
