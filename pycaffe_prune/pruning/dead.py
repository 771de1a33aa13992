"""Dead units: those that no image brings to the output, deleted without changing what comes out.

A unit is dead when all weights that read it are zero, or when it puts out a constant: that goes
into the biases of the layers that read it. What connection pruning leaves behind (Han et al. 2015:
neurons with no connection in, or none out, are removed).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, Layer
from pycaffe_prune.formats.forks import STOCK_TYPES
from pycaffe_prune.net.channel_trace import trace_channels
from pycaffe_prune.net.channels import Channels
from pycaffe_prune.pruning.constant_channels import (
    Values,
    bottom_values,
    put_out,
    reads_axis_1,
    takes_constants,
)
from pycaffe_prune.pruning.counts import require_finite
from pycaffe_prune.pruning.sharing import shared_blobs
from pycaffe_prune.pruning.unit_weights import columns_read, with_zeros
from pycaffe_prune.pruning.units import Kept, delete_units

__all__ = ["Alive", "delete_dead", "unread_inputs"]

_Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Alive:
    """A model without its dead units."""

    net: NetParameter
    model: Caffemodel
    kept: Kept
    """Per layer with units, which of them are left."""
    whole_net: NetParameter
    """The net at its full size, with the biases that constants went into."""
    whole: Caffemodel
    """Its weights, with zeros around every dead unit: what ``model`` was cut out of."""


def delete_dead(net: NetParameter, model: Caffemodel) -> Alive:
    """Delete every unit that is dead, and those that are dead then, until none is left.

    The smaller net puts out what the given one does in the phase TEST, for any input. Units that an
    LRN layer sums over stay (deleting one would move its neighbours together), and so do the last
    unit of a layer, the units of output layers, and those that groups of a Convolution need to be
    of equal size.

    Args:
        net: The definition.
        model: Its weights, with zeros where connections were pruned.

    Raises:
        SurgeryError: Weights are not finite, or net and weights do not fit.
        FormatError: The caffemodel lacks a layer.
    """
    whole_net = NetParameter()
    whole_net.CopyFrom(net)
    channels = trace_channels(net, model)
    require_finite(model, dict.fromkeys(name for name, _ in channels.blobs))
    gone = np.zeros(channels.count, np.bool_)
    while True:
        values = bottom_values(whole_net, model)
        dead = _that_can_go(channels, _dead(whole_net, channels, model, values), gone)
        if dead.sum() <= gone.sum():
            break
        gone = dead
        model = _folded(whole_net, channels, model, values, gone)
        model = _cut_off(channels, model, gone)
    kept = {name: ~gone[ids] for name, ids in channels.units.items()}
    small_net, small = delete_units(whole_net, model, kept)
    return Alive(small_net, small, kept, whole_net, model)


def unread_inputs(net: NetParameter, model: Caffemodel) -> dict[str, tuple[int, int]]:
    """Return, of each InnerProduct layer that reads the net's input, how much of it goes unread.

    Returns:
        Per layer, how many of its inputs have no weight but zeros, and how many it has.
    """
    channels = trace_channels(net, model)
    made = set(np.concatenate([*channels.units.values(), np.empty(0, np.int64)]).tolist())
    found = {}
    for layer in net.layer:
        blob = channels.blobs.get((layer.name, 0))
        if layer.type != "InnerProduct" or blob is None or blob.reads is None:
            continue
        ids = blob.axes[blob.reads]
        if ids is None or not made & set(ids.tolist()):
            weights = np.moveaxis(model.layer(layer.name).blobs[0], blob.reads, -1)
            read = (weights != 0).any(axis=0)
            found[layer.name] = (int((~read).sum()), read.size)
    return found


def _dead(
    net: NetParameter, channels: Channels, model: Caffemodel, values: Mapping[str, Values | None]
) -> _Flags:
    """Which channels nobody reads, or reads a constant of that can go into a bias."""
    dead = np.ones(channels.count, np.bool_)
    shared = {name for name, _ in shared_blobs(net)}
    for layer in net.layer:
        if layer.name not in channels.readers:
            continue
        for index in range(len(model.layer(layer.name).blobs)):
            blob = channels.blobs.get((layer.name, index))
            if blob is None or (index and blob.reads is None):
                continue
            ids = None if blob.reads is None else blob.axes[blob.reads]
            if ids is not None:
                columns, read = columns_read(model.layer(layer.name).blobs[index], blob)
                known = values.get(layer.name) if index == 0 and reads_axis_1(layer) else None
                needed = _needed(
                    columns, known, takes_constants(layer) and layer.name not in shared
                )
                dead[read[needed]] = False
            elif index == 0:  # shapes are not known, or the channels go through one by one
                dead[channels.readers[layer.name]] = False
    dead[list(channels.fixed)] = False
    for _, window, _ in channels.lrn:
        dead[window] = False
    made = np.concatenate([*channels.units.values(), np.empty(0, np.int64)])
    dead[np.setdiff1d(np.arange(channels.count), made)] = False
    return dead


def _needed(columns: Blob, known: Values | None, only_adds: bool) -> _Flags:
    """Which columns of weights read anything that is not a constant for the bias."""
    needed: _Flags = (columns != 0).any(axis=0)
    if known is not None and len(known) and len(needed) % len(known) == 0:
        constant = np.repeat(known, len(needed) // len(known))
        needed &= np.isnan(constant) | (~np.bool_(only_adds) & (constant != 0))
    return needed


def _that_can_go(channels: Channels, dead: _Flags, before: _Flags) -> _Flags:
    """Leave one unit to each layer and to each top of a Slice, and equally many to each group.

    Those that went before go again, as far as they can.
    """
    gone = dead | before
    sets = [*channels.units.values(), *(ids for tops in channels.slices.values() for ids in tops)]
    uneven = True
    while uneven:
        uneven = False
        for ids in sets:
            if gone[ids].all():
                gone[_newest(ids, before)[:1]] = False
                uneven = True
        for _, ids in channels.groupings:
            left = (~gone[ids]).sum(axis=1)
            for row, count in zip(ids, left.tolist(), strict=True):
                missing = int(left.max()) - count
                if missing:
                    gone[_newest(row[gone[row]], before)[:missing]] = False
                    uneven = True
    return gone


def _newest(ids: NDArray[np.int64], before: _Flags) -> NDArray[np.int64]:
    return ids[np.argsort(before[ids], kind="stable")]


def _folded(
    net: NetParameter,
    channels: Channels,
    model: Caffemodel,
    values: Mapping[str, Values | None],
    gone: _Flags,
) -> Caffemodel:
    """Add the constants of the channels that go to the biases of those who read them."""
    layers = []
    for held in model.layers:
        bottom = values.get(held.name)
        blob = channels.blobs.get((held.name, 0))
        if bottom is None or blob is None or blob.reads is None or not held.blobs:
            layers.append(held)
            continue
        ids = blob.axes[blob.reads]
        definition = next(layer for layer in net.layer if layer.name == held.name)
        takes = takes_constants(definition) and reads_axis_1(definition)
        if ids is None or not gone[ids].any() or not takes:
            layers.append(held)
            continue
        read = ids.reshape(-1)
        constant = np.repeat(bottom, read.size // len(bottom))
        # A value that is not known is one whose weights are all zero.
        going = np.where(gone[read] & ~np.isnan(constant), constant, 0)
        added = put_out(definition, held.blobs[0], going)
        layers.append(_with_bias(net, held, added) if added.any() else held)
    return Caffemodel(tuple(layers), model.net)


def _with_bias(net: NetParameter, held: Layer, added: Values) -> Layer:
    for definition in net.layer:
        if definition.name == held.name:
            _let_have_bias(definition)
    param = LayerParameter()
    param.CopyFrom(held.param)
    _let_have_bias(param)
    bias: Blob = held.blobs[1] if len(held.blobs) > 1 else np.zeros(added.shape, np.float32)
    total = (bias + added.reshape(bias.shape)).astype(np.float32)
    if not np.isfinite(total).all():
        raise SurgeryError(f"layer '{held.name}': constants of dead units do not fit into its bias")
    return Layer(param, (held.blobs[0], total))


def _let_have_bias(definition: LayerParameter) -> None:
    kind = STOCK_TYPES.get(definition.type, definition.type)
    is_inner_product = kind == "InnerProduct"
    param = definition.inner_product_param if is_inner_product else definition.convolution_param
    if not param.bias_term:
        param.ClearField("bias_term")
        if len(definition.param) == 1:  # frozen weights stay without a bias that learns
            own = definition.param.add()
            own.CopyFrom(definition.param[0])
            own.ClearField("name")


def _cut_off(channels: Channels, model: Caffemodel, gone: _Flags) -> Caffemodel:
    """Zero the weights that lead into and out of channels, so that those behind them are seen."""
    changed: dict[BlobKey, Blob] = {}
    for key, blob in channels.blobs.items():
        for axis, ids in enumerate(blob.axes if blob.reads is not None else ()):
            if ids is not None and gone[ids].any():
                weights = changed.get(key, model.layer(key[0]).blobs[key[1]])
                changed[key] = with_zeros(weights, axis, ids, gone)
    return model.with_blobs(changed)
