"""Parameters that layers share by name."""

from collections.abc import Iterable

from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import BlobKey

__all__ = ["blob_owners"]


def blob_owners(layers: Iterable[LayerParameter]) -> dict[BlobKey, BlobKey]:
    """Return, for each blob with a ``param { name }``, the first blob of that name.

    Caffe gives all of them the memory of that one (`Net::AppendParam`, `src/caffe/net.cpp`); the
    owner is its own owner.
    """
    first: dict[str, BlobKey] = {}
    owners: dict[BlobKey, BlobKey] = {}
    for layer in layers:
        for index, spec in enumerate(layer.param):
            if spec.name:
                owners[layer.name, index] = first.setdefault(spec.name, (layer.name, index))
    return owners
