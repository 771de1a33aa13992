"""Layers that multiply by a matrix: InnerProduct and Embed."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.formats.axes import canonical_axis

__all__ = ["LAYERS", "Embed", "InnerProduct"]


class InnerProduct(Layer):
    """y = x·Wᵀ + b (`src/caffe/layers/inner_product_layer.cpp`).

    The bottom's axes from ``axis`` on are one row of K values; the weight is N x K, with
    ``transpose`` K x N.
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings, (bottom,) = setup.param.inner_product_param, setup.bottoms
        axis = canonical_axis(bottom, settings.axis)
        self._rows = (math.prod(bottom[:axis]), math.prod(bottom[axis:]))
        self._products = (self._rows[0], settings.num_output)
        self._transpose = settings.transpose

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top; see `Layer.forward`."""
        rows = bottoms[0].reshape(self._rows)
        weight = params[0] if self._transpose else params[0].t()
        top = rows @ weight if len(params) == 1 else torch.addmm(params[1], rows, weight)
        return (top.view(self.setup.tops[0]),)

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top; keep the bottom, as rows, and the weight."""
        rows = bottoms[0].reshape(self._rows)
        return self.forward((rows,), params), (rows, params[0])

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the bottom's gradient and add those of weight and bias; see `Layer.backward`."""
        if top_diffs[0] is None:
            return [None]
        rows, weight = saved
        diff = top_diffs[0].reshape(self._products)
        weight_diff, bias_diff = (*param_diffs, None)[:2]
        if weight_diff is not None:
            if self._transpose:
                weight_diff.addmm_(rows.t(), diff)
            else:
                weight_diff.addmm_(diff.t(), rows)
        if bias_diff is not None:
            bias_diff.add_(diff.sum(0))
        if not propagate[0]:
            return [None]
        bottom_diff = diff @ (weight.t() if self._transpose else weight)
        return [bottom_diff.view(self.setup.bottoms[0])]


class Embed(Layer):
    """A row of the weight per index, plus b (`src/caffe/layers/embed_layer.cpp`).

    The weight is input_dim x num_output. No gradient goes to the indices.
    """

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top, one axis of ``num_output`` longer than the bottom.

        Raises:
            IndexError: An index is not from 0 to ``input_dim`` - 1.
        """
        top = functional.embedding(bottoms[0].long(), params[0])
        return (top if len(params) == 1 else top + params[1],)


LAYERS: Mapping[str, type[Layer]] = {"Embed": Embed, "InnerProduct": InnerProduct}
