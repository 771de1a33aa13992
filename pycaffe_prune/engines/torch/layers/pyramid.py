"""Spatial pyramid pooling."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.engines.torch.layers.pooling import (
    StochasticPooling,
    pooling,
    sums_at,
    values_at,
)
from pycaffe_prune.engines.torch.layers.random import RandomLayer
from pycaffe_prune.formats.caffe_pb2 import TRAIN, SPPParameter
from pycaffe_prune.net.shape_pyramid import levels

__all__ = ["LAYERS", "PyramidPooling", "StochasticPyramidPooling", "pyramid_pooling"]


def _setups(setup: LayerSetup) -> list[LayerSetup]:
    return [
        LayerSetup(level, setup.bottoms, (top,), setup.phase)
        for level, top in levels(setup.param, setup.bottoms[0])
    ]


class PyramidPooling(Layer):
    """Pools over grids of 1, 2, 4, ... windows a side (`src/caffe/layers/spp_layer.cpp`).

    Bottom: N x C x H x W. Top: the levels' pools, flattened, one after the other; with a
    ``pyramid_height`` of 1 the only one as it is.
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        self._levels = [pooling(level) for level in _setups(setup)]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the top."""
        pooled = [level.forward(bottoms, params)[0].flatten(1) for level in self._levels]
        return (torch.cat(pooled, 1).reshape(self.setup.tops[0]),)


class StochasticPyramidPooling(PyramidPooling, RandomLayer):
    """A pyramid of `StochasticPooling`.

    In TEST each level is the mean that its draws expect. Caffe's pools inside of the layer know of
    no phase, and draw there too.
    """

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        self._drawing = [StochasticPooling(level) for level in _setups(setup)]

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the top, in TRAIN by new draws, whose places are kept."""
        if self.setup.phase != TRAIN:
            return super().forward_saving(bottoms, params)
        generator = self.generator_on(bottoms[0].device)
        drawn = []
        for level in self._drawing:
            level.generator = generator
            drawn.append(level.drawn_places(bottoms[0]).flatten(2))
        picked = [values_at(bottoms[0], places).flatten(1) for places in drawn]
        return (torch.cat(picked, 1).reshape(self.setup.tops[0]),), tuple(drawn)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the bottom's gradient; see `Layer.backward`."""
        if self.setup.phase != TRAIN:
            return super().backward(saved, top_diffs, propagate, param_diffs)
        if top_diffs[0] is None or not propagate[0]:
            return [None]
        sizes = [places.shape[1] * places.shape[2] for places in saved]
        parts = top_diffs[0].flatten(1).split_with_sizes(sizes, 1)
        values = [part.reshape(places.shape) for part, places in zip(parts, saved, strict=True)]
        return [sums_at(torch.cat(values, 2), torch.cat(saved, 2), self.setup.bottoms[0])]


def pyramid_pooling(setup: LayerSetup) -> Layer:
    """Make the SPP layer that the settings ask for."""
    if setup.param.spp_param.pool == SPPParameter.STOCHASTIC:
        return StochasticPyramidPooling(setup)
    return PyramidPooling(setup)


LAYERS: Mapping[str, Callable[[LayerSetup], Layer]] = {"SPP": pyramid_pooling}
