"""Models for files that hold only arrays: a layer is its name and its blobs."""

from collections.abc import Mapping

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.blobs import Blob, require_count
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, Layer, naming_blob

__all__ = ["blob_index", "named_blobs", "named_model"]

_MOST_DIGITS = 9  # of an index: more are no number of a blob, and thousands no number to Python


def blob_index(text: str) -> int | None:
    """Return the position that ``text`` is written for in the name of a tensor; None: it is none.

    Only plain digits without leading zeros are one.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        return None
    return int(text) if text == str(int(text)) else None


def named_model(blobs: Mapping[BlobKey, Blob], net_name: str = "") -> Caffemodel:
    """Return a model whose definitions are names alone, as files have it that hold only arrays.

    Caffe finds weights by the layer's name, so that such a model loads as a whole one does.

    Args:
        blobs: Each blob with its place; layers come in the order in which they are first named.
        net_name: The net's name, where the file tells it.

    Raises:
        FormatError: There is no blob, a layer lacks one below its last one, a name is no text, or
            a shape is none of Caffe's.
    """
    if not blobs:
        raise FormatError("holds no blob")
    layers: dict[str, dict[int, Blob]] = {}
    for (name, index), blob in blobs.items():
        layers.setdefault(name, {})[index] = blob
    for name, found in layers.items():
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise FormatError(f"has a layer whose name {name!r} is not UTF-8 text") from error
        for index in range(len(found)):
            if index not in found:
                raise FormatError(
                    f"layer '{name}' has blob {max(found)} but lacks blob {index}, as Caffe's HDF5 "
                    "files have it where layers share parameters; save a .caffemodel there"
                )
            with naming_blob(name, index):
                require_count(found[index].shape, found[index].size)
    return Caffemodel(
        tuple(
            Layer(LayerParameter(name=name), tuple(found[index] for index in range(len(found))))
            for name, found in layers.items()
        ),
        NetParameter(name=net_name) if net_name else NetParameter(),
    )


def named_blobs(model: Caffemodel) -> dict[BlobKey, Blob]:
    """Return the model's blobs by their places, for files that hold only arrays.

    Raises:
        FormatError: Two layers with blobs have one name, which such a file cannot tell apart.
    """
    blobs: dict[BlobKey, Blob] = {}
    for (name, index), blob in model.blobs():
        if (name, index) in blobs:
            raise FormatError(
                f"two layers are called '{name}', which only a .caffemodel, a .sparse.npz or a "
                ".cpz can hold; rename one"
            )
        blobs[name, index] = blob
    return blobs
