"""Mean images: ``mean.binaryproto`` of Caffe's tools and ``mean.npy`` of its Python examples."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.blobs import mapped_file, naming_file, read_blob
from pycaffe_prune.formats.caffe_pb2 import BlobProto
from pycaffe_prune.formats.files import atomic_write
from pycaffe_prune.formats.npz import NPY_MAGIC, parse_npy

__all__ = ["read_mean", "write_mean", "write_mean_npy"]

_WHAT = "a mean image (.binaryproto or .npy)"


def read_mean(path: Path) -> NDArray[np.float32]:
    """Read a mean image of either form, told by the file's content.

    A ``.binaryproto`` is a BlobProto of one image (`tools/compute_image_mean.cpp`), with the legacy
    dimensions (1, channels, height, width) or with a ``shape``; a ``.npy`` holds float32 or
    float64, as `python/caffe/imagenet/ilsvrc_2012_mean.npy` does.

    Returns:
        float32, channels × height × width, in the order in which the file has them (BGR by
        Caffe's custom).

    Raises:
        FormatError: The file is missing, damaged, or holds no image.
    """
    buffer = mapped_file(path, _WHAT)
    with naming_file(path, _WHAT):
        if buffer[: len(NPY_MAGIC)] == NPY_MAGIC:
            mean = _npy_values(buffer)
        else:
            mean = read_blob(buffer, 0, len(buffer))[0]
        shape = mean.shape
        if len(shape) == 4 and shape[0] == 1:
            mean = mean.reshape(shape[1:])
        if mean.ndim != 3 or not mean.size:
            raise FormatError(
                f"has shape {'x'.join(map(str, shape)) or '()'} instead of channels x height x "
                "width"
            )
        return mean


def _npy_values(buffer: memoryview) -> NDArray[np.float32]:
    values = parse_npy(buffer)
    if values.dtype.kind != "f":
        raise FormatError(f"holds {values.dtype} instead of float32 or float64")
    with np.errstate(over="ignore", invalid="ignore"):  # too large a double becomes inf, as in C++
        return values.astype(np.float32, copy=False)


def write_mean(path: Path, mean: NDArray[np.float32]) -> None:
    """Write a mean image as the binary BlobProto that ``transform_param.mean_file`` names.

    Args:
        path: The file, ``mean.binaryproto`` by custom; replaced atomically.
        mean: float32, channels × height × width.

    Raises:
        PruneError: The file cannot be written.
    """
    channels, height, width = mean.shape
    # The legacy dimension fields: compute_image_mean writes these, and every Caffe reads them.
    blob = BlobProto(num=1, channels=channels, height=height, width=width, data=mean.ravel())
    with atomic_write(path) as temporary:
        temporary.write_bytes(blob.SerializeToString())


def write_mean_npy(path: Path, mean: NDArray[np.float32]) -> None:
    """Write a mean image as the ``.npy`` that ``caffe.io.Transformer.set_mean`` takes.

    Args:
        path: The file; replaced atomically.
        mean: float32, channels × height × width.

    Raises:
        PruneError: The file cannot be written.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(mean, np.float32), allow_pickle=False)
