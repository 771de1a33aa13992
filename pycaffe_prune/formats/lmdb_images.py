"""The images of an LMDB outside of a net: as stored, and as a TEST net's Data layer has them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.datum import Pixels, Record, decode_datum
from pycaffe_prune.formats.lmdb_file import LmdbFile

__all__ = ["as_data_layer", "stored_images"]


def stored_images(folder: Path, first: int = 0) -> Iterator[Record]:
    """Yield the images of an LMDB of Datum messages in the order of their keys.

    Images that are encoded are decoded as they are.

    Args:
        folder: The LMDB.
        first: So many records are passed over, unread.

    Raises:
        DataError: There is no LMDB, or a record is damaged.
    """
    with LmdbFile(folder) as database:
        for key, value in database.records(first):
            yield decode_datum(value, f"{folder}: record {key!r}")


def as_data_layer(
    pixels: Pixels,
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
