"""Nets and weights of forks as stock Caffe has them, where it computes the same in use.

What has no stock form stays carried; the engines refuse it by name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, Layer
from pycaffe_prune.formats.carried import carry, without_carried
from pycaffe_prune.formats.forks import STOCK_TYPES, with_names
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.net.fork_forms import has_own_scale, is_understood, stock_form
from pycaffe_prune.net.fork_shapes import is_fork_type

__all__ = ["masks_behind", "stock_model", "stock_net"]

_LEAST_EPS = 1e-5  # NVIDIA's and cuDNN's: a smaller eps counts as this
_WITH_MASKS = {"Convolution", "InnerProduct", *STOCK_TYPES}

# Settings of NVIDIA's nets that choose a precision or a library.
_OF_NVIDIA_S_NETS = frozenset(
    {
        "default_backward_math", "default_backward_type", "default_conv_algos_override",
        "default_cudnn_math_override", "default_forward_math", "default_forward_type",
        "eltwise_mem_sharing", "reduce_buckets",
    }
)  # fmt: skip


def stock_net(net: NetParameter) -> NetParameter:
    """Return ``net`` with the layers of forks as Caffe's own where one computes the same.

    Depthwise layers become Convolutions with groups, CConvolution and CInnerProduct the layers
    whose weights they mask, ReLU6 a Clip, ``ceil_mode`` a ``round_mode``; a BatchNorm with scale
    and bias of its own, as NVIDIA's, a BatchNorm and a Scale after it. Fields that only say how to
    compute or with what precision are left out.
    """
    new = NetParameter()
    new.CopyFrom(net)
    del new.layer[:]
    without_carried(new, lambda field: not field.place and field.name in _OF_NVIDIA_S_NETS)
    for layer in net.layer:
        new.layer.extend(_stock_layers(with_names(layer)))
    return new


def _stock_layers(layer: LayerParameter) -> Iterator[LayerParameter]:
    plain = LayerParameter()
    plain.CopyFrom(stock_form(layer))
    if layer.type == "ReLU6":
        plain.type = "Clip"
        plain.clip_param.min, plain.clip_param.max = 0, 6
    if not is_fork_type(plain.type):  # what a fork's own type reads stays
        without_carried(plain, lambda field: is_understood(layer, field))
    if not has_own_scale(layer):
        yield plain
        return
    del plain.param[3:]
    plain.batch_norm_param.eps = max(plain.batch_norm_param.eps, _LEAST_EPS)
    yield plain
    top = layer.top[0] if layer.top else layer.name
    scale = LayerParameter(name=f"{layer.name}/scale", type="Scale", bottom=[top], top=[top])
    for rules in ("include", "exclude"):
        getattr(scale, rules).MergeFrom(getattr(layer, rules))
    scale.param.extend(layer.param[3:])
    scale.scale_param.bias_term = True
    yield scale


def stock_model(model: Caffemodel) -> Caffemodel:
    """Return ``model`` as the net of `stock_net` takes it.

    Masks behind a layer's weights are multiplied into them: one for each blob, as Dynamic Network
    Surgery keeps them, or one for the weights, as Auto_pruning does. A BatchNorm of five blobs
    becomes one of three and a Scale; NVIDIA's orders are known (mean, variance, factor, scale, bias
    since version 0.16; scale, bias, mean, variance, factor in 0.15; scale, bias, factor, mean,
    variance, in four axes, in 0.14), and the factor, which NVIDIA's Caffe does not divide by,
    becomes 1. Layers are told by their types: a file of
    names and arrays alone comes back as it is.

    Raises:
        SurgeryError: A mask holds other values than 0 and 1, or the five blobs of a BatchNorm have
            none of the orders; the sentence names the layer.
    """
    layers: list[Layer] = []
    for layer in model.layers:
        if layer.type == "BatchNorm" and len(layer.blobs) == 5:
            layers += _without_scale(layer)
            continue
        definitions = list(_stock_layers(with_names(layer.param)))
        layers.append(Layer(definitions[0], _without_masks(layer)))
        layers += [Layer(definition) for definition in definitions[1:]]
    return replace(model, layers=tuple(layers))


def _without_scale(layer: Layer) -> list[Layer]:
    flat = [blob.reshape(-1) for blob in layer.blobs]
    sizes = [blob.size for blob in flat]
    channels, axes = sizes[0], {blob.ndim for blob in layer.blobs}
    last = [channels, channels, channels, channels, 1]
    between = [channels, channels, 1, channels, channels]
    if channels > 1 and sizes == between and axes == {1}:
        mean, variance, _, scale, bias = flat
    elif channels > 1 and sizes == between and axes == {4}:
        scale, bias, _, mean, variance = flat
    elif channels > 1 and sizes == last:
        scale, bias, mean, variance, _ = flat
    else:
        shapes = ", ".join("x".join(map(str, blob.shape)) for blob in layer.blobs)
        raise SurgeryError(
            f"layer '{layer.name}' (BatchNorm) holds blobs of shapes {shapes}, which do not tell "
            "in which of the orders of NVIDIA's Caffe 0.14, 0.15 and 0.16 they are"
        )
    definition = LayerParameter()
    definition.CopyFrom(layer.param)
    if not has_own_scale(with_names(definition)):
        carry(definition.batch_norm_param, "scale_bias: true")
    norm, factors = _stock_layers(with_names(definition))
    statistics = (mean, variance, np.ones(1, np.float32))
    return [Layer(norm, statistics), Layer(factors, (scale, bias))]


def masks_behind(model: Caffemodel) -> dict[BlobKey, Mask]:
    """Return the masks that stand behind a fork's weights, by the blob that each is of.

    Raises:
        SurgeryError: As `stock_model`.
    """
    return {
        (layer.name, index): mask != 0
        for layer in model.layers
        for index, mask in enumerate(_masks(layer))
    }


def _without_masks(layer: Layer) -> tuple[Blob, ...]:
    """The blobs with their masks multiplied in."""
    masks = _masks(layer)
    own = len(layer.blobs) - len(masks)
    # A weight of NaN or infinity under a mask of 0 is 0.
    masked = [
        np.where(mask != 0, blob, np.float32(0))
        for blob, mask in zip(layer.blobs, masks, strict=False)
    ]
    return (*masked, *layer.blobs[len(masks) : own])


def _masks(layer: Layer) -> tuple[Blob, ...]:
    """The blobs that are masks of the first ones."""
    own = _own_blobs([blob.shape for blob in layer.blobs])
    if layer.type not in _WITH_MASKS:
        return ()
    masks = layer.blobs[own:]
    if any(not np.isin(mask, (0, 1)).all() for mask in masks):
        raise SurgeryError(
            f"layer '{layer.name}' ({layer.type}) holds {len(layer.blobs)} blobs, of which the "
            f"last {len(masks)} have the shapes of masks but other values than 0 and 1"
        )
    return masks


def _own_blobs(shapes: Sequence[tuple[int, ...]]) -> int:
    """How many of a layer's blobs are no masks: those behind have the shapes of the first ones."""
    for own in (1, 2):
        masks = shapes[own:]
        if 0 < len(masks) <= own and list(masks) == list(shapes[: len(masks)]):
            return own
    return len(shapes)
