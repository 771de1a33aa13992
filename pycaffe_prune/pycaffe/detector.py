"""A net that classifies windows of images, as BVLC's ``python/caffe/detector.py``."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe import io
from pycaffe_prune.pycaffe.proto.caffe_pb2 import TEST
from pycaffe_prune.pycaffe.pycaffe import Net
from pycaffe_prune.pycaffe.transformer import image_transformer

__all__ = ["Detector", "WindowError"]

_Window = Sequence[int] | NDArray[Any]
"""ymin, xmin, ymax, xmax."""


class WindowError(PruneError, ValueError):
    """A window has nothing of its image in it, or nobody is there to propose windows."""


class Detector(Net):
    """A net in phase TEST whose first input is windows of images.

    Attributes:
        transformer: What is done to the windows; see `Transformer`.
        crop_dims: Height, width and channels of the net's input.
        context_pad: How many pixels around a window's own are its surroundings, None for none.
        crop_mean: What stands beyond the image's edges, as an image before preprocessing.

    Args:
        model_file: The net's prototxt.
        pretrained_file: Its weights.
        mean: What is subtracted from the windows: see `Transformer.set_mean`.
        input_scale: What they are multiplied by after that.
        raw_scale: What they are multiplied by before it.
        channel_swap: The order of their channels.
        context_pad: See `context_pad`.
    """

    crop_mean: NDArray[Any]

    def __init__(
        self,
        model_file: str,
        pretrained_file: str,
        mean: NDArray[Any] | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        in_ = self.inputs[0]
        self.transformer = image_transformer(
            in_, self.blobs[in_].data.shape, mean, input_scale, raw_scale, channel_swap
        )
        self.configure_crop(context_pad)

    def detect_windows(
        self, images_windows: Iterable[tuple[str | Path, Sequence[_Window]]]
    ) -> list[dict[str, Any]]:
        """Return the net's first output for each window.

        Args:
            images_windows: The name of each image's file and its windows.

        Returns:
            A dict a window: ``window``, ``prediction`` (one image's output) and ``filename``.

        Raises:
            ImageFileError: An image cannot be read.
            WindowError: A window has nothing of its image in it.
        """
        found = []
        crops = []
        in_ = self.inputs[0]
        for filename, windows in images_windows:
            image = io.load_image(filename)
            for window in windows:
                found.append({"window": window, "filename": filename})
                crops.append(self.transformer.preprocess(in_, self.crop(image, window)))
        if not crops:
            return []
        predictions = self.forward_all(None, **{in_: np.stack(crops)})[self.outputs[0]]
        return [
            each | {"prediction": prediction}
            for each, prediction in zip(found, predictions, strict=True)
        ]

    def detect_selective_search(self, image_fnames: Iterable[str | Path]) -> list[dict[str, Any]]:
        """Refuse: selective search is a MATLAB program of its own.

        Raises:
            WindowError: Always.
        """
        raise WindowError(
            "selective search proposes windows in MATLAB, which is not part of this module: give "
            "the windows of " + ", ".join(map(str, image_fnames)) + " to detect_windows"
        )

    def crop(self, im: NDArray[Any], window: _Window) -> NDArray[Any]:
        """Return a window of an image, with `context_pad` pixels of surroundings in the input.

        Args:
            im: Height × width × channels.
            window: ymin, xmin, ymax, xmax.

        Returns:
            Height × width × channels: as large as the window, or with `context_pad` as `crop_dims`.

        Raises:
            WindowError: The window has nothing of the image in it.
        """
        box = np.array(window, int)
        if not self.context_pad:
            crop = im[box[0] : box[2], box[1] : box[3]]
            if crop.size == 0:
                raise _empty(window, im)
            return crop
        size = self.crop_dims[:2]
        wide = _widened(box, self.blobs[self.inputs[0]].width, self.context_pad)
        scale = size / (wide[2:] - wide[:2] + 1)
        pad = np.round(np.maximum(0, -wide[:2]) * scale).astype(int)
        box = np.clip(wide, 0, [*im.shape[:2]] * 2)
        inside = np.round((box[2:] - box[:2] + 1) * scale).astype(int)
        height, width = np.minimum(inside, size - pad)
        context = im[box[0] : box[2], box[1] : box[3]]
        if context.size == 0 or min(height, width) < 1:
            raise _empty(window, im)
        crop = np.broadcast_to(self.crop_mean, self.crop_dims).astype(np.float32)
        top, left = pad
        crop[top : top + height, left : left + width] = io.resize_image(context, (height, width))
        return crop

    def configure_crop(self, context_pad: int | None) -> None:
        """Set `context_pad`, and `crop_dims` and `crop_mean` by the net's input and the mean.

        Raises:
            WindowError: The surroundings leave no place for a window in the input.
        """
        in_ = self.inputs[0]
        channels, height, width = self.blobs[in_].data.shape[1:]
        self.crop_dims = np.array([height, width, channels])
        self.context_pad = context_pad
        if not context_pad:
            return
        if 2 * context_pad >= width:
            raise WindowError(f"context_pad {context_pad} leaves nothing of an input {width} wide")
        mean = self.transformer.mean.get(in_)
        if mean is None:
            self.crop_mean = np.zeros(self.crop_dims, np.float32)
            return
        order = self.transformer.channel_swap.get(in_, range(channels))
        mean = np.broadcast_to(mean, (channels, *np.shape(mean)[-2:]))
        self.crop_mean = mean.transpose(1, 2, 0)[:, :, np.argsort(order)]
        self.crop_mean = self.crop_mean / self.transformer.raw_scale.get(in_, 1)


def _widened(box: NDArray[Any], size: int, context_pad: int) -> NDArray[np.int_]:
    """Return a window with its surroundings, which may reach beyond the image."""
    halves = (box[2:] - box[:2] + 1) / 2
    reach = halves * size / (size - 2 * context_pad)
    middle = box[:2] + halves
    return np.round(np.concatenate([middle - reach, middle + reach])).astype(int)


def _empty(window: _Window, im: NDArray[Any]) -> WindowError:
    return WindowError(
        f"window {list(window)} has nothing of its image of {im.shape[0]} × {im.shape[1]} in it"
    )
