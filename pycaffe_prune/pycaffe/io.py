"""Images and arrays on their way into a net and out of it, as BVLC's ``python/caffe/io.py``."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.pycaffe.images import (
    ArrayShapeError,
    ImageFileError,
    load_image,
    oversample,
    resize_image,
)
from pycaffe_prune.pycaffe.proto import caffe_pb2
from pycaffe_prune.pycaffe.transformer import Transformer, TransformerError

__all__ = [
    "ArrayShapeError",
    "ImageFileError",
    "Transformer",
    "TransformerError",
    "array_to_blobproto",
    "array_to_datum",
    "arraylist_to_blobprotovector_str",
    "blobproto_to_array",
    "blobprotovector_str_to_arraylist",
    "caffe_pb2",
    "datum_to_array",
    "load_image",
    "oversample",
    "resize_image",
]


def blobproto_to_array(blob: caffe_pb2.BlobProto, return_diff: bool = False) -> NDArray[Any]:
    """Return a blob's data, or its diff, as an array of the blob's shape, float64.

    Raises:
        ArrayShapeError: The blob has another number of values than its shape tells.
    """
    if return_diff:
        values = np.array(blob.double_diff or blob.diff)
    else:
        values = np.array(blob.double_data or blob.data)
    legacy = ("num", "channels", "height", "width")
    if any(blob.HasField(name) for name in legacy):
        shape = [getattr(blob, name) for name in legacy]
    else:
        shape = list(blob.shape.dim)
    return _shaped(values, shape, "the blob")


def _shaped(values: NDArray[Any], shape: list[int], what: str) -> NDArray[Any]:
    if values.size != np.prod(shape, dtype=int):
        raise ArrayShapeError(f"{what} of shape {shape} has {values.size} values")
    return values.reshape(shape)


def array_to_blobproto(arr: NDArray[Any], diff: NDArray[Any] | None = None) -> caffe_pb2.BlobProto:
    """Return a blob of the array's shape and values, with a diff where one is given.

    Args:
        arr: Any shape and dtype; values are stored as float32.
        diff: The same shape.
    """
    blob = caffe_pb2.BlobProto(data=arr.astype(float).flat)
    blob.shape.dim.extend(arr.shape)
    if diff is not None:
        blob.diff.extend(diff.astype(float).flat)
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[NDArray[Any]]) -> bytes:
    """Return arrays as a serialised ``BlobProtoVector``."""
    blobs = map(array_to_blobproto, arraylist)
    return caffe_pb2.BlobProtoVector(blobs=blobs).SerializeToString()


def blobprotovector_str_to_arraylist(str: bytes) -> list[NDArray[Any]]:  # noqa: A002 (pycaffe's)
    """Return the arrays of a serialised ``BlobProtoVector``."""
    return [blobproto_to_array(blob) for blob in caffe_pb2.BlobProtoVector.FromString(str).blobs]


def array_to_datum(arr: NDArray[Any], label: int | None = None) -> caffe_pb2.Datum:
    """Return an image as Caffe's data sets hold it: bytes for uint8, floats for anything else.

    Args:
        arr: Channels × height × width.
        label: Left out where None.

    Raises:
        ArrayShapeError: The array has not three axes.
    """
    if arr.ndim != 3:
        raise ArrayShapeError(
            f"a datum has channels, height and width: the array is of shape {arr.shape}"
        )
    channels, height, width = arr.shape
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width)
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.astype(float).flat)
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: caffe_pb2.Datum) -> NDArray[Any]:
    """Return an image of a data set, channels × height × width: uint8, or float64 from floats.

    Raises:
        ArrayShapeError: The datum has another number of values than its shape tells, as one with a
            JPEG in it has.
    """
    shape = [datum.channels, datum.height, datum.width]
    if datum.data:
        return _shaped(np.frombuffer(datum.data, np.uint8).copy(), shape, "the datum")
    return _shaped(np.array(datum.float_data, float), shape, "the datum")
