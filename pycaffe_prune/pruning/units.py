"""Unit pruning: score units and filters, delete the lowest, physically, wherever they lead.

Deleting a channel removes the rows of the layers that make it (with their biases), its columns in
every layer that reads it, and its BatchNorm, Scale, Bias and PReLU values in between. What belongs
together is worked out by `net.channel_rules`.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, Layer
from pycaffe_prune.formats.forks import STOCK_TYPES
from pycaffe_prune.net.channel_trace import trace_channels
from pycaffe_prune.net.channels import BlobChannels, Channels
from pycaffe_prune.pruning.coupled import coupled_layers
from pycaffe_prune.pruning.unit_choice import choose_units, units_of
from pycaffe_prune.pruning.unit_weights import with_zeros
from pycaffe_prune.pruning.weight_blobs import weight_blobs

__all__ = [
    "Flags",
    "Kept",
    "choose_units",
    "delete_units",
    "keep_lrn_neighbours",
    "left_out_of_units",
    "lrn_layers_changed",
    "mask_units",
    "prunable_layers",
    "unit_counts",
    "units_together",
]

Flags = NDArray[np.bool_]

_SETTINGS = {
    "Embed": "embed_param",
    "InnerProduct": "inner_product_param",
    "LSTM": "recurrent_param",
    "RNN": "recurrent_param",
}
"""Where types other than Convolution and Deconvolution have their ``num_output``."""

Kept = Mapping[str, Flags]
"""Per pruned layer, shape (units,), True = kept."""


def prunable_layers(net: NetParameter, model: Caffemodel | None = None) -> list[str]:
    """Return the layers whose units or filters can be deleted, in the net's order.

    Raises:
        SurgeryError: The net contradicts itself, or ``model`` does not fit it.
    """
    channels = trace_channels(net, model)
    return [
        name
        for name, ids in channels.units.items()
        if any(channel not in channels.fixed for channel in ids.tolist())
    ]


def left_out_of_units(net: NetParameter, model: Caffemodel) -> dict[str, str]:
    """Return the layers with weights of which no unit can be deleted, each with the reason.

    The reason is the end of a sentence that begins with the layer.
    """
    channels = trace_channels(net, model)
    held = {layer.name: layer.blobs for layer in model.layers}
    reasons = {}
    for layer in net.layer:
        ids = channels.units.get(layer.name)
        if ids is None and weight_blobs(layer.type, held.get(layer.name, ())):
            reasons[layer.name] = "makes no channels along axis 1 that could be followed"
        elif ids is not None and all(channel in channels.fixed for channel in ids.tolist()):
            reasons[layer.name] = channels.fixed[int(ids[0])]
    return reasons


def units_together(net: NetParameter, model: Caffemodel | None = None) -> list[tuple[str, ...]]:
    """Return all layers with units, each with those that lose theirs together with it."""
    return [coupled.layers for coupled in coupled_layers(trace_channels(net, model))]


def unit_counts(net: NetParameter, model: Caffemodel) -> dict[str, int]:
    """Return how many units or filters each layer has, in the net's order.

    Raises:
        SurgeryError: The net contradicts itself, or ``model`` does not fit it.
    """
    return {name: ids.size for name, ids in trace_channels(net, model).units.items()}


def _channels_gone(net: NetParameter, channels: Channels, kept: Kept) -> Flags:
    """Which channels go, after seeing that they can."""
    gone = np.zeros(channels.count, np.bool_)
    for name, keep in kept.items():
        ids = units_of(net, channels, name)
        if keep.shape != ids.shape or not keep.any():
            raise SurgeryError(
                f"layer '{name}' has {ids.size} units; {int(keep.sum())} of {keep.size} "
                "cannot be kept"
            )
        gone[ids[~keep]] = True
    for name, keep in kept.items():
        if gone[channels.units[name][keep]].any():
            raise SurgeryError(
                f"layer '{name}' loses its units together with other layers, which are to lose "
                "others; keep the same ones"
            )
    _require_possible(channels, gone)
    return gone


def _require_possible(channels: Channels, gone: Flags) -> None:
    """Refuse to delete what must stay."""
    for name, ids in channels.units.items():
        fixed = [channel for channel in ids[gone[ids]].tolist() if channel in channels.fixed]
        if fixed:
            raise SurgeryError(f"layer '{name}' {channels.fixed[fixed[0]]}")
        if gone[ids].all():
            raise SurgeryError(f"layer '{name}' would lose all of its {ids.size} units")
    for name, tops in channels.slices.items():
        if any(gone[ids].all() for ids in tops):
            raise SurgeryError(f"a top of layer '{name}' (Slice) would lose all of its channels")
    for name, ids in channels.groupings:
        left = (~gone[ids]).sum(axis=1)
        if (left != left[0]).any():
            raise SurgeryError(
                f"layer '{name}' takes channels in {len(ids)} groups, of which "
                f"{', '.join(map(str, left))} would stay; keep equally many in each"
            )


def delete_units(
    net: NetParameter, model: Caffemodel, kept: Kept
) -> tuple[NetParameter, Caffemodel]:
    """Delete the units that ``kept`` does not keep, in the definition and in the weights.

    Returns:
        The smaller net and its smaller caffemodel; both are new, the arguments are untouched.

    Raises:
        SurgeryError: As `choose_units`, or ``kept`` has another length than a layer has units,
            keeps none of them, or breaks up what belongs together.
        FormatError: The caffemodel lacks a layer.
    """
    channels = trace_channels(net, model)
    gone = _channels_gone(net, channels, kept)
    _changing_blobs(channels, model, gone)
    small_net = NetParameter()
    small_net.CopyFrom(net)
    for definition in small_net.layer:
        _shrink_definition(definition, definition.type, channels, gone)
    types = {layer.name: layer.type for layer in net.layer}
    layers = [
        _smaller(layer, types.get(layer.name, layer.type), channels, gone) for layer in model.layers
    ]
    return small_net, replace(model, layers=tuple(layers))


def _changing_blobs(channels: Channels, model: Caffemodel, gone: Flags) -> list[BlobKey]:
    """The blobs that change; the model must have them, lest the net shrink without its weights."""
    for name, read in channels.readers.items():
        is_own = channels.owners.get((name, 0), (name, 0)) == (name, 0)
        if gone[read].any() and not model.layer(name).blobs and is_own:
            raise SurgeryError(
                f"layer '{name}' of the caffemodel holds no weights; use the caffemodel that "
                "belongs to this net"
            )
    found = []
    for key, blob in channels.blobs.items():
        if not any(ids is not None and gone[ids].any() for ids in blob.axes):
            continue
        name, index = key
        held = len(model.layer(name).blobs)
        if index < held:
            found.append(key)
        elif channels.owners.get(key, key) == key:  # HDF5 files hold shared blobs once
            raise SurgeryError(
                f"layer '{name}' of the caffemodel holds {held} blobs, but the net's has a blob "
                f"{index}; use the caffemodel that belongs to this net"
            )
    return found


def _smaller(layer: Layer, net_type: str, channels: Channels, gone: Flags) -> Layer:
    """The layer of the caffemodel, which may call its type otherwise: Caffe goes by the name."""
    param = LayerParameter()
    param.CopyFrom(layer.param)
    _shrink_definition(param, net_type, channels, gone)
    blobs = tuple(
        _without(blob, channels.blobs.get((layer.name, index)), gone)
        for index, blob in enumerate(layer.blobs)
    )
    same = all(new is old for new, old in zip(blobs, layer.blobs, strict=True))
    return layer if same and param == layer.param else Layer(param, blobs)


def _shrink_definition(
    definition: LayerParameter, net_type: str, channels: Channels, gone: Flags
) -> None:
    units = channels.units.get(definition.name)
    if units is not None and gone[units].any():
        left = int((~gone[units]).sum())
        kind = STOCK_TYPES.get(net_type, net_type)
        settings = _SETTINGS.get(kind, "convolution_param")
        if definition.HasField(settings):  # a fork's caffemodel may have its own instead
            getattr(definition, settings).num_output = left
        groups = channels.group_of.get(definition.name)
        if groups is not None and definition.convolution_param.HasField("group"):
            definition.convolution_param.group = int((~gone[groups]).sum())
    counted = channels.reshapes.get(definition.name)
    if net_type == "Reshape" and counted is not None and gone[counted].any():
        definition.reshape_param.shape.dim[1] = int((~gone[counted]).sum())
    tops = channels.slices.get(definition.name)
    if net_type == "Slice" and tops and any(gone[ids].any() for ids in tops):
        counts = [int((~gone[ids]).sum()) for ids in tops]
        del definition.slice_param.slice_point[:]
        definition.slice_param.slice_point.extend(np.cumsum(counts[:-1]).tolist())


def _without(blob: Blob, channels: BlobChannels | None, gone: Flags) -> Blob:
    """The blob without the rows and columns of the channels that go."""
    for axis, ids in enumerate(channels.axes if channels else ()):
        if ids is None or not gone[ids].any():
            continue
        if ids.ndim == 1:
            blob = np.compress(~gone[ids], blob, axis=axis)
        else:
            groups = np.split(blob, len(ids))
            kept = [
                np.compress(keep, group, axis=axis)
                for keep, group in zip(~gone[ids], groups, strict=True)
            ]
            blob = np.concatenate(kept)
    return blob


def mask_units(net: NetParameter, model: Caffemodel, kept: Kept) -> Caffemodel:
    """Return the model at full size, with zeros in all weights that lead out of deleted units.

    It computes what the model of `delete_units` computes, unless an LRN layer sums over
    neighbouring channels (`lrn_layers_changed`).

    Raises:
        SurgeryError: As `delete_units`.
    """
    channels = trace_channels(net, model)
    gone = _channels_gone(net, channels, kept)
    changed: dict[BlobKey, Blob] = {}
    for key in _changing_blobs(channels, model, gone):
        blob = channels.blobs[key]
        ids = None if blob.reads is None else blob.axes[blob.reads]
        if blob.reads is None or ids is None or not gone[ids].any():
            continue
        changed[key] = with_zeros(model.layer(key[0]).blobs[key[1]], blob.reads, ids, gone)
    return model.with_blobs(changed)


def lrn_layers_changed(net: NetParameter, model: Caffemodel, kept: Kept) -> list[str]:
    """Return the LRN layers whose sums over neighbouring channels the deletion changes.

    Deleting a channel moves those beside it closer together, so that other channels come into the
    window (`src/caffe/layers/lrn_layer.cpp`): what the smaller net computes is then near what the
    masked one computes, not equal to it.

    Raises:
        SurgeryError: As `delete_units`.
    """
    channels = trace_channels(net, model)
    gone = _channels_gone(net, channels, kept)
    return list(dict.fromkeys(name for name, ids, _ in channels.lrn if gone[ids].any()))


def keep_lrn_neighbours(net: NetParameter, model: Caffemodel, kept: Kept) -> dict[str, Flags]:
    """Return ``kept`` enlarged so that no kept channel's LRN sum changes.

    Channels in the LRN window of a kept one are kept too, and whatever it takes to keep groups
    equal. Give `delete_units` the weights of `mask_units`: then the smaller net computes exactly
    what the masked one does. With a window of 5, little is left to delete.

    Raises:
        SurgeryError: As `delete_units`.
    """
    channels = trace_channels(net, model)
    gone = _channels_gone(net, channels, kept)
    wanted = ~gone
    for _, ids, local_size in channels.lrn:
        reach = (local_size - 1) // 2
        places = np.flatnonzero(wanted[ids])
        for step in range(-reach, reach + 1):
            near = places + step
            gone[ids[near[(near >= 0) & (near < len(ids))]]] = False
    _even_out(channels, gone)
    return {
        name: ~gone[ids] for name, ids in channels.units.items() if name in kept or gone[ids].any()
    }


def _even_out(channels: Channels, gone: Flags) -> None:
    """Let channels stay until equally many do in every group."""
    uneven = True
    while uneven:
        uneven = False
        for _, ids in channels.groupings:
            left = (~gone[ids]).sum(axis=1)
            for row, count in zip(ids, left, strict=True):
                missing = int(left.max() - count)
                if missing:
                    gone[row[gone[row]][:missing]] = False
                    uneven = True
