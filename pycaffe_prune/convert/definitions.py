"""The net that a caffemodel itself describes: Caffe saves the definitions with the blobs."""

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.formats.forks import with_names
from pycaffe_prune.formats.upgrade import upgrade_net
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.loading import LEARNING

__all__ = ["LEARNING", "model_net", "with_definitions"]


def model_net(model: Caffemodel) -> NetParameter:
    """Return the net whose weights ``model`` holds, as its prototxt would say it.

    A file holds the layers of one state of the net, after `InsertSplits` of
    `src/caffe/util/insert_splits.cpp`: here the rules that chose them are gone, since they would
    choose again, and so are the splits. A TRAIN net's data and loss layers are still in
    (`convert.deploy.to_deploy` takes them out). Fields of forks have their names where these are
    known (`formats.forks`).

    Raises:
        SurgeryError: The file does not hold the whole net: HDF5 and npz files have names only.
    """
    net = NetParameter()
    net.CopyFrom(model.net)
    split_from: dict[str, str] = {}
    for layer in model.layers:
        if _is_inserted(layer.param):
            origin = split_from.get(layer.param.bottom[0], layer.param.bottom[0])
            split_from.update(dict.fromkeys(layer.param.top, origin))
            continue
        plain = net.layer.add()
        plain.CopyFrom(with_names(layer.param))
        for field in ("include", "exclude", "phase"):
            plain.ClearField(field)
        plain.bottom[:] = [split_from.get(name, name) for name in layer.param.bottom]
    net = upgrade_net(net)  # the data may come in by `input` fields
    made = {top for layer in net.layer for top in layer.top}
    read = {bottom for layer in net.layer for bottom in layer.bottom}
    if not made or not read <= made:
        raise SurgeryError(
            "the file of weights does not hold its net's whole definition (stripped, or names and "
            "blobs only); give the prototxt with --net"
        )
    return net


def with_definitions(model: Caffemodel, net: NetParameter) -> Caffemodel:
    """Return the weights with the definitions of ``net`` as Caffe saves them: of its TRAIN net.

    Layers of other states are in if they hold blobs; layers that the net does not have are not.

    Args:
        model: Weights that fit (`net.fit.require_fitting`), with definitions or without.
        net: Their net.
    """
    blobs = {layer.name: layer.blobs for layer in model.layers if layer.blobs}
    layers = layers_in_state(net, NetState.of(net, TRAIN))
    names = {layer.name for layer in layers}
    layers += [layer for layer in net.layer if layer.name in blobs.keys() - names]
    defined = NetParameter()
    defined.CopyFrom(net)
    del defined.layer[:]
    return Caffemodel(tuple(Layer(layer, blobs.get(layer.name, ())) for layer in layers), defined)


def _is_inserted(layer: LayerParameter) -> bool:
    return layer.type == "Split" and all(
        top == f"{layer.name}_{index}" for index, top in enumerate(layer.top)
    )
