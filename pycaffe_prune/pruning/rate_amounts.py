"""What is left of a net at given rates, in parameters, multiply-accumulates or bytes.

Connections leave their zeros out of the count: a parameter is a weight that is not zero, or any
bias; a multiply-accumulate is one with such a weight; bytes are those of the sparse form. Units are
gone, so what is left is a dense net, and its bytes are those of the caffemodel.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.sparse import expected_bytes
from pycaffe_prune.net.channel_trace import trace_channels
from pycaffe_prune.net.channels import Channels, Ids
from pycaffe_prune.net.counts import uses_of_weights
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.shapes import Shape, infer_shapes
from pycaffe_prune.pruning.budget import Quantity
from pycaffe_prune.pruning.budget_rates import Amount
from pycaffe_prune.pruning.coupled import channels_to_delete, coupled_layers
from pycaffe_prune.pruning.criteria.connections import weights_to_prune
from pycaffe_prune.pruning.criteria.units import Scores, unit_criterion
from pycaffe_prune.pruning.sharing import shared_blobs
from pycaffe_prune.pruning.sizes import NetSize, net_size
from pycaffe_prune.pruning.unit_weights import weights_around
from pycaffe_prune.pruning.units import Flags

__all__ = [
    "amount_dense",
    "amount_sparse",
    "connection_amount",
    "unit_amount",
    "whole_units",
]

_NO_INPUTS: Mapping[str, Shape] = MappingProxyType({})
_VALUE = 4  # bytes of a float32


def amount_sparse(size: NetSize, quantity: Quantity) -> int:
    """Return what a net takes where zeros are left out.

    Raises:
        SurgeryError: It is not known.
    """
    if quantity == "parameters":
        return size.kept_parameters
    if quantity == "bytes":
        return size.stored_bytes["sparse"]
    return _known(size.non_zero_macs)


def amount_dense(size: NetSize, quantity: Quantity) -> int:
    """Return what a net takes with all of its zeros.

    Raises:
        SurgeryError: It is not known.
    """
    if quantity == "parameters":
        return size.parameters
    if quantity == "bytes":
        return size.stored_bytes["caffemodel"]
    return _known(size.macs)


def _known(macs: int | None) -> int:
    if macs is None:
        raise SurgeryError(
            "how often the net multiplies is not known, since its prototxt does not tell the size "
            "of the images; give a budget of parameters or bytes"
        )
    return macs


def connection_amount(
    net: NetParameter,
    model: Caffemodel,
    places: Mapping[str, Sequence[BlobKey]],
    quantity: Quantity,
    inputs: Mapping[str, Shape] = _NO_INPUTS,
) -> Amount:
    """Return what tells what is left when each layer loses the lowest of its weights.

    Bytes are what is expected where the weights that stay lie anywhere; the file of a real mask may
    be some percent larger or smaller (`budget_rates.fitted` corrects it).

    Args:
        net: The definition.
        model: Its weights; those that are zero already are not counted.
        places: The matrices of each layer, which lose the same share each.
        quantity: What is counted.
        inputs: Shapes of blobs that the prototxt does not tell, as for `infer_shapes`.

    Raises:
        SurgeryError: The count is not known, or net and weights do not fit together.
    """
    whole = amount_sparse(net_size(net, model, inputs), quantity)
    uses = _uses(net, inputs) if quantity == "macs" else {}
    blobs = dict(model.blobs())
    non_zeros = {key: int(np.count_nonzero(blobs[key])) for keys in places.values() for key in keys}

    def of_blob(key: BlobKey, kept: int) -> int:
        if quantity == "bytes":
            return expected_bytes(blobs[key].size, kept)
        return kept * uses[key] if quantity == "macs" else kept

    @cache
    def lost(layer: str, rate: float) -> int:
        total = 0
        for key in places[layer]:
            size = blobs[key].size
            kept = min(non_zeros[key], size - weights_to_prune(size, rate))
            total += of_blob(key, non_zeros[key]) - of_blob(key, kept)
        return total

    return lambda rates: whole - sum(lost(layer, rate) for layer, rate in rates.items())


def _uses(net: NetParameter, inputs: Mapping[str, Shape]) -> dict[BlobKey, int]:
    """How often each value of a blob is multiplied for one image, by all who share it."""
    layers = layers_in_state(net, NetState.of(net, TEST))
    own: dict[BlobKey, int] = {}
    for layer, shapes in zip(layers, infer_shapes(layers, inputs), strict=True):
        for index, use in enumerate(uses_of_weights(layer, shapes) or ()):
            own[layer.name, index] = use
    shared = shared_blobs(net)
    return {key: sum(own.get(one, 0) for one in shared.get(key, (key,))) for key in own}


def whole_units(counts: Mapping[str, int], rates: Mapping[str, float]) -> dict[str, float]:
    """Return the rates that delete the same numbers of units, as those divided by all units.

    Args:
        counts: Units of each layer.
        rates: Of each layer.
    """
    return {name: _gone(rate, counts[name]) / counts[name] for name, rate in rates.items()}


def _gone(rate: float, count: int) -> int:
    """How many units go; one always stays."""
    return min(round(rate * count), count - 1)


def unit_amount(
    net: NetParameter,
    model: Caffemodel,
    quantity: Quantity,
    criterion: str = "onorm",
    inputs: Mapping[str, Shape] = _NO_INPUTS,
) -> Amount:
    """Return what tells what is left when each layer loses the lowest of its units.

    Each blob is counted with what is left along all of its axes, so with all neighbours at the
    widths that they have then. Rates stand for whole numbers of units (`whole_units`). Bytes are
    right but for lengths that take fewer digits in a smaller file.

    Args:
        net: The definition.
        model: Its weights.
        quantity: What is counted.
        criterion: Which units go, as `units.choose_units` chooses them.
        inputs: Shapes of blobs that the prototxt does not tell, as for `infer_shapes`.

    Raises:
        SurgeryError: The count is not known, or net and weights do not fit together.
    """
    channels = trace_channels(net, model)
    counts = {name: ids.size for name, ids in channels.units.items()}
    whole = amount_dense(net_size(net, model, inputs), quantity)
    blobs = _weighed(net, model, channels, quantity, inputs)

    coupled = {name: one for one in coupled_layers(channels) for name in one.layers}
    score = unit_criterion(criterion)

    @cache
    def scores_of(layer: str) -> Scores:
        around = weights_around(channels, model, coupled[layer].layers, coupled[layer].ids)
        return score(*around, 0)

    @cache
    def gone_of(layer: str, count: int) -> Flags:
        ratio = count / counts[layer]
        gone = np.zeros(channels.count, np.bool_)
        gone[channels_to_delete(channels, coupled[layer], scores_of(layer), ratio)] = True
        return gone

    def size(gone: Flags) -> int:
        return sum(weight * math.prod(_left(axis, gone) for axis in axes) for weight, axes in blobs)

    before = size(np.zeros(channels.count, np.bool_))

    @cache
    def left(gone: tuple[tuple[str, int], ...]) -> int:
        flags = [gone_of(layer, count) for layer, count in gone if count]
        return whole - before + size(np.any(flags, axis=0)) if flags else whole

    return lambda rates: left(
        tuple((name, _gone(rate, counts[name])) for name, rate in rates.items())
    )


_Axis = int | Ids
"""How long an axis of a blob is, or the channels along it."""


def _weighed(
    net: NetParameter,
    model: Caffemodel,
    channels: Channels,
    quantity: Quantity,
    inputs: Mapping[str, Shape],
) -> list[tuple[int, tuple[_Axis, ...]]]:
    """What a value of each blob with channels counts for, and the blob's axes."""
    uses = _uses(net, inputs) if quantity == "macs" else {}
    fixed = {"parameters": 1, "bytes": _VALUE}
    found = []
    for key, blob in model.blobs():
        bound = channels.blobs.get(key)
        if bound is None or (quantity != "bytes" and channels.owners.get(key, key) != key):
            continue
        axes = tuple(
            extent if ids is None else ids
            for extent, ids in zip(blob.shape, bound.axes, strict=True)
        )
        found.append((uses.get(key, 0) if quantity == "macs" else fixed[quantity], axes))
    return found


def _left(axis: _Axis, gone: Flags) -> int:
    if isinstance(axis, int):
        return axis
    groups = 1 if axis.ndim == 1 else len(axis)  # of which equally many channels stay
    return (axis.size - int(np.count_nonzero(gone[axis]))) // groups
