"""Losses: layers whose first top is a number to make small, of shape ()."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.engines.torch.layers.normalizer import Normalizer
from pycaffe_prune.engines.torch.layers.softmax import LAYERS as SOFTMAX_LAYERS
from pycaffe_prune.engines.torch.layers.softmax import log_probabilities
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.axes import canonical_axis, extents
from pycaffe_prune.formats.blobs import mapped_file, naming_file, read_blob
from pycaffe_prune.formats.caffe_pb2 import HingeLossParameter, LossParameter

__all__ = [
    "LAYERS",
    "ContrastiveLoss",
    "EuclideanLoss",
    "HingeLoss",
    "InfogainLoss",
    "MultinomialLogisticLoss",
    "SigmoidCrossEntropyLoss",
]

_LOG_THRESHOLD = 1e-20  # kLOG_THRESHOLD of include/caffe/layers/loss_layer.hpp


class EuclideanLoss(Layer):
    """Half the squared distance an image (`src/caffe/layers/euclidean_loss_layer.cpp`)."""

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the loss."""
        first, second = bottoms
        distance = first - second.reshape(first.shape)
        return (distance.square().sum() / (2 * first.shape[0]),)


class SigmoidCrossEntropyLoss(Layer):
    """Cross-entropy of each value's sigmoid.

    As `src/caffe/layers/sigmoid_cross_entropy_loss_layer.cpp`. Bottoms: scores, and targets from 0
    to 1, as many. Targets that, cut to integers, are ``ignore_label`` do not count. Divided by the
    number of images unless ``normalization`` (or the older ``normalize``) says otherwise.
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        images = setup.bottoms[0][0]
        values = torch.Size(setup.bottoms[0]).numel()
        self._normalizer = Normalizer(
            self.param.loss_param, images, values // max(images, 1), LossParameter.BATCH_SIZE
        )

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the loss."""
        scores = bottoms[0]
        targets = bottoms[1].reshape(scores.shape)
        losses = (1 - targets) * scores - functional.logsigmoid(scores)
        counted = self._normalizer.counted(targets.long())
        if counted is not None:
            losses = losses.where(counted, 0)
        return (losses.sum() / self._normalizer(counted),)


class HingeLoss(Layer):
    """One class against each other, L1 or L2 (`src/caffe/layers/hinge_loss_layer.cpp`).

    Bottoms: scores, a row of classes per image; a label per image. The true class's score should
    be above 1, all others below -1.
    """

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the loss."""
        scores = bottoms[0].flatten(1)
        images, classes = scores.shape
        labels = bottoms[1].long().reshape(images, 1)
        is_true = labels == torch.arange(classes, device=labels.device)
        margins = torch.relu(1 + torch.where(is_true, -scores, scores))
        if self.param.hinge_loss_param.norm == HingeLossParameter.L2:
            margins = margins.square()
        return (margins.sum() / images,)


class MultinomialLogisticLoss(Layer):
    """-log of the true class's probability.

    As `src/caffe/layers/multinomial_logistic_loss_layer.cpp`. Bottoms: probabilities, a row of
    classes per image; a label per image. Probabilities below 1e-20 count as that, in the gradient
    too, which autograd over `forward` would make 0.
    """

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the loss."""
        _, picked = self._pick(bottoms)
        return (picked.log().sum() / -len(picked),)

    def _pick(self, bottoms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The labels and the true classes' probabilities, a column each."""
        labels = bottoms[1].long().reshape(-1, 1)
        return labels, bottoms[0].flatten(1).gather(1, labels).clamp_min(_LOG_THRESHOLD)

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the loss, and keep the labels and what `backward` divides by."""
        labels, picked = self._pick(bottoms)
        return (picked.log().sum() / -len(picked),), (labels, picked)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the gradient of the probabilities; see `Layer.backward`."""
        (weight,) = top_diffs
        if weight is None or not propagate[0]:
            return [None, None]
        labels, picked = saved
        shape = self.setup.bottoms[0]
        diff = picked.new_zeros(shape).flatten(1)
        return [diff.scatter(1, labels, weight / picked / -len(picked)).reshape(shape), None]


class InfogainLoss(Layer):
    """Softmax loss with a gain for each pair of classes.

    As `src/caffe/layers/infogain_loss_layer.cpp`. Bottoms: scores with the classes on ``axis`` of
    infogain_loss_param; a label a place; and the gains, classes × classes, a row per true class,
    unless ``source`` names a BlobProto with them.
    Tops: the loss; and, if declared, the probabilities.

    Raises:
        EngineError: There are no gains, or not classes × classes.
        FormatError: ``source`` is missing or damaged.
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        scores = setup.bottoms[0]
        self._axis = canonical_axis(scores, self.param.infogain_loss_param.axis)
        self._classes = scores[self._axis]
        self._places = (*scores[: self._axis], *scores[self._axis + 1 :])
        self._normalizer = Normalizer(
            self.param.loss_param,
            torch.Size(scores[: self._axis]).numel(),
            torch.Size(scores[self._axis + 1 :]).numel(),
            LossParameter.VALID,
        )
        self._gains = None if len(setup.bottoms) == 3 else self._read_gains()

    def _read_gains(self) -> Tensor:
        source = self.param.infogain_loss_param.source
        if not source:
            raise EngineError(
                f"layer '{self.param.name}' (InfogainLoss) has no gains; name a file with them as "
                "infogain_loss_param.source, or give them as its third bottom"
            )
        path, what = Path(source), "a BlobProto with the gains of an InfogainLoss"
        buffer = mapped_file(path, what)
        with naming_file(path, what):
            gains, _ = read_blob(buffer, 0, len(buffer))
        if gains.size != self._classes**2:
            raise EngineError(
                f"{path}: has shape {extents(gains.shape)}; layer '{self.param.name}' "
                f"(InfogainLoss) needs {self._classes}x{self._classes}, as many as its scores of "
                f"shape {extents(self.setup.bottoms[0])} have classes"
            )
        return torch.from_numpy(gains.copy())

    def _gains_for(self, bottoms: Sequence[Tensor]) -> Tensor:
        if self._gains is None:
            return bottoms[2].reshape(self._classes, self._classes)
        if self._gains.device != bottoms[0].device:
            self._gains = self._gains.to(bottoms[0].device)
        return self._gains.view(self._classes, self._classes)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the tops."""
        labels = bottoms[1].long().reshape(self._places)
        counted = self._normalizer.counted(labels)
        if counted is not None:
            labels = labels * counted
        gains = self._gains_for(bottoms)[labels].movedim(-1, self._axis)
        gained = (gains * log_probabilities(bottoms[0], self._axis, _LOG_THRESHOLD)).sum(self._axis)
        if counted is not None:
            gained = gained.where(counted, 0)
        loss = -gained.sum() / self._normalizer(counted)
        return (loss, bottoms[0].softmax(self._axis))[: len(self.setup.tops)]


class ContrastiveLoss(Layer):
    """Draws pairs together or apart (`src/caffe/layers/contrastive_loss_layer.cpp`).

    Bottoms: two rows of channels per pair, and a label: other than 0 if the two are alike. The
    gradient of pairs that are not alike is Caffe's, which adds 1e-4 to their distance.
    """

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the loss."""
        first, second, labels = bottoms
        difference = (first - second).flatten(1)
        alike = labels.long().flatten() != 0
        apart = torch.relu(self._margin_left(difference))
        if not self.param.contrastive_loss_param.legacy_version:
            apart = apart.square()
        losses = torch.where(alike, difference.square().sum(1), apart)
        return (losses.sum() / (2 * len(difference)),)

    def _margin_left(self, difference: Tensor) -> Tensor:
        settings = self.param.contrastive_loss_param
        if settings.legacy_version:
            return settings.margin - difference.square().sum(1)
        distance: Tensor = torch.linalg.vector_norm(difference, dim=1)
        return settings.margin - distance

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the loss, and keep what `backward` needs."""
        difference = (bottoms[0] - bottoms[1]).flatten(1)
        return self.forward(bottoms, params), (difference, bottoms[2].long().flatten() != 0)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the gradients of both rows; see `Layer.backward`."""
        (weight,) = top_diffs
        if weight is None:
            return [None] * 3
        difference, alike = saved
        settings = self.param.contrastive_loss_param
        left = self._margin_left(difference)
        push = -torch.ones_like(left)
        if not settings.legacy_version:
            push = -left / (settings.margin - left + 1e-4)
        factors = torch.where(alike, 1.0, push.where(left > 0, 0)) * (weight / len(difference))
        diff = (factors.unsqueeze(1) * difference).reshape(self.setup.bottoms[0])
        return [diff if propagate[0] else None, -diff if propagate[1] else None, None]


LAYERS: Mapping[str, type[Layer]] = {
    **SOFTMAX_LAYERS,
    "ContrastiveLoss": ContrastiveLoss,
    "EuclideanLoss": EuclideanLoss,
    "HingeLoss": HingeLoss,
    "InfogainLoss": InfogainLoss,
    "MultinomialLogisticLoss": MultinomialLogisticLoss,
    "SigmoidCrossEntropyLoss": SigmoidCrossEntropyLoss,
}
"""The losses, and Softmax, by Caffe's names of their types."""
