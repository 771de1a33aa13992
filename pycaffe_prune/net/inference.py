"""What a net computes in use: the layers that lead from its inputs to its outputs."""

from collections.abc import Iterable, Mapping, Sequence

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter, NetParameter
from pycaffe_prune.net.graph import NetGraph, NetState, Top, layers_in_state
from pycaffe_prune.net.shapes import Shape, extents, infer_shapes

__all__ = ["inference_net", "input_shapes", "output_blobs"]

_NO_DATA = frozenset({"DummyData", "Parameter"})  # sources that hold their values themselves
_REPORTS = frozenset({"Accuracy", "HDF5Output", "Silence"})


def _test_layers(net: NetParameter) -> list[LayerParameter]:
    return layers_in_state(net, NetState.of(net, TEST))


def output_blobs(net: NetParameter) -> list[str]:
    """Return the blobs of the TEST net that hold its answers, in the net's order.

    Those are the blobs that no layer reads, losses, Accuracy and Silence left aside, and what a
    Softmax at the end reads as well: probabilities near 0 and 1 hide how far logits are apart.
    """
    graph = NetGraph(
        [
            layer
            for layer in _test_layers(net)
            if layer.type not in _REPORTS and not layer.type.endswith("Loss")
        ]
    )
    latest = _latest(graph)
    names: dict[str, None] = {}
    for top in graph.tops():
        layer = graph.layers[top.layer]
        if graph.readers(top) or not layer.bottom:
            continue
        if layer.type == "Softmax" and latest[layer.bottom[0]] == graph.bottoms[top.layer][0]:
            names[layer.bottom[0]] = None
        names[layer.top[top.number]] = None
    return list(names)


def _latest(graph: NetGraph) -> dict[str, Top]:
    """The last version of every blob."""
    return {graph.layers[top.layer].top[top.number]: top for top in graph.tops()}


def _needed(graph: NetGraph, outputs: Iterable[str]) -> tuple[set[int], set[Top]]:
    """Places of the layers that ``outputs`` depend on, and the tops of theirs that are read."""
    latest = _latest(graph)
    read = set()
    for name in outputs:
        if name not in latest:
            listed = ", ".join(latest) or "none"
            raise SurgeryError(f"the TEST net has no blob '{name}'; its blobs: {listed}")
        read.add(latest[name])
    places: set[int] = set()
    waiting = [top.layer for top in read]
    while waiting:
        place = waiting.pop()
        if place in places:
            continue
        places.add(place)
        for bottom, name in zip(graph.bottoms[place], graph.layers[place].bottom, strict=True):
            if bottom is None:
                raise SurgeryError(
                    f"layer '{graph.layers[place].name}' reads the blob '{name}', which no layer "
                    "of the TEST net makes; check include and exclude rules"
                )
            read.add(bottom)
            waiting.append(bottom.layer)
    return places, read


def input_shapes(
    net: NetParameter, outputs: Sequence[str], given: Mapping[str, Shape]
) -> dict[str, Shape | None]:
    """Return the data blobs that ``outputs`` depend on, with their shapes.

    Args:
        net: A net in the V2 form, deploy or train_val.
        outputs: Names of blobs of its TEST net.
        given: Shapes that the prototxt does not tell; they come before what it tells.

    Returns:
        By blob name, in the net's order; None = not known.

    Raises:
        SurgeryError: There is no such blob, or a blob that no layer makes is read.
    """
    graph = NetGraph(_test_layers(net))
    places, read = _needed(graph, outputs)
    shapes: dict[str, Shape | None] = {}
    for place in sorted(places):
        layer = graph.layers[place]
        if layer.bottom or layer.type in _NO_DATA:
            continue
        (around,) = infer_shapes([layer], given)
        shapes.update(
            (name, around.tops[number])
            for number, name in enumerate(layer.top)
            if Top(place, number) in read
        )
    return shapes


def inference_net(
    net: NetParameter, inputs: Mapping[str, Shape], outputs: Sequence[str]
) -> NetParameter:
    """Return the layers of the TEST net that ``outputs`` depend on, fed by Input layers.

    Args:
        net: A net in the V2 form, deploy or train_val.
        inputs: Shapes of the data blobs (`input_shapes`).
        outputs: Names of blobs of its TEST net.

    Raises:
        SurgeryError: As `input_shapes`, or a data blob is needed that ``inputs`` lacks, or one is
            given that is none.
    """
    graph = NetGraph(_test_layers(net))
    places, read = _needed(graph, outputs)
    new = NetParameter(name=net.name)
    fed = set()
    for place in sorted(places):
        layer = graph.layers[place]
        if layer.bottom or layer.type in _NO_DATA:
            kept = new.layer.add()
            kept.CopyFrom(layer)
            for field in ("include", "exclude"):
                kept.ClearField(field)
            continue
        for number, name in enumerate(layer.top):
            if Top(place, number) not in read:
                continue
            if name not in inputs:
                raise SurgeryError(
                    f"the blob '{name}' of layer '{layer.name}' ({layer.type}) is needed, but not "
                    "given"
                )
            data = new.layer.add(name=name, type="Input", top=[name])
            data.input_param.shape.add().dim.extend(inputs[name])
            fed.add(name)
    for name in inputs:
        if name not in fed:
            listed = ", ".join(sorted(fed)) or "none"
            raise SurgeryError(
                f"the net has no data blob '{name}' ({extents(inputs[name])}) for these outputs; "
                f"those it has: {listed}"
            )
    return new
