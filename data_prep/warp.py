"""Images as Caffe's `tools/convert_imageset.cpp` stores them (`src/caffe/util/io.cpp`)."""

import cv2
import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import Datum
from pycaffe_prune.formats.png import has_false_sizes

__all__ = ["decode", "encoded_datum", "jpeg_of", "raw_datum", "warp"]

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_MOST_AFTER_END = 1024  # bytes; some cameras write a few after the picture


def decode(content: bytes) -> NDArray[np.uint8]:
    """Decode an image file as `ReadImageToCVMat` does for colour images.

    Returns:
        Height × width × 3, channels in the order B, G, R.

    Raises:
        DataError: It is no image, or a JPEG without its end. (OpenCV fills what is missing of a
            JPEG with grey, and so would convert_imageset.)
    """
    if content.startswith(_JPEG_START) and _JPEG_END not in content[-_MOST_AFTER_END:]:
        raise DataError("truncated: a JPEG without an end")
    return _imdecode(content, cv2.IMREAD_COLOR)


def warp(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize to ``size`` × ``size``, bilinear, whatever the aspect, as `ReadImageToCVMat` does."""
    if image.shape[:2] == (size, size):
        return image  # as cv2.resize, which copies
    resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def raw_datum(pixels: NDArray[np.uint8], label: int) -> bytes:
    """Return the Datum of an image's pixels, as `CVMatToDatum` makes it.

    Args:
        pixels: Channels × height × width, channels in the order B, G, R.
        label: Its class, from 0.
    """
    channels, height, width = pixels.shape
    datum = Datum(
        channels=channels,
        height=height,
        width=width,
        data=pixels.tobytes(),
        label=label,
        encoded=False,
    )
    return datum.SerializeToString()


def encoded_datum(file: bytes, label: int) -> bytes:
    """Return the Datum of an image file, as `ReadFileToDatum` makes it."""
    return Datum(data=file, label=label, encoded=True).SerializeToString()


def jpeg_of(content: bytes, image: NDArray[np.uint8], size: int) -> bytes:
    """Return an image as a JPEG file of ``size`` × ``size``.

    A colour JPEG that has that size is taken as it is, which convert_imageset does if it is not
    told to resize; every other one is encoded as it does then, with OpenCV's default quality.

    Args:
        content: The image's file.
        image: What `decode` made of it.
        size: Width and height to have.
    """
    fits = image.shape[:2] == (size, size) and content.startswith(_JPEG_START)
    if fits and _imdecode(content, cv2.IMREAD_ANYCOLOR).ndim == 3:
        return content
    return cv2.imencode(".jpg", warp(image, size))[1].tobytes()


def _imdecode(content: bytes, flags: int) -> NDArray[np.uint8]:
    if has_false_sizes(content):
        raise DataError("no image, or a damaged one")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:  # an empty file, or absurd dimensions
        raise DataError(f"no image ({error.err})") from error
    if image is None:
        raise DataError("no image, or a damaged one")
    return np.asarray(image, np.uint8)
