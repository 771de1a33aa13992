"""What `src/caffe/data_transformer.cpp` does to images: crop, mirror, mean, scale."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pycaffe_prune.engines.torch.data.draws import Purpose, draws_for
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter
from pycaffe_prune.formats.datum import Pixels
from pycaffe_prune.formats.mean import read_mean

__all__ = ["Draws", "Transformer"]

Draws = NDArray[np.int64]
"""Three random numbers per image: for mirror, row and column; shape (images, 3)."""


class Transformer:
    """Turns images into (pixel - mean) * scale, cut to ``crop_size`` and mirrored.

    In the phase TRAIN an image is cut out at random, else from the middle; with ``mirror`` every
    second one (at random, in both phases) is mirrored. The mean is that of the pixel's place
    before both. What is drawn for a batch depends on the seed and on the batch's number.

    Args:
        param: The data layer.
        phase: TRAIN or TEST.
        shape: Channels, height and width of the first image.
        device: Where `normalised` works.
        seed: Of crops and mirrors.

    Raises:
        DataError: The images do not fit to ``crop_size`` or to the mean.
        FormatError: The mean file is missing or damaged.
    """

    def __init__(
        self, param: LayerParameter, phase: int, shape: Shape, device: torch.device, seed: int
    ) -> None:
        told = param.transform_param
        self._where = f"layer '{param.name}' ({param.type})"
        self._crop, self._mirror = told.crop_size, told.mirror
        self._at_random = bool(told.crop_size) and phase == TRAIN
        self._scale, self._seed = told.scale, seed
        self._image_mean: NDArray[np.float32] | None = None
        if told.HasField("mean_file"):
            if told.mean_value:
                raise DataError(f"{self._where}: has mean_file and mean_value; remove one of them")
            self._image_mean = read_mean(Path(told.mean_file))
        self._mean_file, self._channel_means = told.mean_file, len(told.mean_value)
        self._first = shape
        self.require_fitting(shape)
        channels, height, width = shape
        self.shape: Shape = (channels, self._crop or height, self._crop or width)
        """Channels, height and width of what comes out."""
        mean: Tensor | None = None
        if self._image_mean is not None:
            mean = torch.from_numpy(np.array(self._image_mean))
        elif told.mean_value:
            mean = torch.tensor(list(told.mean_value)).reshape(-1, 1, 1)
        self._mean = mean if mean is None else mean.to(device)

    @property
    def draws(self) -> bool:
        """Whether anything is drawn at random."""
        return self._mirror or self._at_random

    def require_fitting(self, shape: Shape) -> None:
        """Refuse an image that this cannot transform.

        Raises:
            DataError: It is smaller than ``crop_size``; or of another shape than the mean, or, when
                nothing is cut, than the first image; or has other channels.
        """
        channels, height, width = shape
        crop = self._crop
        if crop > min(height, width):
            raise DataError(
                f"{self._where}: crop_size {crop} does not fit into an image of {extents(shape)}; "
                "use a smaller one, or larger images"
            )
        if self._image_mean is not None and self._image_mean.shape != shape:
            raise DataError(
                f"{self._where}: an image is {extents(shape)}, the mean image {self._mean_file} is "
                f"{extents(self._image_mean.shape)}; use the mean of these images"
            )
        if self._channel_means not in (0, 1, channels):
            raise DataError(
                f"{self._where}: has {self._channel_means} mean_value for images of {channels} "
                "channels; give one, or one for each"
            )
        if channels != self._first[0] or (not crop and shape != self._first):
            raise DataError(
                f"{self._where}: an image is {extents(shape)}, the first one is "
                f"{extents(self._first)}; bring all to one size, or (if only the sizes differ) "
                "give a crop_size"
            )

    def draw(self, batch: int, images: int) -> Draws | None:
        """Return what is drawn for a batch; None when nothing is random."""
        if not self.draws:
            return None
        return draws_for(self._seed, Purpose.CUT, batch).integers(0, 2**31, (images, 3))

    def cut(self, pixels: Pixels, draw: NDArray[np.int64] | None) -> Pixels:
        """Return the part of one image that is used, mirrored if so drawn; a view.

        Args:
            pixels: channels × height × width.
            draw: One row of what `draw` gave.
        """
        _, high, wide = self.shape
        top, left = self._corner(pixels.shape, draw)
        part = pixels[:, top : top + high, left : left + wide]
        return part[:, :, ::-1] if self._mirrored(draw) else part

    def cut_all(self, images: Tensor, draws: Draws | None) -> Tensor:
        """Return the parts of many images of one shape that are used.

        Args:
            images: Of any dtype, images × channels × height × width; with one image that stands for
                all, 1 × channels × height × width.
            draws: What `draw` gave.

        Returns:
            The parts, on the device of ``images``; a view when nothing was drawn.
        """
        if draws is None and not self._crop:
            return images
        if draws is None:
            _, high, wide = self.shape
            top, left = self._corner(images.shape[1:], None)
            return images[:, :, top : top + high, left : left + wide]
        if images.device.type == "cpu":
            return self._copied(images, draws)
        return self._gathered(images, draws)

    def _copied(self, images: Tensor, draws: Draws) -> Tensor:
        """`cut_all` image by image: four times as fast as an index per pixel on a CPU."""
        held = images.numpy()
        parts = np.empty((len(draws), *self.shape), held.dtype)
        for place, draw in enumerate(draws):
            parts[place] = self.cut(held[place if len(held) > 1 else 0], draw)
        return torch.from_numpy(parts)

    def _gathered(self, images: Tensor, draws: Draws) -> Tensor:
        """`cut_all` in one kernel, whatever was drawn."""
        channels, high, wide = self.shape
        height, width = images.shape[2:]
        tops = np.full(len(draws), (height - high) // 2)
        lefts = np.full(len(draws), (width - wide) // 2)
        if self._at_random:
            tops, lefts = draws[:, 1] % (height - high + 1), draws[:, 2] % (width - wide + 1)
        rows = tops[:, None] + np.arange(high)
        columns = lefts[:, None] + np.arange(wide)
        if self._mirror:
            columns = np.where(draws[:, :1] & 1, columns[:, ::-1], columns)
        # One copy to the device: each costs more than the few kilobytes in it. It is pinned, for a
        # copy of other memory waits until the device has done all that it was given before.
        here = torch.from_numpy(np.concatenate([rows, columns], 1))
        if images.device.type == "cuda":
            here = here.pin_memory()
        places = here.to(images.device, non_blocking=True)
        rows_there, columns_there = places[:, None, :high, None], places[:, None, None, high:]
        each = torch.arange(len(draws), device=images.device) % len(images)
        channel = torch.arange(channels, device=images.device)
        return images[
            each[:, None, None, None], channel[None, :, None, None], rows_there, columns_there
        ]

    def normalised(self, parts: Tensor, draws: Draws | None) -> Tensor:
        """Return (part - mean) * scale.

        Args:
            parts: What `cut_all` (or `cut`, stacked) gave, on the device; uint8 or float32.
            draws: What was drawn for them.

        Returns:
            float32, of the same shape; new memory.
        """
        if self._mean is None:
            values = parts.to(torch.float32, copy=True)
        elif self._image_mean is None:
            values = torch.sub(parts, self._mean)
        else:
            values = torch.sub(parts, self.cut_all(self._mean[None], draws))
        return values if self._scale == 1 else values.mul_(self._scale)

    def _corner(self, shape: Shape, draw: NDArray[np.int64] | None) -> tuple[int, int]:
        _, height, width = shape
        _, high, wide = self.shape
        if self._at_random and draw is not None:
            return int(draw[1] % (height - high + 1)), int(draw[2] % (width - wide + 1))
        return (height - high) // 2, (width - wide) // 2

    def _mirrored(self, draw: NDArray[np.int64] | None) -> bool:
        return self._mirror and draw is not None and bool(draw[0] & 1)
