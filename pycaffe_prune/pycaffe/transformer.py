"""`Transformer`: images as a net takes them, and a net's inputs as images again."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe.images import ArrayShapeError, resize_image

__all__ = ["Transformer", "TransformerError", "image_transformer"]


class TransformerError(PruneError):
    """A Transformer was set up for an input that it does not have, or with an order of it."""


class Transformer:
    """What is done to the images of each input of a net before it sees them.

    In this order: resizing, ``transpose``, ``channel_swap``, ``raw_scale``, ``mean`` and
    ``input_scale``; what is not set is not done.

    Attributes:
        inputs: The shape of each input: images × channels × height × width.
        transpose: The order of an image's axes, by input, and so the further ones.
        channel_swap: The order of its channels.
        raw_scale: What its values are multiplied by.
        mean: What is subtracted then.
        input_scale: What the rest is multiplied by.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = inputs
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, NDArray[Any]] = {}
        self.input_scale: dict[str, float] = {}

    def preprocess(self, in_: str, data: NDArray[Any]) -> NDArray[np.float32]:
        """Return an image as the net takes it.

        Unlike pycaffe's it never writes into ``data``.

        Args:
            in_: The name of an input.
            data: Height × width × channels, before ``transpose``.

        Returns:
            Channels × height × width.

        Raises:
            TransformerError: There is no such input.
        """
        shape = self._shape(in_)
        image = data.astype(np.float32)
        if image.shape[:2] != shape[2:]:
            image = resize_image(image, shape[2:])
        if in_ in self.transpose:
            image = image.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            image = image[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            image *= self.raw_scale[in_]
        if in_ in self.mean:
            image -= self.mean[in_]
        if in_ in self.input_scale:
            image *= self.input_scale[in_]
        return image

    def deprocess(self, in_: str, data: NDArray[Any]) -> NDArray[Any]:
        """Return an input of the net as the image that it was; its size stays.

        Args:
            in_: The name of an input.
            data: Channels × height × width, and any axes of length 1 besides; floats.

        Returns:
            Height × width × channels, the dtype of ``data``.

        Raises:
            TransformerError: There is no such input.
        """
        self._shape(in_)
        image = data.copy().squeeze()
        if in_ in self.input_scale:
            image /= self.input_scale[in_]
        if in_ in self.mean:
            image += self.mean[in_]
        if in_ in self.raw_scale:
            image /= self.raw_scale[in_]
        if in_ in self.channel_swap:
            image = image[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            image = image.transpose(np.argsort(self.transpose[in_]))
        return image

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of an image's axes: (2, 0, 1) makes channels the first of them.

        Raises:
            TransformerError: There is no such input, or it has not as many axes.
        """
        axes = len(self._shape(in_)) - 1
        if len(order) != axes:
            raise TransformerError(
                f"transpose of {in_}: an order of {len(order)} axes, and the input has {axes}"
            )
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of the channels: (2, 1, 0) makes BGR of RGB.

        Raises:
            TransformerError: There is no such input, or it has not as many channels.
        """
        channels = self._shape(in_)[1]
        if len(order) != channels:
            raise TransformerError(
                f"channel_swap of {in_}: an order of {len(order)} channels, and the input has "
                f"{channels}"
            )
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Set what values are multiplied by before the mean is subtracted: 255 for most nets.

        Raises:
            TransformerError: There is no such input.
        """
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: NDArray[Any]) -> None:
        """Set what is subtracted from the values.

        Args:
            in_: The name of an input.
            mean: One value a channel; or an image, channels × height × width or height × width,
                which is resized where the input is of another size.

        Raises:
            TransformerError: There is no such input.
            ArrayShapeError: The mean has other channels than the input, or other axes than these.
        """
        shape = self._shape(in_)
        if mean.ndim == 1:
            if len(mean) != shape[1]:
                raise ArrayShapeError(
                    f"the mean of {in_} has {len(mean)} channels, and the input has {shape[1]}"
                )
            self.mean[in_] = mean[:, np.newaxis, np.newaxis]
            return
        if mean.ndim not in (2, 3):
            raise ArrayShapeError(
                f"the mean of {in_} is of shape {mean.shape}: it has one value a channel, or is "
                "height × width or channels × height × width"
            )
        image = mean if mean.ndim == 3 else mean[np.newaxis]
        if image.shape[0] not in (1, shape[1]):
            raise ArrayShapeError(
                f"the mean of {in_} has {image.shape[0]} channels, and the input has {shape[1]}"
            )
        if image.shape[1:] != shape[2:]:
            mean = resize_image(image.transpose(1, 2, 0), shape[2:]).transpose(2, 0, 1)
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Set what values are multiplied by at the end.

        Raises:
            TransformerError: There is no such input.
        """
        self._shape(in_)
        self.input_scale[in_] = scale

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            known = ", ".join(self.inputs)
            raise TransformerError(f"{in_} is not one of the net's inputs: {known}")
        return tuple(self.inputs[in_])


def image_transformer(
    in_: str,
    shape: Sequence[int],
    mean: NDArray[Any] | None = None,
    input_scale: float | None = None,
    raw_scale: float | None = None,
    channel_swap: Sequence[int] | None = None,
) -> Transformer:
    """Return what makes images (height × width × channels) inputs of a net, `Classifier`'s way.

    Args:
        in_: The name of the input.
        shape: The input's shape: images × channels × height × width.
        mean: See `Transformer.set_mean`; None for none, as all that follows.
        input_scale: See `Transformer.set_input_scale`.
        raw_scale: See `Transformer.set_raw_scale`.
        channel_swap: See `Transformer.set_channel_swap`.

    Raises:
        TransformerError: The input is no image, or the order has not as many channels.
        ArrayShapeError: The mean does not fit the input.
    """
    transformer = Transformer({in_: shape})
    transformer.set_transpose(in_, (2, 0, 1))
    if mean is not None:
        transformer.set_mean(in_, mean)
    if input_scale is not None:
        transformer.set_input_scale(in_, input_scale)
    if raw_scale is not None:
        transformer.set_raw_scale(in_, raw_scale)
    if channel_swap is not None:
        transformer.set_channel_swap(in_, channel_swap)
    return transformer
