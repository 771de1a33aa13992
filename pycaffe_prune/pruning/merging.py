"""Units merged without data: one that is much like another gives that one its outgoing weights.

Two units with the same incoming weights put out the same, and one of them with the sum of their
outgoing weights does the work of both (Srinivas and Babu 2015, arXiv 1507.06149). Where only layers
stand behind them that pass a factor on (ReLU, Pooling), so does a unit whose weights are a multiple
of another's.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.net.channel_trace import trace_channels
from pycaffe_prune.net.channels import Channels, Ids
from pycaffe_prune.net.graph import NetGraph
from pycaffe_prune.pruning.coupled import Coupled, coupled_layers
from pycaffe_prune.pruning.criteria.units import squared_lengths, units_to_delete
from pycaffe_prune.pruning.nearest import nearest_rows
from pycaffe_prune.pruning.sharing import shared_blobs
from pycaffe_prune.pruning.unit_weights import weights_around
from pycaffe_prune.pruning.units import left_out_of_units

__all__ = ["Merges", "left_out_of_merging", "merge_order", "merge_units"]

_WITH_WEIGHTS = frozenset({"Convolution", "Deconvolution", "InnerProduct"})
_PASSING_FACTORS_ON = frozenset(
    {"Concat", "Dropout", "Flatten", "Pooling", "ReLU", "Reshape", "Silence", "Slice", "Split"}
)

_Weights = NDArray[np.floating[Any]]

Merges = list[tuple[int, int]]
"""Pairs (gone, into) in their order: ``into`` takes over what ``gone`` was worth."""


def merge_order(rows: _Weights, outgoing: _Weights, count: int) -> Merges:
    """Choose pairs of units to merge, the one with the lowest saliency first.

    The saliency of deleting unit j in favour of i is <a_j^2> * ||W_i - W_j||^2, a_j the outgoing
    weights of j, their mean taken over the consumers. After each merge a_i + a_j takes the place of
    a_i.

    Args:
        rows: Incoming weights of each unit with its bias, shape (units, inputs + 1).
        outgoing: Shape (connections, units).
        count: How many units go, less than there are.

    Returns:
        ``count`` pairs.
    """
    near = nearest_rows(rows)
    left = np.ones(len(rows), np.bool_)
    nearest, least = np.zeros(len(rows), np.int64), np.full(len(rows), np.inf)
    for unit in range(len(rows)):
        nearest[unit], least[unit] = near.to(unit, left)
    leaving = np.ascontiguousarray(outgoing.T, np.float64)
    worth = np.square(leaving).mean(axis=1)
    merges: Merges = []
    for _ in range(count):
        gone = int(np.argmin(worth * least))
        into = int(nearest[gone])
        merges.append((gone, into))
        leaving[into] += leaving[gone]
        worth[into] = np.square(leaving[into]).mean()
        worth[gone], least[gone], left[gone] = 1, np.inf, False
        for orphan in np.flatnonzero((nearest == gone) & left).tolist():
            nearest[orphan], least[orphan] = near.to(orphan, left)
    return merges


def left_out_of_merging(net: NetParameter, model: Caffemodel) -> dict[str, str]:
    """Return the layers with weights whose units cannot be merged, each with the reason.

    The reason is the end of a sentence that begins with the layer.

    Raises:
        SurgeryError: Net and weights do not fit together, or the net contradicts itself.
    """
    channels = trace_channels(net, model)
    reasons = left_out_of_units(net, model)
    for coupled in coupled_layers(channels):
        obstacle = _obstacle(net, channels, coupled)
        if obstacle is not None:
            reasons = {**dict.fromkeys(coupled.layers, obstacle), **reasons}
    return reasons


def merge_units(
    net: NetParameter, model: Caffemodel, ratios: Mapping[str, float]
) -> tuple[Caffemodel, dict[str, NDArray[np.bool_]]]:
    """Merge units of layers, the net's first layer first.

    Args:
        net: The definition.
        model: Its weights.
        ratios: Per layer, the share of its units to merge into others.

    Returns:
        The model at its full size with the sums in its outgoing weights, and per layer which units
        are kept, shape (units,): what `pruning.units.delete_units` takes.

    Raises:
        SurgeryError: A layer is none whose units can be merged, a ratio is out of range, weights
            are not finite, or net and weights do not fit.
        FormatError: The caffemodel lacks a layer.
    """
    channels = trace_channels(net, model)
    groups = {name: coupled for coupled in coupled_layers(channels) for name in coupled.layers}
    kept = {}
    for name in ratios:
        if name not in groups:
            raise SurgeryError(f"layer '{name}' has no units that could be followed")
        obstacle = _obstacle(net, channels, groups[name])
        if obstacle is not None:
            raise SurgeryError(f"layer '{name}' {obstacle}")
    for name in channels.units:
        if name not in ratios:
            continue
        ids = channels.units[name]
        incoming, outgoing = weights_around(channels, model, [name], np.sort(ids))
        blobs = model.layer(name).blobs
        rows = incoming if len(blobs) == 1 else np.column_stack([incoming, blobs[1].reshape(-1)])
        sizes = _sizes(rows) if _passes_factors_on(net, name) else np.ones(ids.size)
        count = units_to_delete(ids.size, ratios[name])
        pairs = merge_order(rows / sizes[:, None], outgoing * sizes, count)
        model = _with_sums(channels, model, ids, pairs, sizes)
        kept[name] = np.ones(ids.size, np.bool_)
        kept[name][[gone for gone, _ in pairs]] = False
    return model, kept


def _obstacle(net: NetParameter, channels: Channels, coupled: Coupled) -> str | None:
    """Why the units of a layer cannot be merged: the end of a sentence that begins with it."""
    name = coupled.layers[0]
    fixed = [channel for channel in coupled.ids.tolist() if channel in channels.fixed]
    if fixed:
        return channels.fixed[fixed[0]]
    if len(coupled.layers) > 1:
        return f"loses its units together with {', '.join(coupled.layers[1:])}; they do not merge"
    if coupled.groupings or name in channels.group_of:
        return "is bound by groups of a Convolution; its units do not merge"
    shared = {layer for layer, _ in shared_blobs(net)}
    for (layer, index), blob in channels.blobs.items():
        touching = [axis for axis, ids in enumerate(blob.axes) if _touches(ids, coupled.ids)]
        if not touching:
            continue
        if layer in shared:
            return f"has weights around it that layer '{layer}' shares; its units do not merge"
        if layer == name and blob.reads in touching:
            return "reads its own units a step later; they do not merge"
        if layer != name and touching != [blob.reads]:
            return (
                f"is followed by layer '{layer}', which has values of its own for each unit "
                f"(blob {index}); its units do not merge"
            )
    return None


def _sizes(rows: Blob) -> NDArray[np.float64]:
    """The length of each unit's incoming weights; 1 for one without any."""
    sizes = np.sqrt(squared_lengths(rows, np.float64))
    return np.where(sizes > 0, sizes, 1)


def _passes_factors_on(net: NetParameter, name: str) -> bool:
    """Tell whether a factor of what a layer puts out reaches the weights behind it as it is."""
    return all(_in_state(graph, name) for graph in NetGraph.of_all_states(net))


def _in_state(graph: NetGraph, name: str) -> bool:
    carrying: set[int] = set()
    for place, layer in enumerate(graph.layers):
        sources = {top.layer for top in graph.bottoms[place] if top is not None}
        if layer.name == name:
            carrying.add(place)
        elif sources & carrying and not _ends_the_way(layer):
            if layer.type not in _PASSING_FACTORS_ON:
                return False
            carrying.add(place)
    return True


def _ends_the_way(layer: LayerParameter) -> bool:
    """Whether weights read each channel: channels go through an InnerProduct behind their axis."""
    is_behind = layer.type == "InnerProduct" and layer.inner_product_param.axis != 1
    return layer.type in _WITH_WEIGHTS and not is_behind


def _touches(ids: Ids | None, some: Ids) -> bool:
    return ids is not None and bool(np.isin(ids, some).any())


def _with_sums(
    channels: Channels,
    model: Caffemodel,
    ids: Ids,
    pairs: Merges,
    sizes: NDArray[np.float64],
) -> Caffemodel:
    """Add the outgoing weights of units that go to those of the units that they merge into."""
    changed: dict[BlobKey, Blob] = {}
    for key, blob in channels.blobs.items():
        if blob.reads is None or not _touches(blob.axes[blob.reads], ids):
            continue
        read = blob.axes[blob.reads]
        if read is None or read.ndim > 1:
            continue
        weights = model.layer(key[0]).blobs[key[1]]
        columns = np.moveaxis(weights, blob.reads, 0).copy()  # a unit's weights side by side
        places = {int(channel): np.flatnonzero(read == channel) for channel in ids.tolist()}
        for gone, into in pairs:
            factor = np.float32(sizes[gone] / sizes[into])
            columns[places[int(ids[into])]] += factor * columns[places[int(ids[gone])]]
        changed[key] = np.ascontiguousarray(np.moveaxis(columns, 0, blob.reads))
    return model.with_blobs(changed)
