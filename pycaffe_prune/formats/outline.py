"""A caffemodel without the values of its blobs: what the package's own forms keep it in.

It is a NetParameter in which each blob has its shape and no data. All that a layer carries stays in
it, also what stock Caffe does not know.
"""

from dataclasses import dataclass

from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, require_text

__all__ = ["LayerOutline", "outline_bytes", "read_outline"]


@dataclass(frozen=True)
class LayerOutline:
    """A layer's definition, without blobs, and the shapes of these."""

    param: LayerParameter
    shapes: tuple[tuple[int, ...], ...]


def outline_bytes(model: Caffemodel) -> bytes:
    """Return the outline of ``model``, serialised."""
    outline = NetParameter()
    outline.CopyFrom(model.net)
    for layer in model.layers:
        added = outline.layer.add()
        added.CopyFrom(layer.param)
        for blob in layer.blobs:
            added.blobs.add().shape.dim.extend(blob.shape)
    return outline.SerializeToString()


def read_outline(data: bytes) -> tuple[NetParameter, list[LayerOutline]]:
    """Read what `outline_bytes` made; the shapes may be none of Caffe's.

    Returns:
        The net's own fields, without layers, and the layers.

    Raises:
        FormatError: Strings are not UTF-8; the sentence lacks the file's name.
        DecodeError: The message is damaged.
        EncodeError: It lacks a required field.
    """
    net = NetParameter.FromString(data)
    net.SerializeToString()  # parsing does not ask for required fields, writing does
    require_text(net, "a net")
    layers = []
    for layer in net.layer:
        require_text(layer, "a layer")
        shapes = tuple(tuple(blob.shape.dim) for blob in layer.blobs)
        param = LayerParameter()
        param.CopyFrom(layer)
        param.ClearField("blobs")
        layers.append(LayerOutline(param, shapes))
    net.ClearField("layer")
    return net, layers
