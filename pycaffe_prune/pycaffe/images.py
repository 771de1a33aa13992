"""Image files and arrays, with the pixels that pycaffe gives for them: behind `caffe.io`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe.resizing import ORDERS, resize_channels, resize_image_values

__all__ = ["ArrayShapeError", "ImageFileError", "load_image", "oversample", "resize_image"]

_LUMINANCE = np.array([0.2125, 0.7154, 0.0721])
"""Of red, green and blue, as scikit-image weighs them."""


class ArrayShapeError(PruneError, ValueError):
    """An array, a mean or an order does not have the shape that it must have."""


class ImageFileError(PruneError, OSError):
    """An image file is missing, or OpenCV cannot read it as pycaffe would."""


def load_image(filename: str | Path, color: bool = True) -> NDArray[np.float32]:
    """Read an image file.

    Args:
        filename: Any kind of file that OpenCV reads.
        color: True for red, green and blue, whatever the file has; False for one channel, the
            luminance of a colour image on white.

    Returns:
        Height × width × 3 (or 1), from 0 to 1, turned as a photograph says it is held.

    Raises:
        ImageFileError: There is no such file, it is no image, or it is a TIFF with transparency,
            whose colours OpenCV gives multiplied by it.
    """
    path = Path(filename)
    if not path.is_file():
        raise ImageFileError(f"{filename}: no such file")
    image = _read(path, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    is_tiff = path.suffix.lower() in (".tif", ".tiff")
    if is_tiff or not color:
        whole = _read(path, cv2.IMREAD_UNCHANGED)
        if whole.ndim == 3 and whole.shape[2] == 4:
            if is_tiff:
                raise ImageFileError(
                    f"{filename}: a TIFF with transparency does not keep its colours in OpenCV: "
                    "save it as PNG"
                )
            image = whole[:, :, 3:] * whole[:, :, :3] + (1 - whole[:, :, 3:])
    if image.ndim == 3:
        image = image[:, :, ::-1]
        if not color:
            image = image @ _LUMINANCE
    if image.ndim == 2:
        image = np.tile(image[:, :, np.newaxis], (1, 1, 3 if color else 1))
    return image.astype(np.float32)


def _read(path: Path, flags: int) -> NDArray[np.float64]:
    """Return the pixels of a file, blue first, from 0 to 1 where the file has whole numbers."""
    encoded = np.fromfile(path, np.uint8)
    image = cv2.imdecode(encoded, flags) if encoded.size else None
    if image is None:
        raise ImageFileError(f"{path}: no image that OpenCV can read")
    scale = {"uint8": 255, "uint16": 65535}.get(image.dtype.name, 1)
    return np.asarray(image / scale)


def resize_image(
    im: NDArray[Any], new_dims: Sequence[int] | NDArray[Any], interp_order: int = 1
) -> NDArray[np.float32]:
    """Return an image of another size.

    Images of one or three channels are resized as areas of colour are (smoothed where they
    shrink), those of other numbers as grids of points: see `resizing`.

    Args:
        im: Height × width × channels.
        new_dims: The new height and width.
        interp_order: 0 is the nearest pixel, 1 linear, up to 5.

    Raises:
        ArrayShapeError: The image has not three axes, or the order is none of these.
    """
    if im.ndim != 3:
        raise ArrayShapeError(
            f"an image is height × width × channels: the array is of shape {im.shape}"
        )
    if interp_order not in ORDERS:
        raise ArrayShapeError(f"interp_order is {interp_order}: it goes from 0 to 5")
    height, width = (int(size) for size in new_dims)
    if im.shape[2] not in (1, 3):
        return resize_channels(im, height, width, interp_order).astype(np.float32)
    low, high = im.min(), im.max()
    if not high > low:
        return np.full((height, width, im.shape[2]), low, np.float32)
    unit = resize_image_values((im - low) / (high - low), height, width, interp_order)
    return np.asarray(unit * (high - low) + low, np.float32)


def oversample(
    images: Sequence[NDArray[Any]], crop_dims: Sequence[int] | NDArray[Any]
) -> NDArray[np.float32]:
    """Return ten crops of each image: its corners and its middle, and these mirrored.

    Args:
        images: Height × width × channels, all of one shape.
        crop_dims: Height and width of the crops.

    Returns:
        10·images × height × width × channels: top left, top right, bottom left, bottom right and
        middle, then the five mirrored from left to right.

    Raises:
        ArrayShapeError: The crops are larger than the images, or these are not of one shape.
    """
    shape = images[0].shape
    height, width = (int(size) for size in crop_dims)
    spare = shape[0] - height, shape[1] - width
    if min(spare) < 0 or any(image.shape != shape for image in images):
        shapes = ", ".join(sorted({str(image.shape) for image in images}))
        raise ArrayShapeError(f"crops of {height} × {width} of images of shape {shapes}")
    corners = [(top, left) for top in (0, spare[0]) for left in (0, spare[1])]
    places = [*corners, (spare[0] // 2, spare[1] // 2)]
    crops = np.stack(
        [image[top : top + height, left : left + width] for image in images for top, left in places]
    ).astype(np.float32)
    crops = crops.reshape(len(images), 1, 5, *crops.shape[1:])
    both = np.concatenate([crops, crops[:, :, :, :, ::-1]], axis=1)
    return both.reshape(-1, *crops.shape[3:])
