"""The WindowData layer: windows cut out of images, warped to one size."""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pycaffe_prune.engines.torch.data.base import Source
from pycaffe_prune.engines.torch.data.draws import Purpose, draws_for
from pycaffe_prune.engines.torch.data.prefetch import Prefetch
from pycaffe_prune.engines.torch.data.window_file import Window, read_windows
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.datum import decode_image, read_image
from pycaffe_prune.formats.mean import read_mean

__all__ = ["WindowSource", "window_source"]


def window_source(param: LayerParameter, device: torch.device, seed: int) -> Source:
    """Return the batches of a WindowData layer, made in the background.

    Raises:
        DataError: As `WindowSource`.
        FormatError: The mean file is missing or damaged.
    """
    return Prefetch(WindowSource(param, device, seed), device, param.data_param.prefetch)


@dataclass(frozen=True)
class _Cut:
    """What of an image is warped to what part of a square; the corners are inside."""

    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int
    before: int
    """Columns that stay empty before it, and in `behind` those behind it if it is mirrored."""
    behind: int
    above: int


class WindowSource(Source):
    """Batches of a WindowData layer (`src/caffe/layers/window_data_layer.cpp`), in either phase.

    Each batch draws its windows from its number: first those of the background, then
    ``fg_fraction`` of them of objects. Windows are warped to ``crop_size``, with ``context_pad``
    pixels of what is around them; what lies outside of the image is 0. As in Caffe ``scale`` is
    that of window_data_param; that of transform_param is not read.

    Args:
        param: The layer.
        device: Where batches are wanted.
        seed: Of windows and mirrors.

    Raises:
        DataError: The list is missing or damaged, or the layer contradicts itself.
        FormatError: The mean file is missing or damaged.
    """

    def __init__(self, param: LayerParameter, device: torch.device, seed: int) -> None:
        told, transform = param.window_data_param, param.transform_param
        self._where = f"layer '{param.name}' (WindowData)"
        self._told, self._device, self._seed = told, device, seed
        self._size, self._crop = told.batch_size, transform.crop_size
        self._mirror, self._scale = transform.mirror, np.float32(told.scale)
        if not self._crop:
            raise DataError(f"{self._where}: has no crop_size in its transform_param; give it one")
        if 2 * told.context_pad >= self._crop:
            raise DataError(
                f"{self._where}: context_pad {told.context_pad} on both sides leaves nothing of "
                f"crop_size {self._crop}; make it smaller"
            )
        self._mean = self._read_mean(param)
        found = read_windows(told, self._where)
        objects = int(np.float32(self._size) * np.float32(told.fg_fraction))
        if not 0 <= objects <= self._size:
            raise DataError(f"{self._where}: fg_fraction {told.fg_fraction} is not within 0 and 1")
        self._kinds = (found.background,) * (self._size - objects) + (found.foreground,) * objects
        self._files: dict[Path, bytes] = {}
        self._batch = 0

    def _read_mean(self, param: LayerParameter) -> NDArray[np.float32]:
        """What is subtracted, 3 x 1 x 1 or 3 x crop_size x crop_size."""
        told = param.transform_param
        values = list(told.mean_value)
        if not told.HasField("mean_file"):
            if len(values) not in (0, 1, 3):
                raise DataError(
                    f"{self._where}: has {len(values)} mean_value for 3 channels; give one, or one "
                    "for each"
                )
            return np.broadcast_to(np.array(values or [0], np.float32), 3).reshape(3, 1, 1)
        if values:
            raise DataError(f"{self._where}: has mean_file and mean_value; remove one of them")
        mean, crop = read_mean(Path(told.mean_file)), self._crop
        # Caffe takes the offset of the width for both.
        start = (mean.shape[2] - crop) // 2
        part = mean[:, max(start, 0) : start + crop, max(start, 0) : start + crop]
        if part.shape != (3, crop, crop):
            raise DataError(
                f"{self._where}: a square of crop_size {crop} does not fit into the mean image "
                f"{told.mean_file} of {extents(mean.shape)}, from row and column {start} on"
            )
        return part

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shape of the windows, and of their labels."""
        return (self._size, 3, self._crop, self._crop), (self._size,)

    def next(self) -> tuple[Tensor, ...]:
        """Return the next batch; see `Source.next`."""
        draws = draws_for(self._seed, Purpose.CUT, self._batch).integers(0, 2**31, (self._size, 2))
        self._batch += 1
        shapes = self.shapes
        data, labels = np.zeros(shapes[0], np.float32), np.empty(shapes[1], np.float32)
        for place, (windows, draw) in enumerate(zip(self._kinds, draws, strict=True)):
            window = windows[draw[0] % len(windows)]
            self._write(data[place], window, mirrored=self._mirror and bool(draw[1] & 1))
            labels[place] = window.label
        return tuple(torch.from_numpy(top).to(self._device) for top in (data, labels))

    def _write(self, top: NDArray[np.float32], window: Window, *, mirrored: bool) -> None:
        image = self._image(window.image)
        cut = self._cut(window, image.shape[0], image.shape[1])
        part = image[cut.top : cut.bottom + 1, cut.left : cut.right + 1]
        warped = cv2.resize(part, (cut.width, cut.height), interpolation=cv2.INTER_LINEAR)
        pixels = warped[:, ::-1] if mirrored else warped
        start = cut.behind if mirrored else cut.before
        where = (..., slice(cut.above, cut.above + cut.height), slice(start, start + cut.width))
        mean = np.broadcast_to(self._mean, top.shape)[where]
        top[where] = (pixels.transpose(2, 0, 1) - mean) * self._scale

    def _image(self, path: Path) -> NDArray[np.uint8]:
        if self._told.cache_images and path not in self._files and path.is_file():
            self._files[path] = path.read_bytes()
        held = self._files.get(path)
        image = read_image(path) if held is None else decode_image(held, cv2.IMREAD_COLOR)
        if image is None:
            raise DataError(f"{self._where}: the image {path} is not there or is damaged")
        return image

    def _cut(self, window: Window, rows: int, columns: int) -> _Cut:
        """Where a window lies with its context, and where it goes to."""
        crop, told = self._crop, self._told
        cut = _Cut(*window[2:], crop, crop, 0, 0, 0)
        if told.context_pad or told.crop_mode == "square":
            cut = _with_context(
                window, rows, columns, crop, told.context_pad, is_square=told.crop_mode == "square"
            )
        what = f"{self._where}: the window {' '.join(map(str, window[2:]))} of {window.image}"
        if not (0 <= cut.left <= cut.right < columns and 0 <= cut.top <= cut.bottom < rows):
            raise DataError(
                f"{what} does not lie in the image of {rows}x{columns} pixels; correct the list"
            )
        if min(cut.width, cut.height) < 1:
            raise DataError(
                f"{what} would be warped to {cut.height}x{cut.width} pixels; give a larger "
                "crop_size, or leave so narrow a window out"
            )
        return cut

    def seek(self, batch: int) -> None:
        """See `Source.seek`."""
        self._batch = batch

    def close(self) -> None:
        """See `Source.close`."""
        self._files.clear()


def _rounded(value: np.float32) -> int:
    """Half away from zero, as C's ``round``."""
    size = math.floor(abs(float(value)) + 0.5)
    return size if value >= 0 else -size


def _with_context(
    window: Window, rows: int, columns: int, crop: int, pad: int, *, is_square: bool
) -> _Cut:
    """The window widened so that ``pad`` pixels of the square on each side are around it.

    In float32, as ``load_batch`` of Caffe's layer computes.
    """
    scale = np.float32(crop) / np.float32(crop - 2 * pad)
    half_width = np.float32(window.right - window.left + 1) / np.float32(2)
    half_height = np.float32(window.bottom - window.top + 1) / np.float32(2)
    middle = np.float32(window.left) + half_width, np.float32(window.top) + half_height
    if is_square:
        half_width = half_height = max(half_width, half_height)
    left, right, width, before, behind = _along(middle[0], half_width * scale, columns, crop)
    top, bottom, height, above, _ = _along(middle[1], half_height * scale, rows, crop)
    # They may be one more by rounding.
    width, height = min(width, crop - before), min(height, crop - above)
    return _Cut(left, top, right, bottom, width, height, before, behind, above)


def _along(
    middle: np.float32, reach: np.float32, extent: int, crop: int
) -> tuple[int, int, int, int, int]:
    """Along one axis: first and last pixel, how many they become, and empty ones around them."""
    first, last = _rounded(middle - reach), _rounded(middle + reach)
    unclipped = last - first + 1
    lacking, beyond = max(0, -first), max(0, last - extent + 1)
    first, last = first + lacking, last - beyond
    factor = np.float32(crop) / np.float32(unclipped)
    became, before, behind = (
        _rounded(np.float32(count) * factor) for count in (last - first + 1, lacking, beyond)
    )
    return first, last, became, before, behind
