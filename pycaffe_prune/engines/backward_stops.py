"""Trainings that Caffe ends at their first backward pass: seen before they begin."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pycaffe_prune.engines.losses import loss_weights
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.net.no_backward import stop_of
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.net.splits import insert_splits
from pycaffe_prune.net.wiring import backward_needs, wire

__all__ = ["refuse_stopped_backward"]


def refuse_stopped_backward(
    layers: Sequence[LayerParameter], inputs: Mapping[str, Shape], path: Path, *, force: bool
) -> None:
    """Refuse a layer that has no gradient for what its backward pass would have to give one.

    Accuracy and ArgMax have none, losses none for their labels. ``force_backward`` asks all layers
    for theirs.

    Args:
        layers: Those of the TRAIN net, each loss with its top.
        inputs: The shapes of what data layers bring.
        path: The net's file, for the sentence.
        force: The net's ``force_backward``.

    Raises:
        SurgeryError: There is such a layer, or one reads what none before it makes.
    """
    split = insert_splits(layers)
    try:
        shapes = infer_shapes(split, inputs)
    except SurgeryError:
        return  # the engine tells it, as below
    if any(around.problem for around in shapes):
        return
    needs = backward_needs(
        split,
        wire(split),
        [loss_weights(layer) for layer in split],
        [len(around.params) for around in shapes],
        force=force,
    )
    told = iter([layer for layer in layers if layer.type != "Split"])
    for layer, trains, propagate in zip(split, needs.layers, needs.bottoms, strict=True):
        own = layer if layer.type == "Split" else next(told)  # with its bottoms' own names
        if trains and (reason := stop_of(own, propagate)):
            raise SurgeryError(f"{path}: {reason}")
