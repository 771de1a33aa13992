"""Labelled images, and how LMDBs hold them: as Datum messages."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import Datum
from pycaffe_prune.formats.png import has_false_sizes

__all__ = ["Pixels", "Record", "channels_first", "decode_datum", "decode_image", "read_image"]

Pixels = NDArray[np.uint8] | NDArray[np.float32]

_REMEDY = "build it with `caffe-prune data …`"


@dataclass(frozen=True, slots=True)
class Record:
    """A labelled image."""

    pixels: Pixels
    """channels × height × width; colour channels in the order B, G, R."""
    label: int

    @property
    def shape(self) -> Shape:
        """Channels, height and width."""
        return self.pixels.shape


def channels_first(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an image of OpenCV's, of dtype uint8, as channels × height × width; a view."""
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def decode_image(content: bytes, flag: int) -> NDArray[Any] | None:
    """Return an image file's pixels as OpenCV has them; None: it is damaged, or too large.

    How many pixels OpenCV decodes at most is told in ``OPENCV_IO_MAX_IMAGE_PIXELS``.
    """
    if not content or has_false_sizes(content):
        return None
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error:
        return None


def read_image(path: Path | str, flag: int = cv2.IMREAD_COLOR) -> NDArray[Any] | None:
    """Return a file's pixels as `decode_image` does; None also: the file cannot be read."""
    try:
        return None if has_false_sizes(Path(path).read_bytes()) else cv2.imread(str(path), flag)
    except (cv2.error, OSError, ValueError):  # a name with a zero byte is a ValueError
        return None


def decode_datum(value: bytes, where: str, flag: int = cv2.IMREAD_UNCHANGED) -> Record:
    """Return the image of a Datum message (`DecodeDatumToCVMat` of `src/caffe/util/io.cpp`).

    Args:
        value: The message.
        where: The data set and the record, to begin a sentence with.
        flag: How OpenCV decodes an image that is encoded.

    Raises:
        DataError: It is damaged.
    """
    try:
        datum = Datum.FromString(value)
    except DecodeError as error:
        raise DataError(f"{where} is not a Datum ({error}); {_REMEDY}") from error
    if datum.encoded:
        image = decode_image(datum.data, flag)
        if image is None or image.dtype != np.uint8:
            raise DataError(f"{where} is encoded, but is no image of bytes; {_REMEDY}")
        return Record(channels_first(image), datum.label)
    pixels: Pixels
    if datum.data:
        pixels = np.frombuffer(datum.data, np.uint8)
    else:
        pixels = np.fromiter(datum.float_data, np.float32, len(datum.float_data))
    shape = (datum.channels, datum.height, datum.width)
    if min(shape) < 1 or pixels.size != math.prod(shape):
        raise DataError(
            f"{where} is damaged: an image of {extents(shape)} with {pixels.size} values; {_REMEDY}"
        )
    return Record(pixels.reshape(shape), datum.label)
