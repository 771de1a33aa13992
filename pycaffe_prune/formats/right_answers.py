"""Which images of a test were answered right, as one short line of text.

One bit an image, in the images' order: packed to bytes (`numpy.packbits`, the first image in the
highest bit, zeros after the last one), compressed with zlib, written in base64.
"""

import base64
import binascii
import zlib

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError

__all__ = ["MOST_IMAGES", "fault_of_answers", "pack_answers", "unpack_answers"]

MOST_IMAGES = 1 << 22
"""Answers of tests of more images are not kept: a line of a log has to hold them."""

_REMEDY = "leave the answers out, or take them from the run again"


def pack_answers(right: NDArray[np.bool_]) -> str:
    """Write which images were answered right.

    Args:
        right: One value an image, shape (images,).

    Raises:
        FormatError: There are no images, or more than `MOST_IMAGES`.
    """
    _require_count(len(right))
    return base64.b64encode(zlib.compress(np.packbits(right).tobytes())).decode("ascii")


def unpack_answers(text: str, images: int) -> NDArray[np.bool_]:
    """Read what `pack_answers` wrote.

    Args:
        text: The line.
        images: How many images the test had.

    Returns:
        Shape (images,).

    Raises:
        FormatError: The text is damaged, or of another number of images.
    """
    _require_count(images)
    size = -(-images // 8)
    stream = zlib.decompressobj()
    try:
        # One byte more than there may be: a text that unpacks to far more is not unpacked.
        packed = stream.decompress(base64.b64decode(text, validate=True), size + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise FormatError(f"the right answers are damaged ({error}); {_REMEDY}") from error
    bits = np.unpackbits(np.frombuffer(packed, np.uint8)).view(np.bool_)
    if len(packed) != size or bits[images:].any():
        raise FormatError(f"the right answers are not those of {images:,} images; {_REMEDY}")
    if not stream.eof or stream.unused_data:
        raise FormatError(f"the right answers are damaged (cut off, or too long); {_REMEDY}")
    return bits[:images]


def fault_of_answers(text: str, images: int, correct: int) -> str | None:
    """Say why a text is not that of a test of so many images and right answers; None: it is."""
    try:
        right = int(unpack_answers(text, images).sum())
    except FormatError as error:
        return str(error)
    if right != correct:
        return f"the right answers are {right:,}, but {correct:,} were counted; {_REMEDY}"
    return None


def _require_count(images: int) -> None:
    if not 0 < images <= MOST_IMAGES:
        raise FormatError(
            f"right answers of {images:,} images cannot be kept, only of 1 to {MOST_IMAGES:,}; "
            "leave them out"
        )
