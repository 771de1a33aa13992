"""A net that classifies images of any size, as BVLC's ``python/caffe/classifier.py``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.pycaffe.images import ArrayShapeError, oversample, resize_image
from pycaffe_prune.pycaffe.proto.caffe_pb2 import TEST
from pycaffe_prune.pycaffe.pycaffe import Net
from pycaffe_prune.pycaffe.transformer import image_transformer

__all__ = ["Classifier"]

_oversample = oversample  # `Classifier.predict` has an argument of that name


class Classifier(Net):
    """A net in phase TEST whose first input is images.

    Attributes:
        transformer: What is done to the images; see `Transformer`.
        crop_dims: Height and width of the net's input.
        image_dims: Height and width that images get before they are cropped to `crop_dims`.

    Args:
        model_file: The net's prototxt.
        pretrained_file: Its weights.
        image_dims: See `image_dims`; by default `crop_dims`.
        mean: What is subtracted from the images: see `Transformer.set_mean`.
        input_scale: What they are multiplied by after that.
        raw_scale: What they are multiplied by before it.
        channel_swap: The order of their channels.
    """

    def __init__(
        self,
        model_file: str,
        pretrained_file: str,
        image_dims: Sequence[int] | None = None,
        mean: NDArray[Any] | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        in_ = self.inputs[0]
        shape = self.blobs[in_].data.shape
        self.transformer = image_transformer(in_, shape, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(shape[2:])
        self.image_dims = self.crop_dims if image_dims is None else image_dims

    def predict(
        self, inputs: Sequence[NDArray[Any]], oversample: bool = True
    ) -> NDArray[np.float32]:
        """Return the net's first output for each image.

        Args:
            inputs: Images, height × width × channels.
            oversample: True for the mean over ten crops (see `caffe.io.oversample`), False for the
                crop in the middle.

        Returns:
            Images × classes with ``oversample``; without it the output as it is.

        Raises:
            ArrayShapeError: `image_dims` is smaller than `crop_dims`, or an image has not three
                axes.
        """
        images = [resize_image(image, self.image_dims) for image in inputs]
        crops = (
            _oversample(images, self.crop_dims)
            if oversample
            else np.stack([self._middle(image) for image in images])
        )
        in_ = self.inputs[0]
        ready = np.stack([self.transformer.preprocess(in_, crop) for crop in crops])
        predictions = self.forward_all(None, **{in_: ready})[self.outputs[0]]
        if oversample:
            predictions = predictions.reshape(len(images), 10, -1).mean(axis=1)
        return predictions

    def _middle(self, image: NDArray[Any]) -> NDArray[Any]:
        height, width = self.crop_dims
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        if min(top, left) < 0:
            raise ArrayShapeError(
                f"images of {image.shape[0]} × {image.shape[1]} for a net of {height} × {width}: "
                "image_dims is too small"
            )
        return image[top : top + height, left : left + width]
