"""The mean image of a data set, as Caffe's compute_image_mean makes it."""

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import DataError

__all__ = ["MeanImage"]

_EXACT_IN_FLOAT32 = 2**24  # every whole number up to here is a float32


class MeanImage:
    """A mean over images that come in batches, rounded as Caffe's tool rounds it.

    That tool adds one image after another in float32 and divides at the end, so its sums lose
    digits once they pass 2**24; this class loses the same ones.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._sum = np.zeros(shape, dtype=np.float32)
        self._count = 0

    def add(self, images: NDArray[np.uint8] | NDArray[np.float32]) -> None:
        """Take in some images: uint8 or float32, count × channels × height × width."""
        self._count += len(images)
        if images.dtype == np.uint8 and self._count * 255 <= _EXACT_IN_FLOAT32:
            # No partial sum can be rounded yet, so their order does not matter.
            self._sum += images.sum(axis=0, dtype=np.uint32).astype(np.float32)
            return
        for image in images:
            self._sum += image

    def value(self) -> NDArray[np.float32]:
        """Return the mean so far: float32, channels × height × width.

        Raises:
            DataError: No image has come yet.
        """
        if not self._count:
            raise DataError("the mean of no images is not defined")
        return self._sum / np.float32(self._count)
