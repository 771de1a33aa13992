"""The shape of a data blob, from wherever it can be known."""

from collections.abc import Mapping, Sequence

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.graph import NetGraph, Top
from pycaffe_prune.net.shapes import Shape, infer_shapes

__all__ = ["input_shape"]


def input_shape(
    graph: NetGraph, top: Top, inputs: Mapping[str, Shape], model: Caffemodel | None
) -> Shape:
    """Return the shape of a data layer's top.

    What the caller says comes first, then what the layer tells; then a Data layer's crop_size with
    the number of channels by its force_color, force_gray or three mean_values, or by the weights of
    the layer that reads the blob (one image).

    Raises:
        SurgeryError: None of these tells it; the sentence asks for it.
    """
    place, index = top
    layer = graph.layers[place]
    name = layer.top[index]
    (told,) = infer_shapes([layer], inputs)
    shape = told.tops[index]
    if shape is None and index == 0:
        crop = layer.transform_param.crop_size
        channels = _channels(layer) or _channels_by_weights(graph.readers(top), model, crop)
        shape = (1, channels, crop, crop) if crop and channels else None
    if shape is None:
        raise SurgeryError(
            f"layer '{layer.name}' ({layer.type}): the net does not tell the shape of its top "
            f"'{name}'; give it with --input-shape {name}=NxCxHxW"
        )
    return shape


def _channels(layer: LayerParameter) -> int | None:
    transform = layer.transform_param
    if transform.force_gray:
        return 1
    if transform.force_color or len(transform.mean_value) == 3:
        return 3
    return None


def _channels_by_weights(
    readers: Sequence[LayerParameter], model: Caffemodel | None, crop: int
) -> int | None:
    layers = model.layers if model is not None else ()
    weights = {layer.name: layer.blobs[0] for layer in layers if layer.blobs}
    for reader in readers:
        blob = weights.get(reader.name)
        if blob is None:
            continue
        if reader.type == "Convolution":
            return int(blob.shape[1]) * reader.convolution_param.group
        if reader.type == "InnerProduct" and crop:
            columns = blob.shape[0 if reader.inner_product_param.transpose else 1]
            return int(columns) // crop**2
    return None
