"""Blobs of a net that a request names: whether they are there, and are weights."""

from collections.abc import Mapping, Sequence

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape
from pycaffe_prune.formats.caffe_pb2 import TRAIN, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.formats.sharing import blob_owners
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.shapes import infer_shapes

__all__ = ["require_weights"]


def require_weights(
    keys: Sequence[BlobKey], net: NetParameter, inputs: Mapping[str, Shape], asker: str
) -> None:
    """See that a net has these blobs, each once, and that they are weights.

    Args:
        keys: The blobs.
        net: The net that is trained.
        inputs: Shapes of blobs that its prototxt does not tell, as for `infer_shapes`.
        asker: Who names them, for sentences: "the masking".

    Raises:
        SurgeryError: There is no such blob, or two are one and the same.
    """
    layers = layers_in_state(net, NetState(TRAIN))
    around = dict(zip((layer.name for layer in layers), infer_shapes(layers, inputs), strict=True))
    types = {layer.name: layer.type for layer in layers}
    for name, index in keys:
        if name not in types:
            raise SurgeryError(f"{asker} names layer '{name}', which the net does not have")
        if types[name] == "BatchNorm":
            raise SurgeryError(
                f"layer '{name}' (BatchNorm) holds statistics of its input, no weights that "
                f"{asker} could be about"
            )
        if not around[name].problem and index >= len(around[name].params):
            raise SurgeryError(
                f"{asker} names layer '{name}', blob {index}, which the layer ({types[name]}) does "
                "not have"
            )
    _refuse_shared(keys, blob_owners(layers), asker)


def _refuse_shared(keys: Sequence[BlobKey], owners: Mapping[BlobKey, BlobKey], asker: str) -> None:
    seen: dict[BlobKey, BlobKey] = {}
    for key in keys:
        owner = owners.get(key, key)
        if owner in seen:
            raise SurgeryError(
                f"layers '{seen[owner][0]}' and '{key[0]}' share one blob, which {asker} names "
                "twice; name one of them"
            )
        seen[owner] = key
