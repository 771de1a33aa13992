"""What a loss is divided by."""

from torch import Tensor

from pycaffe_prune.formats.caffe_pb2 import LossParameter

__all__ = ["Normalizer"]


class Normalizer:
    """What ``loss_param`` says that a loss is divided by: ``GetNormalizer`` of Caffe's losses.

    VALID: the places that count; FULL: all places; BATCH_SIZE: the outer ones; NONE: 1. Never
    less than 1. An older ``normalize`` alone means VALID if true, else BATCH_SIZE
    (`src/caffe/layers/softmax_loss_layer.cpp`).

    Args:
        param: Of the layer.
        outer: The places before the axis of the classes, multiplied: mostly the images.
        inner: The places after it, multiplied.
        default: The mode when ``param`` names none.
    """

    def __init__(
        self,
        param: LossParameter,
        outer: int,
        inner: int,
        default: LossParameter.NormalizationMode,
    ) -> None:
        if param.HasField("normalization"):
            mode = param.normalization
        elif param.HasField("normalize"):
            mode = LossParameter.VALID if param.normalize else LossParameter.BATCH_SIZE
        else:
            mode = default
        self._ignored = param.ignore_label if param.HasField("ignore_label") else None
        self._counts_valid = mode == LossParameter.VALID and self._ignored is not None
        full = {LossParameter.BATCH_SIZE: outer, LossParameter.NONE: 1}.get(mode, outer * inner)
        self._fixed = max(full, 1)

    def counted(self, labels: Tensor) -> Tensor | None:
        """Return which integer labels count; None if all do, as there is no ``ignore_label``."""
        return None if self._ignored is None else labels != self._ignored

    def __call__(self, counted: Tensor | None) -> Tensor | int:
        """Return the divisor for the labels that `counted` told of.

        A tensor of shape () where it depends on the labels, so that none need leave the device.
        """
        if self._counts_valid and counted is not None:
            return counted.sum().clamp_min(1)
        return self._fixed
