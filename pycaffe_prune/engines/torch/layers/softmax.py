"""Softmax, and the loss over it."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.engines.torch.layers.normalizer import Normalizer
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.axes import canonical_axis, extents
from pycaffe_prune.formats.caffe_pb2 import LossParameter

__all__ = ["LAYERS", "Softmax", "SoftmaxWithLoss", "log_probabilities"]

_FLT_MIN = torch.finfo(torch.float32).tiny

_softmax_backward: Callable[[Tensor, Tensor, int, torch.dtype], Tensor] = (
    torch.ops.aten._softmax_backward_data.default
)


def log_probabilities(scores: Tensor, axis: int, least: float) -> Tensor:
    """Return log(max(softmax, least)) with the gradient of log(softmax), as Caffe's losses have it.

    Args:
        scores: float32, the classes on ``axis``.
        axis: Counted from the front.
        least: Above 0.
    """
    logs = scores.log_softmax(axis)
    return logs + (math.log(least) - logs).clamp_min(0).detach()


class Softmax(Layer):
    """exp(x) over its sum along ``axis`` (`src/caffe/layers/softmax_layer.cpp`)."""

    keeps_top = True

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        self._axis = canonical_axis(setup.bottoms[0], self.param.softmax_param.axis)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top."""
        return (bottoms[0].softmax(self._axis),)

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top and keep it."""
        tops = self.forward(bottoms, params)
        return tops, tops

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the gradient of the bottom; see `Layer.backward`."""
        (diff,) = top_diffs
        if diff is None or not propagate[0]:
            return [None]
        return [_softmax_backward(diff, saved[0], self._axis, diff.dtype)]


class SoftmaxWithLoss(Layer):
    """Cross-entropy of the softmax (`src/caffe/layers/softmax_loss_layer.cpp`).

    -Σ log(max(p of the true class, FLT_MIN)) over what ``loss_param`` says (see `Normalizer`).

    Bottoms: scores, float32, with the classes on ``axis`` of softmax_param; labels, one for each
    place, cut to integers. Tops: the loss, shape (); and, if declared, the probabilities, in the
    shape of the scores. A gradient of theirs is left out, as the source has it; Caffe's builds of
    2018 do not get there: with two tops a CHECK of the loss weights fails.

    Raises:
        DataError: In a forward pass on a CPU: a label names no class. On a GPU CUDA ends the
            process there.
    """

    keeps_top = True  # the probabilities

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        scores = setup.bottoms[0]
        self._axis = canonical_axis(scores, self.param.softmax_param.axis)
        outer, inner = scores[: self._axis], scores[self._axis + 1 :]
        self._one_a_place = (*outer, 1, *inner)
        self._normalizer = Normalizer(
            self.param.loss_param,
            math.prod(outer),
            math.prod(inner),
            LossParameter.VALID,
        )

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the tops."""
        scores = bottoms[0]
        labels, counted = self._labels(bottoms[1])
        logs = self._pick(log_probabilities(scores, self._axis, _FLT_MIN), labels)
        if counted is not None:
            logs = logs.where(counted, 0)
        loss = logs.sum() / -self._normalizer(counted)
        return (loss, scores.softmax(self._axis))[: len(self.setup.tops)]

    def _labels(self, bottom: Tensor) -> tuple[Tensor, Tensor | None]:
        """The labels as integers, 0 where they do not count, and where they do (None: everywhere).

        Both with one label on the axis of the classes.
        """
        labels = bottom.long().reshape(self._one_a_place)
        counted = self._normalizer.counted(labels)
        return (labels if counted is None else labels * counted), counted

    def _pick(self, values: Tensor, labels: Tensor) -> Tensor:
        """The values of the true classes."""
        try:
            return values.gather(self._axis, labels)
        except RuntimeError as error:
            classes = values.shape[self._axis]
            wrong = labels[(labels < 0) | (labels >= classes)]
            if not len(wrong):
                raise
            raise DataError(
                f"layer '{self.param.name}' (SoftmaxWithLoss) reads the label {int(wrong[0])}, but "
                f"its scores of shape {extents(values.shape)} have {classes} classes, from 0 on; "
                "check num_output, the data's labels and ignore_label"
            ) from error

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the tops, and keep the probabilities and labels."""
        probabilities = bottoms[0].softmax(self._axis)
        labels, counted = self._labels(bottoms[1])
        logs = self._pick(probabilities, labels).clamp_min_(_FLT_MIN).log_()
        if counted is None:
            saved: Saved = (probabilities, labels)
        else:
            saved = (probabilities, labels, counted)
            logs = logs.where(counted, 0)
        loss = logs.sum().div_(-self._normalizer(counted))
        return (loss, probabilities)[: len(self.setup.tops)], saved

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the gradient of the scores; see `Layer.backward`."""
        weight = top_diffs[0]
        if weight is None or not propagate[0]:
            return [None, None]
        probabilities, labels, *rest = saved
        counted = rest[0] if rest else None
        diff = probabilities.scatter(self._axis, labels, -1.0, reduce="add")
        if counted is not None:
            diff.mul_(counted)
        return [diff.mul_(weight / self._normalizer(counted)), None]

    def curvature(self, saved: Saved, weight: Tensor) -> Tensor:
        """Return the second derivative of the weighted loss by each score, p(1 - p) of its place.

        Args:
            saved: From `forward_saving`.
            weight: Of the loss.
        """
        probabilities, _, *rest = saved
        counted = rest[0] if rest else None
        second = probabilities * (1 - probabilities)
        if counted is not None:
            second.mul_(counted)
        return second.mul_(weight / self._normalizer(counted))


LAYERS: Mapping[str, type[Layer]] = {"Softmax": Softmax, "SoftmaxWithLoss": SoftmaxWithLoss}
"""The layers of this module by Caffe's names of their types."""
