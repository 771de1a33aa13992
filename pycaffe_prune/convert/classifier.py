"""A new classifier on a trained net, as the paper makes one for CaffeNet on Oxford 102."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from pycaffe_prune.convert.definitions import LEARNING
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.graph import NetGraph

__all__ = ["Classifier", "output_layers", "replace_classifier", "without_classifier"]

_FASTER = 10
_PARAMS = {
    "Convolution": "convolution_param",
    "Deconvolution": "convolution_param",
    "InnerProduct": "inner_product_param",
}


@dataclass(frozen=True)
class Classifier:
    """One output layer to be replaced."""

    old: str
    """Name of the trained layer."""
    new: str
    """Name of the new one: another name, so that Caffe leaves it at its fillers."""
    num_output: int
    """Number of classes."""


def output_layers(net: NetParameter) -> list[str]:
    """Return the layers that give the scores: no layer with weights reads them, however far on."""
    candidates = dict.fromkeys(layer.name for layer in net.layer if layer.type in _PARAMS)
    for graph in NetGraph.of_all_states(net):
        for place, layer in enumerate(graph.layers):
            if layer.name in candidates and any(
                graph.layers[reader].type in LEARNING for reader in _downstream(graph, place)
            ):
                del candidates[layer.name]
    return list(candidates)


def _downstream(graph: NetGraph, place: int) -> Iterator[int]:
    """Yield the places of all layers that depend on the one at ``place``."""
    made = {place}
    for reader in range(place + 1, len(graph.layers)):
        if any(top is not None and top.layer in made for top in graph.bottoms[reader]):
            made.add(reader)
            yield reader


def replace_classifier(net: NetParameter, wanted: Classifier) -> NetParameter:
    """Return the net with a new output layer that starts from its fillers and learns faster.

    As the paper (docs/protocol.md, "CaffeNet") and Caffe's fine-tuning example do: another name for
    the layer, and for its top where that was called the same; ``num_output``; weights from a
    gaussian of 0.01, bias 0; each ``lr_mult`` times 10 (1 and 2 become 10 and 20; one that was
    frozen by 0 gets 10). Whatever reads the scores follows.

    Raises:
        SurgeryError: The layer is no output layer, the new name is taken or the old one, the layer
            shares its weights, or what reads its scores takes no other number of them.
    """
    _require_possible(net, wanted)
    new = NetParameter()
    new.CopyFrom(net)
    for layer in new.layer:
        if layer.name == wanted.old:
            layer.name = wanted.new
            _start_afresh(layer, wanted.num_output)
        for names in (layer.bottom, layer.top):
            names[:] = [wanted.new if name == wanted.old else name for name in names]
    return new


def _require_possible(net: NetParameter, wanted: Classifier) -> None:
    named = [layer for layer in net.layer if layer.name == wanted.old]
    outputs = output_layers(net)
    if wanted.old not in outputs:
        kind = f"is of type {named[0].type} and no output layer" if named else "is not in the net"
        raise SurgeryError(
            f"layer '{wanted.old}' {kind}; the output layers are: {', '.join(outputs) or 'none'}"
        )
    if wanted.num_output < 1:
        raise SurgeryError(
            f"layer '{wanted.new}': a classifier of {wanted.num_output} classes cannot be; give "
            "at least 1"
        )
    taken = {name for layer in net.layer for name in (layer.name, *layer.top)}
    if wanted.new in taken:
        raise SurgeryError(
            f"layer '{wanted.new}': the net has a layer or blob of this name already; give the "
            "new classifier one of its own, or Caffe would load the old weights into it"
        )
    if any(param.name for layer in named for param in layer.param):
        raise SurgeryError(
            f"layer '{wanted.old}' shares its weights by name with others and cannot be replaced "
            "alone; take the names out of its param fields first"
        )
    for graph in NetGraph.of_all_states(net):
        _require_free_count(graph, wanted.old)
    for layer in _readers(net, wanted.old):
        if layer.type == "Accuracy" and layer.accuracy_param.top_k > wanted.num_output:
            raise SurgeryError(
                f"layer '{layer.name}' looks at the top {layer.accuracy_param.top_k} of "
                f"{wanted.num_output} classes; lower its top_k or take the layer out first"
            )


def _require_free_count(graph: NetGraph, old: str) -> None:
    """Refuse a layer whose scores are joined with other values, or cut or laid out by number."""
    for place, layer in enumerate(graph.layers):
        if layer.name != old:
            continue
        made = {place, *_downstream(graph, place)}
        for reader in sorted(made - {place}):
            if reason := _why_count_is_fixed(graph, reader, made):
                follower = graph.layers[reader]
                raise SurgeryError(
                    f"layer '{old}' is no output: layer '{follower.name}' ({follower.type}) "
                    f"{reason}, and takes no other number of classes; take out or rewrite what "
                    "follows the scores first"
                )


def _why_count_is_fixed(graph: NetGraph, place: int, made: Collection[int]) -> str | None:
    layer = graph.layers[place]
    others = [
        name
        for name, top in zip(layer.bottom, graph.bottoms[place], strict=True)
        if top is None or top.layer not in made
    ]
    if layer.type == "InfogainLoss":
        return "weighs the classes by a matrix"
    if layer.type == "Reshape" and any(dim > 0 for dim in layer.reshape_param.shape.dim):
        return "lays them out in a shape of its own"
    if layer.type == "Slice" and (len(layer.top) > 1 or layer.slice_param.slice_point):
        return "cuts them into parts"
    if not others or not _joins(graph, layer, place, made):
        return None
    return f"joins them with '{others[0]}'"


def _joins(graph: NetGraph, layer: LayerParameter, place: int, made: Collection[int]) -> bool:
    """Whether a layer needs its bottoms to be of one size, and some of them are computed."""
    if layer.type in {"Eltwise", "Scale", "Bias"}:
        return True
    if layer.type not in {"EuclideanLoss", "SigmoidCrossEntropyLoss", "ContrastiveLoss"}:
        return False
    others = [top for top in graph.bottoms[place] if top is not None and top.layer not in made]
    return any(graph.layers[top.layer].bottom for top in others)


def _readers(net: NetParameter, name: str) -> Iterator[LayerParameter]:
    for graph in NetGraph.of_all_states(net):
        for place, layer in enumerate(graph.layers):
            if layer.name == name:
                yield from (graph.layers[reader] for reader in _downstream(graph, place))


def _start_afresh(layer: LayerParameter, num_output: int) -> None:
    settings = getattr(layer, _PARAMS[layer.type])
    settings.num_output = num_output
    settings.weight_filler.Clear()
    settings.weight_filler.type = "gaussian"
    settings.weight_filler.std = 0.01
    if settings.bias_term:
        settings.bias_filler.Clear()
        settings.bias_filler.type = "constant"
        settings.bias_filler.value = 0
    while len(layer.param) < (2 if settings.bias_term else 1):
        layer.param.add()
    for param in layer.param:
        param.lr_mult = _FASTER * (param.lr_mult or 1)


def without_classifier(model: Caffemodel, wanted: Classifier) -> Caffemodel:
    """Return the weights without the old output layer; losses and reports on it go too.

    Caffe then finds no weights for the new layer and leaves it at its fillers.

    Raises:
        SurgeryError: The model holds no blobs of the old layer, or has some of the new one's name.
    """
    if any(layer.name == wanted.new for layer in model.layers):
        raise SurgeryError(
            f"layer '{wanted.new}': the caffemodel has a layer of this name already, which Caffe "
            "would load into the new classifier; choose another name"
        )
    if not any(layer.name == wanted.old and layer.blobs for layer in model.layers):
        names = ", ".join(layer.name for layer in model.layers if layer.blobs) or "none"
        raise SurgeryError(
            f"layer '{wanted.old}' has no weights in the caffemodel; layers with blobs: {names}"
        )
    graph = NetGraph([layer.param for layer in model.layers])
    place = [layer.name for layer in model.layers].index(wanted.old)
    gone = {place, *(at for at in _downstream(graph, place) if not model.layers[at].blobs)}
    return replace(
        model, layers=tuple(layer for at, layer in enumerate(model.layers) if at not in gone)
    )
