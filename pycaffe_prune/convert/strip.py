"""The smallest files that do the same: no layer and no setting that only training needs."""

from pycaffe_prune.convert.deploy import used_layers
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.net.graph import NetGraph, Top

__all__ = ["strip_model", "strip_training"]


def strip_training(deploy: NetParameter) -> NetParameter:
    """Return a deploy net without its Dropout layers, which do nothing there.

    One that makes a blob of its own stays when that blob is an output of the net, or when its
    bottom is read by other layers too (one of them might change it in place).
    """
    graph = NetGraph(deploy.layer)
    renamed: dict[str, str] = {}
    stripped = NetParameter()
    stripped.CopyFrom(deploy)
    del stripped.layer[:]
    for place, layer in enumerate(graph.layers):
        source = graph.bottoms[place][0] if layer.bottom else None
        if layer.type == "Dropout" and source is not None and _is_idle(graph, place, source):
            renamed[layer.top[0]] = renamed.get(layer.bottom[0], layer.bottom[0])
            continue
        rest = stripped.layer.add()
        rest.CopyFrom(layer)
        rest.bottom[:] = [renamed.get(name, name) for name in layer.bottom]
        rest.top[:] = [
            renamed.get(name, name) if name in layer.bottom else name for name in rest.top
        ]
        for name in rest.top:
            renamed.pop(name, None)
    return stripped


def _is_idle(graph: NetGraph, place: int, source: Top) -> bool:
    layer = graph.layers[place]
    if layer.bottom[0] == layer.top[0]:
        return True
    return len(graph.readers(source)) == 1 and bool(graph.readers(Top(place, 0)))


def strip_model(model: Caffemodel, net: NetParameter) -> Caffemodel:
    """Return only the layers with blobs that a net needs for use, without training settings.

    Data, loss and split layers, auxiliary heads, fillers and learning rates go; Caffe finds the
    same blobs under the same names.

    Args:
        model: The weights.
        net: Their net, train_val or deploy.

    Raises:
        SurgeryError: The net predicts nothing.
    """
    blobs = {layer.name: layer.blobs for layer in model.layers if layer.blobs}
    return Caffemodel(
        tuple(Layer(layer, blobs[layer.name]) for layer in used_layers(net) if layer.name in blobs),
        NetParameter(name=net.name),
    )
