"""Which blobs of a layer are weights whose connections can be pruned, and why others are not."""

from collections.abc import Iterable, Mapping, Sequence

from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.forks import STOCK_TYPES

__all__ = ["as_key", "left_out_of_connections", "weight_blobs", "weights_of"]

_FIRST = frozenset({"Convolution", "Deconvolution", "Embed", "InnerProduct"})
_EVERY_MATRIX = frozenset({"LSTM", "RNN"})

_REASONS: Mapping[str, str] = {
    "BatchNorm": "holds statistics of its input, no weights",
    "Bias": "adds values and has no connections",
    "PReLU": "holds the slope of each channel, no connections",
    "Parameter": "holds a blob of which the net does not tell whether it is a matrix of weights",
    "Scale": "holds a factor for each channel; one that is zero takes the channel away, which is "
    "pruning units",
}
_UNKNOWN = (
    "is of a type that stock Caffe does not have: which of its blobs are weights is not known"
)


def as_key(place: str | BlobKey) -> BlobKey:
    """Return the blob that is meant: a layer's name stands for its blob 0."""
    return (place, 0) if isinstance(place, str) else place


def weight_blobs(layer_type: str, blobs: Sequence[Blob]) -> tuple[int, ...]:
    """Return which of a layer's blobs are matrices of weights; none where that is not known.

    Convolution, Deconvolution, InnerProduct and Embed have theirs in blob 0; LSTM and RNN in every
    blob of two axes: those of the input, of a static input, of the hidden state, of the output.

    Args:
        layer_type: The net's, Caffe's own or a fork's.
        blobs: What the model holds of the layer.
    """
    kind = STOCK_TYPES.get(layer_type, layer_type)
    if kind in _FIRST:
        return (0,) if blobs else ()
    if kind in _EVERY_MATRIX:
        return tuple(index for index, blob in enumerate(blobs) if blob.ndim == 2)
    return ()


def weights_of(layers: Iterable[str], types: Mapping[str, str], model: Caffemodel) -> list[BlobKey]:
    """Return all matrices of weights of some layers (`weight_blobs`), in their order.

    Args:
        layers: Names.
        types: The net's type of each of them.
        model: Holds them.

    Raises:
        FormatError: A layer is not in the model.
    """
    return [
        (name, index)
        for name in layers
        for index in weight_blobs(types[name], model.layer(name).blobs)
    ]


def left_out_of_connections(net: NetParameter, model: Caffemodel) -> dict[str, str]:
    """Return the net's layers with blobs of which no connection can be pruned, with the reason.

    The reason is the end of a sentence that begins with the layer.
    """
    held = {layer.name: layer.blobs for layer in model.layers if layer.blobs}
    return {
        layer.name: _REASONS.get(layer.type, _UNKNOWN)
        for layer in net.layer
        if layer.name in held and not weight_blobs(layer.type, held[layer.name])
    }
