"""Nets in which values decide shapes: layers that follow them from batch to batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.build import Step
from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup
from pycaffe_prune.engines.torch.layers.registry import make_layer
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.net.graph import NetGraph
from pycaffe_prune.net.shapes import infer_shapes

__all__ = ["VaryingShapes"]

_DECIDING = frozenset({"Filter"})
"""Types whose tops have shapes that their bottoms' values decide."""


class VaryingShapes:
    """Which layers may read other shapes at each pass, and what they were made for.

    Args:
        layers: Of one state of a net.
    """

    def __init__(self, layers: Sequence[LayerParameter]) -> None:
        self._made: dict[tuple[int, tuple[Shape, ...]], Layer] = {}
        graph, varying = NetGraph(layers), set[int]()
        for place in range(len(layers)):
            above = {top.layer for top in graph.bottoms[place] if top is not None}
            if above & varying or any(layers[number].type in _DECIDING for number in above):
                varying.add(place)
        self.places = frozenset(varying)
        """Those of the layers."""

    def fit(self, place: int, step: Step, bottoms: Sequence[Tensor]) -> None:
        """Give a step the layer for the shapes that it reads now, as ``Layer::Reshape`` does.

        Raises:
            SurgeryError: It cannot read them, or has blobs for other ones.
        """
        shapes = tuple(tuple(bottom.shape) for bottom in bottoms)
        before = step.layer
        if before.takes_any_shape or shapes == before.setup.bottoms:
            return
        self._made.setdefault((place, before.setup.bottoms), before)
        if (place, shapes) not in self._made:
            self._made[place, shapes] = _made_for(step, shapes)
        step.layer = self._made[place, shapes]
        step.layer.follow(before)
        for slot, diff in step.loss_diffs.items():
            shape = step.layer.setup.tops[step.flow.tops.index(slot)]
            step.loss_diffs[slot] = torch.full(shape, _weight(step, slot), device=diff.device)


def _weight(step: Step, slot: int) -> float:
    return dict(step.flow.loss_weights)[slot]


def _made_for(step: Step, shapes: tuple[Shape, ...]) -> Layer:
    before = step.layer
    (around,) = infer_shapes([before.param], dict(zip(before.param.bottom, shapes, strict=True)))
    if around.problem is not None:
        raise SurgeryError(around.problem)
    blobs = tuple(tuple(param.shape) for param in step.params)
    if around.params != blobs:
        raise SurgeryError(
            f"layer '{before.param.name}' ({before.param.type}): the images that a Filter lets "
            f"pass make its bottoms {', '.join(map(extents, shapes))}, which needs blobs of "
            f"{', '.join(map(extents, around.params))}; it has {', '.join(map(extents, blobs))}"
        )
    tops = tuple(shape for shape in around.tops if shape is not None)
    layer = make_layer(LayerSetup(before.param, shapes, tops, before.setup.phase))
    layer.in_place = before.in_place
    return layer
