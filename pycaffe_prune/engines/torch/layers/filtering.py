"""Layers that let some of a batch's images pass."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer, Saved

__all__ = ["LAYERS", "Filter"]


class Filter(Layer):
    """The images whose selector is not 0 (`src/caffe/layers/filter_layer.cpp`).

    Bottoms: blobs of one first extent, and the selector, a number for each of their images. Tops:
    one for each of the other bottoms, with as many images as pass, which may be none. The selector
    gets no gradient.
    """

    def _picked(self, bottoms: Sequence[Tensor]) -> Tensor:
        return torch.nonzero(bottoms[-1].detach().flatten()).flatten()

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the tops."""
        picked = self._picked(bottoms)
        return tuple(bottom.index_select(0, picked) for bottom in bottoms[:-1])

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the tops; keep the numbers of the images that pass."""
        picked = self._picked(bottoms)
        return tuple(bottom.index_select(0, picked) for bottom in bottoms[:-1]), (picked,)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the gradients of the bottoms: 0 for images that do not pass."""
        (picked,) = saved
        shapes = self.setup.bottoms[:-1]
        found = [
            diff.new_zeros(shape).index_copy(0, picked, diff)
            if diff is not None and wanted
            else None
            for diff, shape, wanted in zip(top_diffs, shapes, propagate, strict=False)
        ]
        return [*found, None]


LAYERS: Mapping[str, type[Layer]] = {"Filter": Filter}
