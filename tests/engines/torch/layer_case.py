"""A layer without weights with its inputs, and what such cases are drawn from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from google.protobuf import text_format
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from pycaffe_prune.engines.torch.layers import (
    accuracy,
    activations,
    filtering,
    losses,
    shaping,
)
from pycaffe_prune.engines.torch.layers import random as random_layers
from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter
from pycaffe_prune.net.shapes import infer_shapes

Array = NDArray[np.float32]
Draw = st.DrawFn

LAYERS: Mapping[str, type[Layer]] = {
    **accuracy.LAYERS,
    **activations.LAYERS,
    **filtering.LAYERS,
    **losses.LAYERS,
    **random_layers.LAYERS,
    **shaping.LAYERS,
}


@dataclass(frozen=True)
class Case:
    kind: str
    bottoms: list[Array]
    settings: str = ""
    tops: int = 1
    gradients: tuple[bool, ...] | None = None
    """Which bottoms get gradients; None: all."""
    params: list[Array] = field(default_factory=list)
    in_place: bool = False

    @property
    def is_loss(self) -> bool:
        return self.kind.endswith("Loss")

    @property
    def propagate(self) -> tuple[bool, ...]:
        return (True,) * len(self.bottoms) if self.gradients is None else self.gradients

    @property
    def param(self) -> LayerParameter:
        layer = LayerParameter(
            name="x",
            type=self.kind,
            bottom=[f"b{number}" for number in range(len(self.bottoms))],
            top=["b0"] if self.in_place else [f"t{number}" for number in range(self.tops)],
        )
        text_format.Parse(self.settings, layer)
        if self.gradients is not None:
            layer.propagate_down.extend(self.gradients)
            if any(self.gradients) and not self.is_loss:
                layer.loss_weight.extend([1] * self.tops)  # Caffe goes back from losses only
        return layer

    @property
    def top_shapes(self) -> list[tuple[int, ...]]:
        inputs = []
        for number, bottom in enumerate(self.bottoms):
            layer = LayerParameter(name=f"b{number}", type="Input", top=[f"b{number}"])
            layer.input_param.shape.add(dim=bottom.shape)
            inputs.append(layer)
        around = infer_shapes([*inputs, self.param])[-1]
        assert around.problem is None
        return [shape for shape in around.tops if shape is not None]

    def layer(self, phase: int = TEST) -> Layer:
        shapes = tuple(bottom.shape for bottom in self.bottoms)
        setup = LayerSetup(self.param, shapes, tuple(self.top_shapes), phase)
        layer = LAYERS[self.kind](setup)
        layer.in_place = self.in_place
        return layer

    def top_diffs(self) -> list[Array | None]:
        """A gradient per top; of a loss its weight, and none for its second top."""
        if self.is_loss:
            weights = list(self.param.loss_weight) or [1.0]
            return [np.array(weights[0], np.float32), None][: self.tops]
        random, shapes = np.random.default_rng(0), self.top_shapes
        if self.kind == "Filter":
            passing = np.count_nonzero(self.bottoms[-1])
            shapes = [(passing, *shape[1:]) for shape in shapes]
        return [random.standard_normal(shape, np.float32) for shape in shapes]

    def tensors(self) -> list[Tensor]:
        return [torch.from_numpy(bottom.copy()) for bottom in self.bottoms]


def draw_values(draw: Draw, *shape: int) -> Array:
    """Normal numbers, or few different ones: zeros, ties, bounds hit exactly."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.integers(0, 2)) == 2:
        return random.standard_normal(shape, np.float32)
    return random.integers(-3, 4, shape).astype(np.float32) / np.float32(2)


def draw_labels(draw: Draw, classes: int, *shape: int) -> Array:
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random.integers(0, classes, shape).astype(np.float32)


def draw_shape(draw: Draw, least: int = 1, most: int = 4) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(1, 4), min_size=least, max_size=most)))


def draw_number(draw: Draw, *values: float) -> float:
    return draw(st.sampled_from(values))


def draw_axis(draw: Draw, shape: tuple[int, ...]) -> int:
    """Counted from the front or from the back."""
    return draw(st.integers(-len(shape), len(shape) - 1))
