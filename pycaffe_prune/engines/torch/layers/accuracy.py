"""Accuracy: how often the true class is among the best."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup
from pycaffe_prune.formats.axes import canonical_axis

__all__ = ["LAYERS", "Accuracy"]


class Accuracy(Layer):
    """The share of places whose true class is among the ``top_k`` best.

    As `src/caffe/layers/accuracy_layer.cpp` at HEAD has it: a place is right if fewer than
    ``top_k`` classes other than the true one have its score or a better one. So a tie is lost,
    and **where the true class's score is NaN the place counts as right**: look whether the scores
    are finite before believing an accuracy.

    Bottoms: scores, with the classes on ``axis``; labels, one for each place, cut to integers.
    Places with ``ignore_label`` are left out. Tops: the share, shape (); and, if declared, the
    share for each class, shape (classes,). Both are 0 where there is no place.
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings = self.param.accuracy_param
        scores = setup.bottoms[0]
        self._axis = canonical_axis(scores, settings.axis)
        self._classes = scores[self._axis]
        self._top_k = settings.top_k
        self._ignored = settings.ignore_label if settings.HasField("ignore_label") else None
        self._one_a_place = (*scores[: self._axis], 1, *scores[self._axis + 1 :])

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the tops."""
        scores = bottoms[0]
        labels = bottoms[1].long().reshape(self._one_a_place)
        counts = torch.ones_like(labels) if self._ignored is None else labels != self._ignored
        true_scores = scores.gather(self._axis, labels * counts)
        rivals = (scores >= true_scores).sum(self._axis, keepdim=True) - 1
        right = (rivals < self._top_k) * counts
        share = _share(right.sum(), counts.sum())
        if len(self.setup.tops) == 1:
            return (share,)
        classes = torch.arange(self._classes, device=labels.device)
        belongs = (labels.reshape(-1, 1) == classes) * counts.reshape(-1, 1)
        return share, _share((belongs * right.reshape(-1, 1)).sum(0), belongs.sum(0))


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return part.float() / whole.clamp_min(1).float()


LAYERS: Mapping[str, type[Layer]] = {"Accuracy": Accuracy}
"""The layer by Caffe's name of its type."""
