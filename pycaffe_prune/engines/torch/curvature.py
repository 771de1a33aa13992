"""Second derivatives of the loss by each weight: LeCun's recursion, and the Fisher stand-in."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.build import Step
from pycaffe_prune.engines.torch.layers.activations import ReLU
from pycaffe_prune.engines.torch.layers.base import Layer
from pycaffe_prune.engines.torch.layers.convolution import Convolution
from pycaffe_prune.engines.torch.layers.inner_product import InnerProduct
from pycaffe_prune.engines.torch.layers.pooling import AveragePooling, MaxPooling
from pycaffe_prune.engines.torch.layers.random import Dropout
from pycaffe_prune.engines.torch.layers.shaping import Flatten
from pycaffe_prune.engines.torch.layers.softmax import SoftmaxWithLoss
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.pure_loss import pure_loss
from pycaffe_prune.errors import EngineError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.net.graph import NetState, layers_in_state

__all__ = ["curvature_net", "fisher_diagonal", "hessian_diagonal", "require_reached"]

_DIFFERENT_IN_TEST = ("BatchNorm", "Dropout", "Pooling", "SPP")
_MOST_VALUES = 1 << 24  # of gradients that are held at a time: 64 MiB
_MOST_IMAGES = 64
_KNOWN = (
    "Convolution, Dropout, Flatten, InnerProduct, Pooling (MAX and AVE, pad at most half of "
    "kernel_size), ReLU and SoftmaxWithLoss"
)


@dataclass(frozen=True)
class _Visit:
    """A layer in the pass that carries second derivatives back."""

    params: Sequence[Tensor]
    bottoms: Sequence[Tensor]
    tops: Sequence[Tensor | None]
    """Second derivatives by its tops; of a loss the weight."""
    propagate: Sequence[bool]
    targets: Sequence[Tensor | None]
    """Where those by its blobs add up."""


def curvature_net(net: NetParameter) -> NetParameter:
    """Return the net in which curvature is measured.

    It has the layers and data of the phase TRAIN, but is the function that is tested: no value is
    dropped, and BatchNorm uses its stored statistics. All blobs learn, so that gradients go to them
    all.

    Raises:
        EngineError: A BatchNorm has ``use_global_stats: false``: what the net says of an image then
            depends on the others of its batch; so it does behind a Filter.
    """
    changed = NetParameter()
    changed.CopyFrom(net)
    del changed.layer[:]
    layers = layers_in_state(net, NetState.of(net, TRAIN))
    changed.layer.extend(layer for layer in layers if layer.type != "HDF5Output")
    for layer in changed.layer:
        if layer.type == "Filter":
            raise EngineError(
                f"layer '{layer.name}' (Filter) decides which images of a batch count, so that an "
                "image's loss has no derivative of its own; take it out"
            )
        told = layer.batch_norm_param
        if told.HasField("use_global_stats") and not told.use_global_stats:
            raise EngineError(
                f"layer '{layer.name}' (BatchNorm): with use_global_stats: false an image's loss "
                "depends on its batch, and has no derivative of its own; take that line out"
            )
        if layer.type in _DIFFERENT_IN_TEST:
            layer.phase = TEST
        if layer.type != "BatchNorm":  # whose blobs are statistics
            for spec in layer.param:
                spec.lr_mult = 1
    return changed


def require_reached(net: Net, keys: Iterable[BlobKey]) -> None:
    """Refuse blobs from which no loss is reached: it would seem as if they did not matter.

    Raises:
        SurgeryError: There is such a blob, or none that is called so.
    """
    reached = {key for step in net.steps if step.flow.trains for key in step.keys}
    for key in keys:
        if net.owner(key) not in reached:
            raise SurgeryError(
                f"layer '{key[0]}': in the phase TRAIN no gradient of a loss comes back to it, so "
                "its weights cannot be judged by the loss; leave it out with --layers"
            )


@torch.no_grad()
def hessian_diagonal(net: Net, batches: int) -> dict[BlobKey, Tensor]:
    """Return the diagonal of the Hessian of the loss by LeCun's recursion, in Gauss-Newton form.

    Backward from p(1 - p) at the scores of each SoftmaxWithLoss: through a layer of weights by
    their squares, through an activation by the square of its derivative (LeCun, Denker and Solla
    1989, equations 7 to 9 without the term in f''). What is off the diagonal is passed over in each
    step, so it is exact for one layer of weights, else an estimate. Where one weight is used at
    several places (a convolution's), what they add up to is taken.

    Args:
        net: Of `curvature_net`, in the phase TRAIN, at the start of its data.
        batches: Over how many of its batches the mean is taken.

    Returns:
        Per learnable blob the second derivatives of the loss that is minimised, of its shape.

    Raises:
        EngineError: A layer on the way to the loss is of a type that has no rule here.
        DataError: The data are damaged.
    """
    steps = [step for step in net.steps if step.flow.trains]
    for step in steps:
        _require_rule(step.layer)
    total = net.parameters.zeros()
    for _ in range(batches):
        net.fetch()
        _add_seconds(net, steps, _forward(net), total)
    return _by_blob(net, total / batches)


def fisher_diagonal(net: Net, images: int) -> dict[BlobKey, Tensor]:
    """Return the mean over ``images`` of the squared gradients of single images' losses.

    Near a minimum of the loss it estimates the diagonal of the Hessian (the empirical Fisher).

    Args:
        net: Of `curvature_net`, in the phase TRAIN, at the start of its data, each batch of which
            is one image.
        images: How many.

    Returns:
        Per learnable blob, of its shape.

    Raises:
        DataError: The data are damaged.
    """
    values = _by_blob(net, net.parameters.data)

    def loss(blobs: Mapping[BlobKey, Tensor], batch: Sequence[Tensor]) -> Tensor:
        return pure_loss(net, blobs, batch)[0]

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
    total = net.parameters.zeros()
    sums = _by_blob(net, total)
    at_once = max(1, min(_MOST_IMAGES, _MOST_VALUES // net.parameters.count))
    for start in range(0, images, at_once):
        batches = [_next_batch(net) for _ in range(min(at_once, images - start))]
        found = gradients(values, [torch.stack(parts) for parts in zip(*batches, strict=True)])
        for key, gradient in found.items():
            sums[key].add_(gradient.square().sum(0))
    return _by_blob(net, total / images)


def _next_batch(net: Net) -> list[Tensor]:
    net.fetch()
    return [tensor.clone() for tensor in net.batch]  # the next batch may be the same memory


def _by_blob(net: Net, flat: Tensor) -> dict[BlobKey, Tensor]:
    return {blob.key: net.parameters.view(flat, blob.key) for blob in net.parameters.blobs}


def _forward(net: Net) -> dict[int, Tensor]:
    """Every value of the net for its batch, none overwritten."""
    values = dict(zip(net.batch_slots, net.batch, strict=True))
    for step in net.steps:
        bottoms = [values[slot] for slot in step.flow.bottoms]
        tops = step.layer.forward(bottoms, step.params)
        values.update(zip(step.flow.tops, tops, strict=True))
    return values


def _add_seconds(
    net: Net, steps: Sequence[Step], values: Mapping[int, Tensor], total: Tensor
) -> None:
    """Go backward once and add what each blob gets to ``total``."""
    seconds: dict[int, Tensor] = {}
    for step in reversed(steps):
        flow = step.flow
        tops = [seconds.pop(slot, None) for slot in flow.tops]
        if isinstance(step.layer, SoftmaxWithLoss):
            tops[0] = step.loss_diffs.get(flow.tops[0])
        if tops == [None] * len(tops):  # only itself adds to the loss, which is linear in it
            continue
        targets = [
            net.parameters.view(total, key).view(param.shape)
            for key, param in zip(step.keys, step.params, strict=True)
        ]
        bottoms = [values[slot] for slot in flow.bottoms]
        found = _back(step.layer, _Visit(step.params, bottoms, tops, flow.propagate, targets))
        for slot, second in zip(flow.bottoms, found, strict=True):
            if second is not None:
                seconds[slot] = seconds[slot] + second if slot in seconds else second


@singledispatch
def _back(layer: Layer, visit: _Visit) -> list[Tensor | None]:  # noqa: ARG001  (common signature)
    """Return the second derivatives by the bottoms, and add those by the blobs to their targets."""
    param = layer.param
    raise EngineError(
        f"layer '{param.name}' ({param.type}): second derivatives are not carried back through it, "
        f"only through {_KNOWN}; the Fisher estimate needs gradients alone"
    )


def _require_rule(layer: Layer) -> None:
    if _back.dispatch(type(layer)) is _back.dispatch(Layer):
        _back(layer, _Visit((), (), (), (), ()))


@_back.register(Convolution)
@_back.register(InnerProduct)
def _(layer: Layer, visit: _Visit) -> list[Tensor | None]:
    # y = Wx + b: as the gradient goes back, with W and x squared.
    squares = [bottom.square() for bottom in visit.bottoms]
    blobs = [visit.params[0].square(), *visit.params[1:]]
    _, saved = layer.forward_saving(squares, blobs)
    return layer.backward(saved, visit.tops, visit.propagate, visit.targets)


@_back.register(Dropout)
@_back.register(Flatten)
@_back.register(MaxPooling)
def _(layer: Layer, visit: _Visit) -> list[Tensor | None]:
    # Values are moved, not changed: derivatives are 0 or 1, as their squares are.
    _, saved = layer.forward_saving(visit.bottoms, ())
    return layer.backward(saved, visit.tops, visit.propagate, ())


@_back.register
def _(layer: AveragePooling, visit: _Visit) -> list[Tensor | None]:
    _, saved = layer.forward_saving(visit.bottoms, ())
    tops = [top if top is None else top * layer.shares(top.device) for top in visit.tops]
    return layer.backward(saved, tops, visit.propagate, ())


@_back.register
def _(layer: ReLU, visit: _Visit) -> list[Tensor | None]:
    slope = layer.param.relu_param.negative_slope
    return [
        top if top is None else torch.where(bottom > 0, top, slope**2 * top)
        for bottom, top in zip(visit.bottoms, visit.tops, strict=True)
    ]


@_back.register
def _(layer: SoftmaxWithLoss, visit: _Visit) -> list[Tensor | None]:
    weight = visit.tops[0]
    if weight is None:
        return [None, None]
    _, saved = layer.forward_saving(visit.bottoms, ())
    return [layer.curvature(saved, weight), None]
