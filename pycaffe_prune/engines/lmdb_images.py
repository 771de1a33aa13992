"""The images of an LMDB outside of a net: as stored, and as a TEST net's Data layer has them."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import lmdb
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from pycaffe_prune.engines.lmdb_files import opened_lmdb
from pycaffe_prune.errors import DataError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import Datum
from pycaffe_prune.net.shapes import Shape, extents

__all__ = ["StoredImage", "as_data_layer", "stored_images"]


class StoredImage(NamedTuple):
    """One record."""

    pixels: NDArray[np.uint8] | NDArray[np.float32]
    """Channels × height × width; colour channels in the order B, G, R."""
    label: int


def stored_images(folder: Path, first: int = 0) -> Iterator[StoredImage]:
    """Yield the images of an LMDB of Datum messages in the order of their keys.

    Coded images are decoded as they are (`DecodeDatumNative` of `src/caffe/util/io.cpp`).

    Args:
        folder: The LMDB.
        first: So many records are passed over, unread.

    Raises:
        DataError: There is no LMDB, or a record is damaged.
    """
    try:
        with opened_lmdb(folder) as environment, environment.begin() as transaction:
            cursor = transaction.cursor()
            if next(islice(cursor.iternext(values=False), first, None), None) is None:
                return
            for key, value in cursor.iternext():
                yield _decoded(f"{folder}: record {key!r}", value)
    except (lmdb.Error, OSError) as error:
        raise DataError(f"{folder}: is no LMDB ({error})") from error


def _decoded(where: str, value: bytes) -> StoredImage:
    try:
        datum = Datum.FromString(value)
    except DecodeError as error:
        raise DataError(f"{where} is no Datum message") from error
    if datum.encoded:
        return StoredImage(_decompressed(where, datum.data), datum.label)
    shape = (datum.channels, datum.height, datum.width)
    pixels: NDArray[np.uint8] | NDArray[np.float32]
    if datum.data:
        pixels = np.frombuffer(datum.data, np.uint8)
    else:
        pixels = np.array(datum.float_data, np.float32)
    if not pixels.size or pixels.size != np.prod(shape):
        raise DataError(f"{where} holds {pixels.size} values, not {extents(shape)}")
    return StoredImage(pixels.reshape(shape), datum.label)


def _decompressed(where: str, data: bytes) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None or image.dtype != np.uint8:
        raise DataError(f"{where} is encoded, but is no image of bytes")
    values = np.asarray(image, np.uint8)
    return np.ascontiguousarray(np.atleast_3d(values).transpose(2, 0, 1))


def as_data_layer(
    pixels: NDArray[np.uint8] | NDArray[np.float32],
    shape: Shape | None,
    *,
    mean: NDArray[np.float32] | None = None,
    scale: float = 1.0,
) -> NDArray[np.float32]:
    """Return (pixel - mean) * scale, cut out of the middle (`src/caffe/data_transformer.cpp`).

    Args:
        pixels: Channels × height × width.
        shape: Of the data blob, 1 × channels × height × width; None: nothing is cut.
        mean: ``transform_param.mean_file``, channels × height × width as the pixels are, or
            ``mean_value``, channels × 1 × 1.
        scale: ``transform_param.scale``.

    Raises:
        SurgeryError: The image is smaller than the data blob, or does not fit to it or to the mean.
    """
    values = pixels.astype(np.float32)
    if mean is not None:
        if mean.shape not in (pixels.shape, (pixels.shape[0], 1, 1)):
            raise SurgeryError(
                f"the mean is {extents(mean.shape)}, the images are {extents(pixels.shape)}"
            )
        values -= mean
    if shape is not None:
        values = _cut(values, shape)
    return values * np.float32(scale)


def _cut(values: NDArray[np.float32], shape: Shape) -> NDArray[np.float32]:
    spare = [have - wanted for have, wanted in zip(values.shape, shape[1:], strict=False)]
    if len(shape) != 4 or spare[0] or min(spare) < 0:
        raise SurgeryError(
            f"the images are {extents(values.shape)}, the net's data blob is {extents(shape)}; "
            "give images that fit"
        )
    top, left = spare[1] // 2, spare[2] // 2
    return values[:, top : top + shape[2], left : left + shape[3]]
