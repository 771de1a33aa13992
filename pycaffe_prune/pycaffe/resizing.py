"""Images of another size, with the pixels of scikit-image 0.18 and SciPy 1.6, which pycaffe uses.

Both interpolate each axis by itself: a new pixel is a sum of a few old ones (taps), or of all of
them where splines are of second order or more (a matrix, new × old).
"""

import functools
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["ORDERS", "resize_channels", "resize_image_values"]

_Numbers = NDArray[Any]
_Taps = list[tuple[NDArray[np.int_], _Numbers]]
_Axis = _Taps | _Numbers

ORDERS = range(6)
"""The orders of interpolation that there are."""

_TAPPED = (0, 1, 3)


def resize_image_values(image: NDArray[Any], height: int, width: int, order: int) -> NDArray[Any]:
    """Return an image of another size, as ``skimage.transform.resize(mode="constant")`` makes it.

    Pixels are areas: where an axis shrinks, it is smoothed first; beyond the edges all is 0, which
    darkens the outermost pixels where an axis grows. Values stay within those of the (smoothed)
    image.

    Args:
        image: Height × width × channels, floats.
        height: Pixels of the new image.
        width: Pixels of the new image.
        order: Of the interpolation: 0 is the nearest pixel, 1 linear, 3 cubic after Keys, and 2, 4
            and 5 are splines, 0 where a new pixel's middle is beyond the middle of the outermost.

    Returns:
        Height × width × channels, the image's dtype.
    """
    old = image.shape[:2]
    smooth = _smoothed(image, old[0] / height, old[1] / width)
    places = [
        _area_places(old[0], height, image.dtype),
        _area_places(old[1], width, image.dtype),
    ]
    how = _taps if order in _TAPPED else _spline
    new = _both_axes(smooth, how(places[0], old[0], order), how(places[1], old[1], order))
    if order == 0:
        return new
    np.clip(new, smooth.min(), smooth.max(), out=new)
    if order not in _TAPPED:
        for axis, where in enumerate(places):
            new[(slice(None),) * axis + (_beyond(where, old[axis]),)] = 0
    return new


def resize_channels(image: NDArray[Any], height: int, width: int, order: int) -> NDArray[Any]:
    """Return an image of another size, as ``scipy.ndimage.zoom`` makes it.

    Pixels are points: the outermost of the new image are those of the old one, and nothing is
    smoothed.

    Args:
        image: Height × width × channels.
        height: Pixels of the new image.
        width: Pixels of the new image.
        order: Of the splines.

    Returns:
        Height × width × channels, the image's dtype; whole numbers are rounded.
    """
    how = _taps if order == 1 else _spline
    rows, columns = (
        how(np.linspace(0, old - 1, new), old, order)
        for old, new in zip(image.shape[:2], (height, width), strict=True)
    )
    if image.dtype.kind not in "iu":
        return _both_axes(image, rows, columns)
    new = _both_axes(image.astype(float), rows, columns)
    limits = np.iinfo(image.dtype)
    return np.clip(np.floor(new + 0.5), limits.min, limits.max).astype(image.dtype)


def _both_axes(image: NDArray[Any], rows: _Axis, columns: _Axis) -> NDArray[Any]:
    tall = _along_first(image, rows)
    return np.ascontiguousarray(_along_first(tall.swapaxes(0, 1), columns).swapaxes(0, 1))


def _along_first(image: NDArray[Any], axis: _Axis) -> NDArray[Any]:
    if isinstance(axis, np.ndarray):
        return np.tensordot(axis.astype(image.dtype), image, 1)
    parts = (image[at] * share.astype(image.dtype)[:, None, None] for at, share in axis)
    return functools.reduce(np.add, parts)


def _smoothed(image: NDArray[Any], *shrinks: float) -> NDArray[Any]:
    """Return the image after Gaussians of half a shrunk pixel more than a pixel, 0 beyond it."""
    sigmas = [max(0.0, (shrink - 1) / 2) for shrink in shrinks]
    if not any(sigmas):
        return image
    rows, columns = (_gaussian(sigma) for sigma in sigmas)
    smooth = cv2.sepFilter2D(image, -1, columns, rows, borderType=cv2.BORDER_CONSTANT)
    return smooth.reshape(image.shape)  # OpenCV drops an axis of one channel


def _gaussian(sigma: float) -> NDArray[np.float64]:
    radius = int(4 * sigma + 0.5)
    if radius == 0:
        return np.ones(1)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(kernel / kernel.sum())


def _area_places(old: int, new: int, dtype: np.dtype[Any]) -> _Numbers:
    """Return where the new pixels' middles are among the old pixels, rounded as scikit-image does.

    It computes them in the image's own precision.
    """
    factor = old / new
    places = np.arange(new).astype(dtype) * dtype.type(factor) + dtype.type(0.5 * factor - 0.5)
    return np.asarray(places)


def _taps(places: _Numbers, size: int, order: int) -> _Taps:
    base = np.floor(places + 0.5 if order == 0 else places).astype(int)
    taps = []
    for offset, share in _shares(places - base, order):
        at = base + offset
        taps.append((at.clip(0, size - 1), share * ((at >= 0) & (at < size))))
    return taps


def _shares(x: _Numbers, order: int) -> list[tuple[int, _Numbers]]:
    """Return the weights of the old pixels around a place that is ``x`` after one of them."""
    if order == 0:
        return [(0, np.ones_like(x))]
    if order == 1:
        return [(0, 1 - x), (1, x)]
    return [
        (-1, ((2 - x) * x - 1) * x / 2),
        (0, ((3 * x - 5) * x * x + 2) / 2),
        (1, ((4 - 3 * x) * x + 1) * x / 2),
        (2, (x - 1) * x * x / 2),
    ]


def _beyond(places: _Numbers, size: int) -> NDArray[np.bool_]:
    return (places < 0) | (places > size - 1)


def _spline(places: _Numbers, size: int, order: int) -> _Numbers:
    """Return the matrix that evaluates the spline through the old pixels, mirrored at the ends."""
    wanted = _b_splines(places, size, order)
    if order == 0:
        return wanted
    return np.linalg.solve(_b_splines(np.arange(size), size, order).T, wanted.T).T


def _b_splines(places: _Numbers, size: int, order: int) -> _Numbers:
    weights = np.zeros((len(places), size))
    rows = np.arange(len(places))
    for offset in range(-3, 5):
        knots = np.floor(places).astype(int) + offset
        period = max(1, 2 * (size - 1))
        mirrored = np.minimum(knots % period, -knots % period)
        np.add.at(weights, (rows, mirrored), _b_spline(places - knots, order))
    return weights


def _b_spline(x: _Numbers, order: int) -> _Numbers:
    if order == 0:
        return ((x >= -0.5) & (x < 0.5)).astype(float)
    half = (order + 1) / 2
    powers = (
        (-1) ** k * math.comb(order + 1, k) * np.maximum(0, x + half - k) ** order
        for k in range(order + 2)
    )
    total: _Numbers = np.zeros(x.shape)
    for power in powers:
        total += power
    return total / math.factorial(order)
