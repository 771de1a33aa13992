"""The mean image of a data set: as Caffe's compute_image_mean makes it, or a given one."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.mean import read_mean

__all__ = ["COMPUTED", "TRAINING_IMAGES", "MeanImage", "given_mean", "mean_of"]

COMPUTED = "compute"
"""Asks for the mean over the training images."""
TRAINING_IMAGES = "the training images"

_ILSVRC = "ilsvrc"
_ILSVRC_IMAGES = "ILSVRC 2012"
_ILSVRC_FILES = ("imagenet_mean.binaryproto", "ilsvrc_2012_mean.npy")
_EXACT_IN_FLOAT32 = 2**24  # every whole number up to here is a float32
_MOST_IN_UINT16 = 257  # values of 255: uint16 has room for their sum, and is added the fastest


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
            for start in range(0, len(images), _MOST_IN_UINT16):
                self._sum += images[start : start + _MOST_IN_UINT16].sum(axis=0, dtype=np.uint16)
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


def mean_of(wanted: Path | str) -> str:
    """Return, in words, the images whose mean "compute", "ilsvrc" or a mean image's file is."""
    if wanted == COMPUTED:
        return TRAINING_IMAGES
    name = Path(wanted).name
    return _ILSVRC_IMAGES if wanted == _ILSVRC or name in _ILSVRC_FILES else name


def given_mean(wanted: Path | str, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Read the mean image that is not to be computed.

    Args:
        wanted: "ilsvrc" (ImageNet's, in ``$PYCAFFE_PRUNE_DATA/ilsvrc12``), or a mean image's file.
        shape: Channels, height and width of the images.

    Returns:
        float32, of ``shape``.

    Raises:
        DataError: The file is not there, or of another shape.
        FormatError: The file is no mean image.
    """
    path = _ilsvrc_file() if wanted == _ILSVRC else Path(wanted)
    values = read_mean(path)
    if values.shape != shape:
        raise DataError(
            f"{path}: this mean image is {'×'.join(map(str, values.shape))}, the images are "
            f"{'×'.join(map(str, shape))}; give --size {values.shape[1]}, or --mean {COMPUTED}"
        )
    return values


def _ilsvrc_file() -> Path:
    data = os.environ.get("PYCAFFE_PRUNE_DATA")
    for name in _ILSVRC_FILES if data else ():
        if (path := Path(data or "", "ilsvrc12", name)).is_file():
            return path
    raise DataError(
        f"the mean image of {_ILSVRC_IMAGES} is not in $PYCAFFE_PRUNE_DATA/ilsvrc12; it comes with "
        f"Caffe (data/ilsvrc12/get_ilsvrc_aux.sh): name its file {_ILSVRC_FILES[0]} with --mean"
    )
