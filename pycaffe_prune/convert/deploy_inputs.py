"""The Input layers of a deploy net: one for each blob that it reads and no layer of it makes."""

from collections.abc import Collection, Iterator, Mapping

from pycaffe_prune.convert.definitions import LEARNING
from pycaffe_prune.convert.input_shapes import input_shape
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.graph import NetGraph, Top
from pycaffe_prune.net.shapes import Shape, extents

__all__ = [
    "inputs_of_data_layer",
    "inputs_that_nothing_makes",
    "layers_with_weights",
    "require_used",
]


def layers_with_weights(net: NetParameter, model: Caffemodel | None) -> frozenset[str]:
    """Return the names that a layer without weights must not take.

    Caffe loads weights by names, and aborts where the layer of a name has none
    (`Net::CopyTrainedLayersFrom` of `src/caffe/net.cpp`).
    """
    held = () if model is None else (layer.name for layer in model.layers if layer.blobs)
    return frozenset({*(layer.name for layer in net.layer if layer.type in LEARNING), *held})


def inputs_of_data_layer(
    graph: NetGraph,
    kept: Collection[int],
    place: int,
    shapes: Mapping[str, Shape],
    model: Caffemodel | None,
    taken: Collection[str],
) -> Iterator[LayerParameter]:
    """Yield an Input layer for each top of a data layer that the deploy net reads.

    Args:
        graph: The TEST net.
        kept: Places of the layers that the deploy net consists of.
        place: The data layer's.
        shapes: Shapes by blob name; they come before what the layer tells.
        model: The weights, if at hand.
        taken: Names that the new layers must not have (`layers_with_weights`).

    Raises:
        SurgeryError: The shape of a top is not known.
    """
    for index, name in enumerate(graph.layers[place].top):
        top = Top(place, index)
        if any(top in graph.bottoms[reader] for reader in kept):
            yield _input(name, input_shape(graph, top, shapes, model), taken)


def inputs_that_nothing_makes(
    net: NetParameter,
    graph: NetGraph,
    kept: Collection[int],
    shapes: Mapping[str, Shape],
    taken: Collection[str],
) -> Iterator[LayerParameter]:
    """Yield an Input layer for each blob that is read and made by no layer of the TEST net.

    The data layer is then one of another state (a stage, the phase TRAIN), or was left out.

    Args:
        net: The net with the layers of all its states.
        graph: The TEST net.
        kept: Places of the layers that the deploy net consists of.
        shapes: Shapes by blob name.
        taken: As for `inputs_of_data_layer`.

    Raises:
        SurgeryError: The shape of such a blob is not given; the sentence asks for it.
    """
    readers: dict[str, LayerParameter] = {}
    for place in sorted(kept):
        layer = graph.layers[place]
        for name, made in zip(layer.bottom, graph.bottoms[place], strict=True):
            if made is None:
                readers.setdefault(name, layer)
    for name, reader in readers.items():
        if name not in shapes:
            raise SurgeryError(
                f"layer '{reader.name}' ({reader.type}) reads the blob '{name}', which no layer of "
                f"the TEST net makes{_makers(net, name)}; name its shape with --input-shape "
                f"{name}=NxCxHxW, or with --stage the state that has its data layer"
            )
        yield _input(name, shapes[name], taken)


def _makers(net: NetParameter, name: str) -> str:
    """Which layers of other states make a blob, as part of a sentence."""
    makers = [layer for layer in net.layer if name in layer.top and name not in layer.bottom]
    if not makers:
        return ""
    stages = {stage for layer in makers for rule in layer.include for stage in rule.stage}
    told = f", with the stage {' or '.join(sorted(stages))}" if stages else ""
    names = ", ".join(dict.fromkeys(f"'{layer.name}' ({layer.type})" for layer in makers))
    return f" (in other states {names} does{told})"


def _input(name: str, shape: Shape, taken: Collection[str]) -> LayerParameter:
    own = name
    while own in taken:
        own += "_input"
    layer = LayerParameter(name=own, type="Input", top=[name])
    layer.input_param.shape.add().dim.extend(shape)
    return layer


def require_used(net: NetParameter, deploy: NetParameter, shapes: Mapping[str, Shape]) -> None:
    """Refuse shapes of blobs that the net does not have as data.

    Those of data that only training needs, labels say, are taken without a word.

    Raises:
        SurgeryError: There is one.
    """
    made = {top for layer in net.layer if layer.bottom for top in layer.top}
    read = {name for layer in net.layer for name in layer.bottom}
    data = {top for layer in net.layer if not layer.bottom for top in layer.top}
    inputs = {top for layer in deploy.layer if layer.type == "Input" for top in layer.top}
    for name, shape in shapes.items():
        if name not in inputs | data | (read - made):
            listed = ", ".join(sorted(inputs)) or "none"
            raise SurgeryError(
                f"--input-shape {name}={extents(shape)}: the net has no data blob '{name}'; those "
                f"that its deploy form reads: {listed}"
            )
