"""Weights in any form that the package knows: read by the file's content, written by its ending."""

from collections.abc import Callable
from pathlib import Path

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.blobs import mapped_file
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.compressed.file import MAGIC, read_compressed, write_compressed
from pycaffe_prune.formats.hdf5 import read_hdf5_weights, write_hdf5_weights
from pycaffe_prune.formats.npz import holds_array
from pycaffe_prune.formats.sparse import DEFINITIONS, read_sparse, write_sparse
from pycaffe_prune.formats.tensors import (
    read_npz,
    read_safetensors,
    write_npz,
    write_safetensors,
)

__all__ = ["caffe_weights", "is_caffemodel", "is_hdf5", "read_weights", "write_weights"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
# The tags of NetParameter's fields 1 to 8 with their wire types, and that of field 100.
_NET_TAGS = (b"\x0a", b"\x12", b"\x1a", b"\x20", b"\x22", b"\x28", b"\x32", b"\x38", b"\x42")
_LAYER_TAG = b"\xa2\x06"

_Writer = Callable[[Path, Caffemodel], None]
# The longest ending that fits counts.
_WRITERS: dict[str, _Writer] = {
    ".sparse.npz": write_sparse,
    ".npz": write_npz,
    ".safetensors": write_safetensors,
    ".cpz": write_compressed,
    ".h5": write_hdf5_weights,
    ".caffemodel": write_caffemodel,
}
_FORMS = "a .caffemodel, .caffemodel.h5, .sparse.npz, .cpz, .npz or .safetensors"


def read_weights(path: Path) -> Caffemodel:
    """Read weights of any form, told by the content and not by the name.

    Returns:
        The model. Binary caffemodels, sparse and compressed models hold whole definitions, the
        other forms the layers' names only.

    Raises:
        FormatError: The file is missing, damaged, or of none of the forms.
    """
    return _reader(path)(path)


def caffe_weights(path: Path) -> Caffemodel:
    """Read weights that Caffe itself loads (`Net::CopyTrainedLayersFrom`): binary or HDF5.

    Raises:
        FormatError: The file is missing or damaged, or of another form.
    """
    reader = _reader(path)
    if reader not in (read_caffemodel, read_hdf5_weights):
        raise FormatError(
            f"{path}: is of a form that Caffe does not load; make a .caffemodel of it with "
            "`caffe-prune convert`"
        )
    return reader(path)


def is_hdf5(path: Path) -> bool:
    """Return whether a file is HDF5 by its content, as Caffe tells caffemodels apart.

    Raises:
        FormatError: The file is missing or empty.
    """
    return bytes(mapped_file(path, _FORMS)[: len(_HDF5)]) == _HDF5


def is_caffemodel(path: Path) -> bool:
    """Return whether a file is a binary caffemodel by its content.

    Raises:
        FormatError: The file is missing, or of none of the forms that `read_weights` knows.
    """
    return _reader(path) is read_caffemodel


def _reader(path: Path) -> Callable[[Path], Caffemodel]:
    content = mapped_file(path, _FORMS)
    start = bytes(content[:9])
    if start.startswith(_HDF5):
        return read_hdf5_weights
    if start.startswith(MAGIC):
        return read_compressed
    if start.startswith(_ZIP):
        return read_sparse if holds_array(path, DEFINITIONS) else read_npz
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") <= len(content):
        return read_safetensors
    if start.startswith((*_NET_TAGS, _LAYER_TAG)):
        return read_caffemodel
    raise FormatError(f"{path}: begins like no file of weights; {_FORMS} is needed")


def write_weights(path: Path, model: Caffemodel) -> None:
    """Write ``model`` in the form that the path's ending names, atomically.

    Raises:
        FormatError: The ending names none, or the form cannot hold the model.
        PruneError: The folder cannot be written to or the disk is full.
    """
    for ending, write in _WRITERS.items():
        if path.name.endswith(ending):
            write(path, model)
            return
    raise FormatError(f"{path}: its ending tells no form of weights; {_FORMS} is needed")
