"""Units deleted without data, their outgoing weights spread over all units that stay.

Merging (`pruning.merging`) gives a unit's outgoing weights to one other. Here all units that stay
take over what best makes up for it, by least squares over inputs that are not seen but assumed:
normally distributed, with the covariance that the incoming weights themselves have, for gradient
descent adds up inputs in them. What two units behind a ReLU put out together has then a closed form
(the arc-cosine kernel of Cho and Saul 2009). A unit goes first whose loss costs least after that,
as in Optimal Brain Surgeon (Hassibi and Stork 1993), for units instead of weights.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.net.channel_trace import trace_channels
from pycaffe_prune.net.channels import Channels, Ids
from pycaffe_prune.net.on_states import on_states
from pycaffe_prune.pruning.criteria.units import units_to_delete
from pycaffe_prune.pruning.merging import left_out_of_merging
from pycaffe_prune.pruning.unit_weights import weights_around

__all__ = ["expected_products", "left_out_of_spreading", "spread_order", "spread_units"]

_Matrix = NDArray[np.float64]

_ROWS = 64  # what is made of so many fits a processor's cache
_AT_ONCE = 128
_WORTH_COPYING = 0.75
_RIDGE = 1e-4
"""Added to the diagonal, as a share of its mean: units may be copies of each other."""


def expected_products(incoming: Blob, bias: Blob) -> _Matrix:
    """Return what every two units put out behind a ReLU, multiplied, on average.

    Args:
        incoming: Shape (units, inputs).
        bias: Shape (units,); it stands for a weight of an input of variance 1.

    Returns:
        Shape (units, units), symmetric.
    """
    weights = incoming.astype(np.float64)
    together = weights @ weights.T
    # Covariance of the inputs: weights^T weights, scaled to a mean variance of 1.
    scale = weights.shape[1] / max(float(np.trace(together)), 1e-300)
    sums = together @ together.T  # symmetric: BLAS does half of it
    sums *= scale
    lengths = np.sqrt(np.maximum(np.diag(sums) + bias * bias, 1e-300))
    for start in range(0, len(sums), _ROWS):
        rows = slice(start, start + _ROWS)
        sums[rows] += np.outer(bias[rows], bias)
        sums[rows] = _arc_cosine(sums[rows], np.outer(lengths[rows], lengths))
    return np.asarray(sums)


def _arc_cosine(sums: _Matrix, sizes: _Matrix) -> _Matrix:
    cosines = np.clip(sums / sizes, -1, 1)
    angles = np.arccos(cosines)
    return np.asarray(sizes * (np.sin(angles) + (np.pi - angles) * cosines) / (2 * np.pi))


def spread_order(
    products: _Matrix, outgoing: Blob, count: int
) -> tuple[NDArray[np.bool_], _Matrix]:
    """Choose the units that go, one after another, and who takes over how much.

    Args:
        products: As `expected_products` gives them, shape (units, units).
        outgoing: Shape (connections, units).
        count: How many units go, less than there are.

    Returns:
        Which units are kept, shape (units,), and by what the outgoing weights are to be multiplied
        from the right, shape (units, units): 0 in the columns of units that go.
    """
    units = len(products)
    ridge = _RIDGE * max(float(np.trace(products)) / units, 1e-300)
    inverse = _inverse(products + ridge * np.eye(units))
    leaving = outgoing.astype(np.float64)
    worth = leaving.T @ leaving
    places, left = np.arange(units), np.ones(units, np.bool_)  # of the matrices, and which are kept
    for done in range(0, count, _AT_ONCE):
        _delete_some(inverse, worth, left, min(count - done, _AT_ONCE))
        if done + _AT_ONCE >= count or left.sum() <= _WORTH_COPYING * left.size:
            inverse, worth = inverse[left][:, left], worth[left][:, left]
            places = places[left]
            left = np.ones(places.size, np.bool_)
    kept = np.zeros(units, np.bool_)
    kept[places] = True
    takes = np.zeros((units, units))
    takes[places, places] = 1
    takes[np.ix_(~kept, kept)] = products[np.ix_(~kept, kept)] @ inverse
    return kept, takes


def _delete_some(inverse: _Matrix, worth: _Matrix, kept: NDArray[np.bool_], count: int) -> None:
    """Let ``count`` units go, one after another; changes all three arrays.

    When unit g goes, ``inverse`` loses h·s·sᵀ and ``worth`` gains m·s·sᵀ - s·cᵀ - c·sᵀ: h and m are
    their diagonals at g, c is the column of ``worth``, s that of ``inverse`` over h. What is needed
    to choose the next are diagonals and single columns; so the matrices are changed once, in the
    end. What is left in them of units that are gone is of no account.
    """
    units = len(inverse)
    shares, columns = np.zeros((count, units)), np.zeros((count, units))
    heights, values = np.zeros(count), np.zeros(count)
    height, value = np.diag(inverse).copy(), np.diag(worth).copy()
    for step in range(count):
        cost = np.divide(value, height, out=np.full(units, np.inf), where=kept)
        gone = int(np.argmin(cost))
        past = slice(step)
        at, behind = shares[past, gone], columns[past, gone]
        row = inverse[gone] - (heights[past] * at) @ shares[past]
        share = row / row[gone]
        column = worth[gone] + (values[past] * at - behind) @ shares[past] - at @ columns[past]
        shares[step], columns[step] = share, column
        heights[step], values[step] = row[gone], column[gone]
        height -= row[gone] * np.square(share)
        value += column[gone] * np.square(share) - 2 * share * column
        kept[gone] = False
    less = heights[:, None] * shares
    left = np.concatenate([shares, columns])
    right = np.concatenate([values[:, None] * shares - columns, -shares])
    for start in range(0, units, _ROWS):  # in place: a copy of the whole takes longer
        rows = slice(start, start + _ROWS)
        inverse[rows] -= shares[:, rows].T @ less
        worth[rows] += left[:, rows].T @ right


def _inverse(matrix: _Matrix) -> _Matrix:
    """Invert a positive definite matrix by halves: nearly all of it is matrix products."""
    units = len(matrix)
    if units <= _AT_ONCE:
        return np.asarray(np.linalg.inv(matrix))
    half = units // 2
    first = _inverse(matrix[:half, :half])
    across = first @ matrix[:half, half:]
    last = _inverse(matrix[half:, half:] - matrix[half:, :half] @ across)
    whole = np.empty_like(matrix)
    whole[half:, half:] = last
    whole[:half, half:] = -across @ last
    whole[half:, :half] = whole[:half, half:].T
    whole[:half, :half] = first - whole[:half, half:] @ across.T
    return whole


def left_out_of_spreading(net: NetParameter, model: Caffemodel) -> dict[str, str]:
    """Return the layers with weights whose units cannot be spread, each with the reason.

    The reason is the end of a sentence that begins with the layer.

    Raises:
        SurgeryError: Net and weights do not fit together, or the net contradicts itself.
    """
    reasons = left_out_of_merging(net, model)
    channels = trace_channels(net, model)
    for name, ids in channels.units.items():
        if name in reasons:
            continue
        if not _is_rectified(net, name):
            reasons[name] = "has no ReLU behind it, for which alone it is known what units put out"
        elif any(len(set(_repeats(read, ids))) > 1 for _, _, read in _reading(channels, ids)):
            reasons[name] = "is read in parts, and units of one part cannot make up for another's"
    return reasons


def _reading(channels: Channels, ids: Ids) -> Iterator[tuple[BlobKey, int, Ids]]:
    """The blobs that read some channels: key, axis, and the channel of each place along it."""
    for key, blob in channels.blobs.items():
        read = None if blob.reads is None else blob.axes[blob.reads]
        if blob.reads is not None and read is not None and np.isin(read, ids).any():
            yield key, blob.reads, read


def _repeats(read: Ids, ids: Ids) -> list[int]:
    """How often each channel is read."""
    return [int((read == channel).sum()) for channel in ids.tolist()]


def _is_rectified(net: NetParameter, name: str) -> bool:
    try:
        (state,) = on_states(net, [name])
    except SurgeryError:
        return False
    return state.threshold == 0


def spread_units(
    net: NetParameter, model: Caffemodel, ratios: Mapping[str, float]
) -> tuple[Caffemodel, dict[str, NDArray[np.bool_]]]:
    """Spread units of layers over those that stay, the net's first layer first.

    Args:
        net: The definition.
        model: Its weights.
        ratios: Per layer, the share of its units that goes.

    Returns:
        The model at its full size with other outgoing weights, and per layer which units are kept,
        shape (units,): what `pruning.units.delete_units` takes.

    Raises:
        SurgeryError: A layer is none whose units can be spread, a ratio is out of range, weights
            are not finite, or net and weights do not fit.
        FormatError: The caffemodel lacks a layer.
    """
    channels = trace_channels(net, model)
    reasons = left_out_of_spreading(net, model)
    for name in ratios:
        if name in reasons or name not in channels.units:
            raise SurgeryError(f"layer '{name}' {reasons.get(name, 'has no units')}")
    kept = {}
    for name in [name for name in channels.units if name in ratios]:
        ids = channels.units[name]
        incoming, outgoing = weights_around(channels, model, [name], np.sort(ids))
        blobs = model.layer(name).blobs
        bias = blobs[1].reshape(-1) if len(blobs) > 1 else np.zeros(ids.size, np.float32)
        count = units_to_delete(ids.size, ratios[name])
        kept[name], takes = spread_order(expected_products(incoming, bias), outgoing, count)
        model = _with_spread(channels, model, ids, kept[name], takes)
    return model, kept


def _with_spread(
    channels: Channels, model: Caffemodel, ids: Ids, kept: NDArray[np.bool_], takes: _Matrix
) -> Caffemodel:
    changed: dict[BlobKey, Blob] = {}
    for key, axis, read in _reading(channels, ids):
        columns = np.moveaxis(model.layer(key[0]).blobs[key[1]], axis, 0).copy()
        places = np.stack([np.flatnonzero(read == channel) for channel in ids.tolist()])
        stay, gone = places[kept], places[~kept]
        more = np.tensordot(takes[np.ix_(~kept, kept)].T, columns[gone].astype(np.float64), axes=1)
        columns[stay] = columns[stay] + more
        columns[gone] = 0
        changed[key] = np.ascontiguousarray(np.moveaxis(columns, 0, axis))
    return model.with_blobs(changed)
