"""From the definition of a net to its parts: sources, layers, blobs, what flows between them."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.data.base import Source
from pycaffe_prune.engines.torch.data.sources import make_source
from pycaffe_prune.engines.torch.initial import fill_parameters
from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.engines.torch.layers.registry import make_layer, require_known
from pycaffe_prune.engines.torch.parameters import Learnable, Parameters, learnables
from pycaffe_prune.engines.torch.plan import Flow, plan_flow
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.formats.field_table import refuse_unhonoured
from pycaffe_prune.net.graph import NetGraph, NetState, layers_in_state
from pycaffe_prune.net.setup_checks import refuse_repeated_tops
from pycaffe_prune.net.shapes import LayerShapes, infer_shapes

__all__ = ["Parts", "Step", "build"]


@dataclass
class Step:
    """A layer that computes, in its place."""

    layer: Layer
    flow: Flow
    keys: tuple[BlobKey, ...]
    """Owners of ``params``."""
    params: list[Tensor]
    param_diffs: list[Tensor | None]
    """Where the gradients of ``params`` add up; None where there are none."""
    saves: bool
    """Whether its forward pass keeps something for a backward pass, or changes its blobs."""
    loss_diffs: dict[int, Tensor]
    """Per top that is a loss, its gradient: the loss weight."""
    saved: Saved | None = None
    """What the last forward pass kept; None when a backward pass has used it."""


@dataclass
class Parts:
    """A net in its parts; places count its layers, slots the values that they make."""

    layers: tuple[LayerParameter, ...]
    shapes: tuple[LayerShapes, ...]
    flows: tuple[Flow, ...]
    parameters: Parameters
    sources: dict[int, Source]
    """By place."""
    graded: frozenset[BlobKey]
    """The blobs whose gradient is computed."""
    steps: dict[int, Step] = field(default_factory=dict)
    """By place, in the net's order."""


def build(net: NetParameter, state: NetState, device: torch.device, seed: int) -> Parts:
    """Build the layers that the net has in a state; blobs hold what their fillers give.

    Raises:
        EngineError: A layer's type is not known.
        FormatError: A layer has a field that the torch engine does not follow.
        SurgeryError: The net contradicts itself.
        DataError: What a data layer reads is missing or damaged.
    """
    layers = tuple(_own(layer) for layer in layers_in_state(net, state))
    refuse_repeated_tops(layers)
    sources: dict[int, Source] = {}
    with ExitStack() as opened:
        for place, layer in enumerate(layers):
            refuse_unhonoured(layer, "torch")
            if not layer.bottom and layer.type != "Parameter":
                sources[place] = make_source(
                    layer, _phase(layer, state.phase), device, seed + place
                )
                opened.callback(sources[place].close)
            else:
                require_known(layer)
        parts = _assemble(net, state.phase, layers, sources, device, seed)
        opened.pop_all()  # from here on they are the net's to close
    return parts


def _assemble(
    net: NetParameter,
    phase: int,
    layers: tuple[LayerParameter, ...],
    sources: dict[int, Source],
    device: torch.device,
    seed: int,
) -> Parts:
    shapes = _infer_shapes(layers, sources)
    blobs, owners = learnables(layers, [around.params for around in shapes])
    by_key = {blob.key: blob for blob in blobs}
    held = [
        [by_key[owners.get((layer.name, index), (layer.name, index))] for index in range(count)]
        for layer, count in zip(layers, (len(around.params) for around in shapes), strict=True)
    ]
    graded = _graded(net, layers, held)
    learns = [any(blob.key in graded for blob in own) for own in held]
    parameters = Parameters(blobs, device)
    fill_parameters(layers, parameters, seed)
    flows = tuple(plan_flow(net, NetGraph(layers), phase, learns))
    parts = Parts(layers, shapes, flows, parameters, sources, graded)
    for place in range(len(layers)):
        if place not in sources:
            parts.steps[place] = _make_step(parts, place, held[place], phase)
    return parts


def _graded(
    net: NetParameter, layers: Sequence[LayerParameter], held: Sequence[Sequence[Learnable]]
) -> frozenset[BlobKey]:
    """The blobs that learn; with ``force_backward`` all, whose gradients count in a clipping."""
    return frozenset(
        blob.key
        for layer, own in zip(layers, held, strict=True)
        for blob in own
        if blob.lr_mult or (net.force_backward and layer.type != "BatchNorm")
    )


def _phase(layer: LayerParameter, phase: int) -> int:
    """The phase that a layer computes in: its own, or the net's (`Net::Init`)."""
    return layer.phase if layer.HasField("phase") else phase


def _own(layer: LayerParameter) -> LayerParameter:
    """The net's copy of a layer, with the top that Caffe gives to a loss that names none."""
    own = LayerParameter()
    own.CopyFrom(layer)
    if own.type.endswith("Loss") and not own.top:
        own.top.append("(automatic)")
    return own


def _infer_shapes(
    layers: Sequence[LayerParameter], sources: dict[int, Source]
) -> tuple[LayerShapes, ...]:
    told = {
        name: shape
        for place, source in sources.items()
        for name, shape in zip(layers[place].top, source.shapes, strict=True)
    }
    found = infer_shapes(layers, told)
    for around in found:
        if around.problem:
            raise SurgeryError(around.problem)
    return tuple(found)


def _make_step(parts: Parts, place: int, held: Sequence[Learnable], phase: int) -> Step:
    around, flow = parts.shapes[place], parts.flows[place]
    phase = _phase(parts.layers[place], phase)
    bottoms = tuple(shape for shape in around.bottoms if shape is not None)
    tops = tuple(shape for shape in around.tops if shape is not None)
    layer = make_layer(LayerSetup(parts.layers[place], bottoms, tops, phase))
    layer.in_place = flow.sole_in_place and not _is_kept(parts, flow.bottoms[0])
    parameters = parts.parameters
    shaped = list(zip((blob.key for blob in held), around.params, strict=True))
    diffs: list[Tensor | None] = [None] * len(shaped)
    if flow.trains:
        diffs = [
            parameters.view(parameters.diff, key).view(shape) if blob.key in parts.graded else None
            for blob, (key, shape) in zip(held, shaped, strict=True)
        ]
    # A pass written by hand also does what a forward pass in TRAIN does besides: draw, keep means.
    by_hand = type(layer).forward_saving is not Layer.forward_saving
    return Step(
        layer,
        flow,
        tuple(blob.key for blob in held),
        [parameters.view(parameters.data, key).view(shape) for key, shape in shaped],
        diffs,
        flow.trains or layer.moves_params or layer.remembers or (phase == TRAIN and by_hand),
        {
            slot: torch.full(tops[flow.tops.index(slot)], weight, device=parameters.data.device)
            for slot, weight in flow.loss_weights
        },
    )


def _is_kept(parts: Parts, slot: int) -> bool:
    """Whether the layer that makes this value reads it again in its backward pass."""
    for step in parts.steps.values():
        if slot in step.flow.tops:
            return step.layer.keeps_top
    return True  # a data layer's: the next batch may be the same memory
