"""Units deleted without data, their outgoing weights spread over all units that stay.

Merging (`pruning.merging`) gives a unit's outgoing weights to one other. Here all units that stay
take over what best makes up for it, by least squares over inputs that are not seen but assumed:
normally distributed, with the covariance that the incoming weights themselves have, for gradient
descent adds up inputs in them. What two units behind a ReLU put out together has then a closed form
(the arc-cosine kernel of Cho and Saul 2009). A unit goes first whose loss costs least after that,
as in Optimal Brain Surgeon (Hassibi and Stork 1993), for units instead of weights.
"""

from collections.abc import Iterator, Mapping
from typing import Any

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

_Matrix = NDArray[np.floating[Any]]

_ROWS = 64  # what is made of so many fits a processor's cache
_PARTS = 128
_AT_ONCE = 128
_WORTH_COPYING = 0.75
_MOST_EXACT = 1024
"""Of more units the choice is made in float32, which takes half the time."""
_MOST_AMISS = 1e-2
"""How far a matrix times its inverse may be from 1 for a choice to rest on it."""
_RIDGE = 1e-4
"""Added to the diagonal, as a share of its mean: units may be copies of each other."""


def expected_products(incoming: Blob, bias: Blob) -> _Matrix:
    """Return what every two units put out behind a ReLU, multiplied, on average.

    Args:
        incoming: Shape (units, inputs).
        bias: Shape (units,); it stands for a weight of an input of variance 1.

    Returns:
        Shape (units, units), symmetric: float64, of many units float32.
    """
    size = float(np.sqrt(np.square(incoming, dtype=np.float64).mean())) or 1.0
    weights = (incoming / np.float64(size)).astype(_precision(len(incoming)), copy=False)
    together = weights @ weights.T
    # Covariance of the inputs: weights^T weights, scaled to a mean variance of 1.
    scale = weights.shape[1] / max(float(np.trace(together)), 1e-300)
    sums = together @ together.T  # symmetric: BLAS does half of it
    sums *= scale
    offset = (bias / np.float64(size)).astype(weights.dtype)
    lengths = np.sqrt(np.maximum(np.diag(sums) + np.square(offset), np.finfo(sums.dtype).tiny))
    for start in range(0, len(sums), _ROWS):
        rows = slice(start, start + _ROWS)
        sums[rows] += np.outer(offset[rows], offset)
        sums[rows] = _arc_cosine(sums[rows], np.outer(lengths[rows], lengths))
    sums *= size * size
    return np.asarray(sums)


def _precision(units: int) -> type[np.floating[Any]]:
    return np.float64 if units <= _MOST_EXACT else np.float32


def _arc_cosine(sums: _Matrix, sizes: _Matrix) -> _Matrix:
    cosines = np.clip(sums / sizes, -1, 1)
    angles = np.arccos(cosines)
    pi = sums.dtype.type(np.pi)
    return np.asarray(sizes * (np.sin(angles) + (pi - angles) * cosines) / (2 * pi))


def spread_order(
    products: _Matrix, outgoing: Blob, count: int
) -> tuple[NDArray[np.bool_], _Matrix]:
    """Choose the units that go, one after another, and who takes over how much.

    Args:
        products: As `expected_products` gives them, shape (units, units). Units are chosen in its
            precision, if its inverse bears that.
        outgoing: Shape (connections, units).
        count: How many units go, less than there are.

    Returns:
        Which units are kept, shape (units,), and by what the outgoing weights are to be multiplied
        from the right, float64, shape (units, units): 0 in the columns of units that go.

    Raises:
        SurgeryError: The products cannot be inverted.
    """
    units = len(products)
    ridge = _RIDGE * max(float(np.trace(products)) / units, 1e-300)
    kept = _chosen(_inverse_with(products, ridge), outgoing, count)
    takes = np.zeros((units, units))
    takes[kept, kept] = 1
    within = products[np.ix_(kept, kept)].astype(np.float64)
    np.einsum("ii->i", within)[:] += ridge
    takes[np.ix_(~kept, kept)] = products[np.ix_(~kept, kept)] @ _inverse(within)
    return kept, takes


def _inverse_with(products: _Matrix, ridge: float) -> _Matrix:
    """Invert with the ridge: in the matrix's precision, or in float64 where that is too coarse."""
    matrix = products.copy()
    np.einsum("ii->i", matrix)[:] += ridge
    if matrix.dtype == np.float64:
        return _inverse(matrix)
    probe = np.random.default_rng(0).choice([-1, 1], len(matrix)).astype(matrix.dtype)
    try:
        inverse = _inverse(matrix)
        if np.abs(matrix @ (inverse @ probe) - probe).max() <= _MOST_AMISS:
            return inverse
    except SurgeryError:
        pass  # float64 may do
    return _inverse(matrix.astype(np.float64))


def _chosen(inverse: _Matrix, outgoing: Blob, count: int) -> NDArray[np.bool_]:
    """Return which units are kept; ``inverse`` is used up."""
    units = len(inverse)
    leaving = outgoing.astype(inverse.dtype, copy=False)
    worth = leaving.T @ leaving
    places, left = np.arange(units), np.ones(units, np.bool_)  # of the matrices, and which are kept
    for done in range(0, count, _AT_ONCE):
        if left.sum() <= _WORTH_COPYING * left.size:
            both = np.ix_(left, left)
            inverse, worth = inverse[both], worth[both]
            places = places[left]
            left = np.ones(places.size, np.bool_)
        _delete_some(inverse, worth, left, min(count - done, _AT_ONCE))
    kept = np.zeros(units, np.bool_)
    kept[places[left]] = True
    return kept


def _delete_some(inverse: _Matrix, worth: _Matrix, kept: NDArray[np.bool_], count: int) -> None:
    """Let ``count`` units go, one after another; changes all three arrays.

    When unit g goes, ``inverse`` loses h·s·sᵀ and ``worth`` gains m·s·sᵀ - s·cᵀ - c·sᵀ: h and m are
    their diagonals at g, c is the column of ``worth``, s that of ``inverse`` over h. What is needed
    to choose the next are diagonals and single columns; so the matrices are changed once, in the
    end, and both being symmetric, on and above the diagonal alone. What is left in them of units
    that are gone is of no account.
    """
    units = len(inverse)
    shares, columns = np.zeros((2, count, units), inverse.dtype)
    heights, values = np.zeros((2, count), inverse.dtype)
    height, value = np.diag(inverse).copy(), np.diag(worth).copy()
    for step in range(count):
        cost = np.divide(value, height, out=np.full(units, np.inf, value.dtype), where=kept)
        gone = int(np.argmin(cost))
        past = slice(step)
        at, behind = shares[past, gone], columns[past, gone]
        row = _row(inverse, gone) - (heights[past] * at) @ shares[past]
        share = row / row[gone]
        column = _row(worth, gone) + (values[past] * at - behind) @ shares[past]
        column -= at @ columns[past]
        shares[step], columns[step] = share, column
        heights[step], values[step] = row[gone], column[gone]
        height -= row[gone] * np.square(share)
        value += share * (column[gone] * share - 2 * column)
        kept[gone] = False
    less = heights[:, None] * shares
    left = np.concatenate([shares, columns])
    right = np.concatenate([values[:, None] * shares - columns, -shares])
    for start in range(0, units, _PARTS):  # in place: a copy of the whole takes longer
        rows, behind_them = slice(start, start + _PARTS), slice(start, None)
        inverse[rows, behind_them] -= shares[:, rows].T @ less[:, behind_them]
        worth[rows, behind_them] += left[:, rows].T @ right[:, behind_them]


def _row(upper: _Matrix, place: int) -> _Matrix:
    """A row of a symmetric matrix of which the upper half is there."""
    return np.concatenate([upper[:place, place], upper[place, place:]])


def _inverse(matrix: _Matrix) -> _Matrix:
    """Invert a positive definite matrix.

    Raises:
        SurgeryError: It is none in its precision.
    """
    try:
        root = _inverse_root(matrix)
    except np.linalg.LinAlgError as error:
        raise SurgeryError(
            "what the units put out cannot be told apart: their incoming weights are too large, or "
            "too many are alike; delete or merge them instead"
        ) from error
    return np.asarray(root.T @ root)


def _inverse_root(matrix: _Matrix) -> _Matrix:
    """Return the inverse of Cholesky's factor, by halves: nearly all of it is matrix products."""
    if len(matrix) <= _AT_ONCE:
        return np.asarray(np.linalg.inv(np.linalg.cholesky(matrix)))
    half = len(matrix) // 2
    first = _inverse_root(matrix[:half, :half])
    across = matrix[half:, :half] @ first.T
    last = _inverse_root(matrix[half:, half:] - across @ across.T)
    whole = np.zeros_like(matrix)
    whole[:half, :half] = first
    whole[half:, half:] = last
    whole[half:, :half] = -last @ (across @ first)
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
