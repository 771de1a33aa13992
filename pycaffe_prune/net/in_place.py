"""Layers whose gradient the real Caffe gets wrong, because a blob is overwritten in place.

A layer's backward pass reads values that its forward pass left in blobs. Caffe lets any layer write
its top over its bottom, and checks nothing: where a later layer (or the layer itself) has changed
what is read, the gradient is another one. Which values are read is told by ``Backward_cpu`` of each
file in ``src/caffe/layers``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter, NetParameter
from pycaffe_prune.net.gradient_flow import GradientFlow
from pycaffe_prune.net.graph import NetGraph, NetState, Top, layers_in_state

__all__ = ["WrongGradient", "wrong_gradients"]


@dataclass(frozen=True)
class WrongGradient:
    """A layer whose gradient the real Caffe gets wrong."""

    layer: str
    type: str
    by: str
    """The layer that writes in place; the same one where it spoils its own gradient."""


class _Need(Enum):
    """What of a value the backward pass needs."""

    EXACT = 1
    AT_GRADIENT = 2
    """The value, but not where the gradient from above is 0."""
    SIGN = 3
    """Whether it is above 0, but not where the gradient from above is 0."""


_KEPT_BY_ITSELF = frozenset({"PReLU", "Scale"})
"""Types that read their bottom, and keep a copy of it when they work in place."""

_SHARING = frozenset({"Concat", "Flatten", "Reshape", "Slice"})
"""Types whose top is their bottom's memory (Concat and Slice: of one blob)."""


def wrong_gradients(net: NetParameter) -> list[WrongGradient]:
    """Return the layers of the TRAIN net whose gradient the real Caffe computes wrongly.

    Only layers count through which a gradient flows from a loss to something that learns.

    Args:
        net: A net in the V2 form, with the state that it is trained in.
    """
    graph = NetGraph(layers_in_state(net, NetState.of(net, TRAIN)))
    flow = GradientFlow(graph, everywhere=net.force_backward)
    readers = _readers(graph)
    found = []
    for place, layer in enumerate(graph.layers):
        if not flow.reaches(place):
            continue
        spoiler = _spoiler(graph, readers, place)
        if spoiler is not None:
            found.append(WrongGradient(layer.name, layer.type, graph.layers[spoiler].name))
    return found


def _readers(graph: NetGraph) -> Mapping[Top, Sequence[int]]:
    """The places that read each top; a loss weight on it counts as a reader, as for Caffe."""
    readers: dict[Top, list[int]] = {}
    for place, bottoms in enumerate(graph.bottoms):
        for top in bottoms:
            if top is not None:
                readers.setdefault(top, []).append(place)
    for place, layer in enumerate(graph.layers):
        for number, weight in enumerate(layer.loss_weight):
            if weight and Top(place, number) in readers:
                readers[Top(place, number)].append(place)
    return readers


def _spoiler(graph: NetGraph, readers: Mapping[Top, Sequence[int]], place: int) -> int | None:
    """The place of the layer that spoils the gradient of the one at ``place``."""
    layer = graph.layers[place]
    own = _is_in_place(graph, readers, place)
    is_positive = _reads_positive(graph, place)
    if own and _spoils_itself(layer, is_positive):
        return place
    for number, need in _bottom_needs(layer, own):
        source = graph.bottoms[place][number]
        if own and number == 0:  # `_spoils_itself` has seen that its own top will do
            source = Top(place, 0)
        if source is not None:
            starts_positive = is_positive or (own and _is_positive(layer))
            spoiler = _overwriter(graph, readers, source, need, starts_positive, place)
            if spoiler is not None:
                return spoiler
    for number, need in _top_needs(layer):
        if number < len(layer.top):
            top = Top(place, number)
            spoiler = _overwriter(graph, readers, top, need, _is_positive(layer), place)
            if spoiler is not None:
                return spoiler
    return None


def _is_in_place(graph: NetGraph, readers: Mapping[Top, Sequence[int]], place: int) -> bool:
    """Whether a layer writes over its bottom: not where others read it too, who get a Split."""
    layer = graph.layers[place]
    bottoms = graph.bottoms[place]
    return (
        bool(layer.bottom and layer.top)
        and layer.bottom[0] == layer.top[0]
        and bottoms[0] is not None
        and len(readers[bottoms[0]]) == 1
    )


def _reads_positive(graph: NetGraph, place: int) -> bool:
    """Whether no value of the first bottom is below 0, as far as its maker tells."""
    source = graph.bottoms[place][0] if graph.bottoms[place] else None
    return source is not None and _is_positive(graph.layers[source.layer])


def _spoils_itself(layer: LayerParameter, is_positive: bool) -> bool:
    """Whether a layer in place overwrites what it reads, or the gradient before it has read it."""
    if layer.type == "Power":
        return _slope_of_power(layer) != 0  # the gradient is overwritten by the derivative
    if layer.type == "ReLU":
        return layer.relu_param.negative_slope < 0 and not is_positive
    if layer.type == "ELU":
        return layer.elu_param.alpha < 0
    if layer.type == "MVN":
        return layer.mvn_param.normalize_variance
    return layer.type == "Eltwise" or any(True for _ in _bottom_needs(layer, in_place=True))


def _slope_of_power(layer: LayerParameter) -> float:
    return layer.power_param.power * layer.power_param.scale


def _of_power(layer: LayerParameter) -> bool:
    return _slope_of_power(layer) != 0 and layer.power_param.power != 1


def _of_reduction(layer: LayerParameter) -> bool:
    told = layer.reduction_param
    return told.operation in {told.ASUM, told.SUMSQ}


def _always(_layer: LayerParameter) -> bool:
    return True


def _of_product(layer: LayerParameter) -> bool:
    return layer.eltwise_param.operation == layer.eltwise_param.PROD


_READS_BOTTOM: Mapping[str, Callable[[LayerParameter], bool]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                *("AbsVal", "BNLL", "Clip", "Convolution", "Deconvolution", "Embed"),
                *("InnerProduct", "Log", "LRN", "MultinomialLogisticLoss", "PReLU", "Scale"),
                *("LSTM", "LSTMUnit", "RNN"),
            ),
            _always,
        ),
        "Eltwise": _of_product,
        "Power": _of_power,
        "Reduction": _of_reduction,
    }
)


def _bottom_needs(layer: LayerParameter, in_place: bool) -> Iterator[tuple[int, _Need]]:
    """Yield the bottoms whose values the backward pass reads."""
    if layer.type in {"ReLU", "ELU"}:
        yield 0, _Need.SIGN
        return
    if in_place and layer.type in _KEPT_BY_ITSELF:
        return
    if layer.type in _READS_BOTTOM and _READS_BOTTOM[layer.type](layer):
        yield from ((number, _Need.EXACT) for number in _numbers_read(layer))


def _numbers_read(layer: LayerParameter) -> Iterable[int]:
    """The bottoms of a layer that reads some going back."""
    match layer.type:
        case "Eltwise":
            return range(len(layer.bottom))
        case "LSTMUnit":
            return range(2)
        case "LSTM" | "RNN":
            return [number for number in range(len(layer.bottom)) if number != 1]
        case _:
            return [0]


def _top_needs(layer: LayerParameter) -> Iterator[tuple[int, _Need]]:
    """Yield the tops whose values the backward pass reads."""
    if layer.type in {"ELU", "Exp", "Sigmoid", "Swish", "TanH"}:
        yield 0, _Need.AT_GRADIENT
    elif layer.type == "LRN":
        if layer.lrn_param.norm_region == layer.lrn_param.ACROSS_CHANNELS:
            yield 0, _Need.AT_GRADIENT
    elif layer.type == "Softmax" or (layer.type == "MVN" and layer.mvn_param.normalize_variance):
        yield 0, _Need.EXACT
    elif layer.type == "Power" and _of_power(layer) and layer.power_param.power != 2:
        yield 0, _Need.AT_GRADIENT
    elif layer.type == "Pooling":
        yield 1, _Need.EXACT
    elif layer.type == "LSTMUnit":
        yield 0, _Need.EXACT


def _overwriter(
    graph: NetGraph,
    readers: Mapping[Top, Sequence[int]],
    source: Top,
    need: _Need,
    is_positive: bool,
    reader: int,
) -> int | None:
    """The place of the first layer that overwrites a needed value by another one."""
    waiting = [(_memory_of(graph, source), True)]
    if waiting[0][0] != source:
        waiting.append((source, True))
    while waiting:
        top, is_alone = waiting.pop()
        others = readers.get(top, ())
        is_alone = is_alone and len(others) <= 1
        for place in dict.fromkeys(others):
            if place == reader and top == source:
                continue
            writer = graph.layers[place]
            if _is_in_place(graph, readers, place):
                if not (is_alone and _is_harmless(writer, need, is_positive)):
                    return place
                is_positive = is_positive or _keeps_positive(writer)
                waiting.append((Top(place, 0), is_alone))
            elif _shares(writer):
                waiting.append((Top(place, 0), is_alone))
    return None


def _memory_of(graph: NetGraph, top: Top) -> Top:
    """The top that owns the memory of one."""
    while _shares(graph.layers[top.layer]):
        source = graph.bottoms[top.layer][0]
        if source is None:
            break
        top = source
    return top


def _shares(layer: LayerParameter) -> bool:
    return layer.type in _SHARING and len(layer.bottom) == 1 == len(layer.top)


def _is_positive(layer: LayerParameter) -> bool:
    """Whether no value of the top is below 0."""
    if layer.type == "Power":
        power = layer.power_param.power
        return power != int(power) or power % 2 == 0
    return layer.type in {"AbsVal", "BNLL", "Exp", "Sigmoid", "Softmax"} or (
        layer.type == "ReLU" and layer.relu_param.negative_slope <= 0
    )


def _keeps_positive(layer: LayerParameter) -> bool:
    """Whether the top of a layer in place has no value below 0 from now on."""
    return layer.type == "ReLU" and layer.relu_param.negative_slope == 0


def _is_harmless(writer: LayerParameter, need: _Need, is_positive: bool) -> bool:
    """Whether what a layer in place does to a value keeps what is needed of it."""
    if writer.type == "Dropout" and writer.dropout_param.dropout_ratio == 0:
        return True
    if is_positive and writer.type in {"ELU", "PReLU", "ReLU"}:
        return True  # they leave it as it is
    if need is _Need.AT_GRADIENT:
        return _keeps_positive(writer)  # what it sets to 0 gets no gradient
    if need is _Need.SIGN:
        return (
            writer.type in {"Dropout", "Swish", "TanH"}
            or (writer.type == "ReLU" and writer.relu_param.negative_slope >= 0)
            or (writer.type == "ELU" and writer.elu_param.alpha >= 0)
        )
    return False
