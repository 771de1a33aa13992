"""Units deleted without data, their outgoing weights spread over all units that stay.

Merging (`pruning.merging`) gives a unit's outgoing weights to one other. Here all units that stay
take over what best makes up for it, by least squares over inputs that are not seen but assumed:
normally distributed, with the covariance that the incoming weights themselves have, for gradient
descent adds up inputs in them. What two units behind a ReLU put out together has then a closed form
(the arc-cosine kernel of Cho and Saul 2009). A unit goes first whose loss costs least after that,
as in Optimal Brain Surgeon (Hassibi and Stork 1993), for units instead of weights.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from pycaffe_prune.pruning.criteria.units import squared_lengths, units_to_delete
from pycaffe_prune.pruning.merging import left_out_of_merging
from pycaffe_prune.pruning.unit_weights import weights_around

__all__ = ["expected_products", "left_out_of_spreading", "spread_order", "spread_units"]

_Matrix = NDArray[np.floating[Any]]

_ROWS = 64  # what is made of so many fits a processor's cache
_PARTS = 4
_AT_LEAST = 128
_AHEAD = 128
_TOGETHER = 64
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
    mean = float(squared_lengths(incoming, np.float64).sum()) / max(incoming.size, 1)
    size = mean**0.5 or 1.0
    weights = np.empty(incoming.shape, _precision(len(incoming)))
    np.divide(incoming, size, out=weights, dtype=np.float64, casting="same_kind")
    together = weights @ weights.T
    # Covariance of the inputs: weights^T weights, scaled to a mean variance of 1.
    scale = weights.shape[1] / max(float(np.trace(together)), 1e-300)
    sums = together @ together.T  # symmetric: BLAS does half of it
    offset = (bias / np.float64(size)).astype(weights.dtype)
    squares = scale * np.diag(sums) + np.square(offset)
    lengths = np.sqrt(np.maximum(squares, np.finfo(sums.dtype).tiny))
    for start in range(0, len(sums), _ROWS):
        rows = slice(start, start + _ROWS)
        part = sums[rows]
        part *= scale
        part += np.outer(offset[rows], offset)
        _arc_cosine(part, np.outer(lengths[rows], lengths))
        part *= size * size
    return np.asarray(sums)


def _precision(units: int) -> type[np.floating[Any]]:
    return np.float64 if units <= _MOST_EXACT else np.float32


def _arc_cosine(sums: _Matrix, sizes: _Matrix) -> None:
    """Put what two units put out in place of their covariances; ``sizes`` is used up."""
    sums /= sizes
    cosines = np.clip(sums, -1, 1, out=sums)
    angles = np.arccos(cosines)
    sines = np.sin(angles)
    np.subtract(np.pi, angles, out=angles)
    cosines *= angles
    sums += sines
    sizes /= 2 * np.pi
    sums *= sizes


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
        Which units are kept, shape (units,), and by what the outgoing weights of those that go are
        to be multiplied from the right to be added to the others', shape (units that go, units that
        are kept): solved in float64, told in the precision of ``products``.

    Raises:
        SurgeryError: The products cannot be inverted.
    """
    ridge = _RIDGE * max(float(np.trace(products)) / len(products), 1e-300)
    kept = _chosen(_inverse_with(products, ridge), outgoing, count)
    within = products[np.ix_(kept, kept)].astype(np.float64)
    np.einsum("ii->i", within)[:] += ridge
    across = products[np.ix_(kept, ~kept)].astype(np.float64)
    return kept, np.linalg.solve(within, across).T.astype(products.dtype, copy=False)


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


@dataclass(frozen=True)
class _Gone:
    """What the units that are gone have done to two matrices, one a row, in their order.

    When unit g goes, the inverse of the products loses h·s·sᵀ, and the products of the outgoing
    weights gain m·s·sᵀ - s·cᵀ - c·sᵀ: h and m are their diagonals at g, c is the column of the
    latter, s that of the former over h.
    """

    shares: _Matrix
    columns: _Matrix
    heights: _Matrix
    values: _Matrix

    @classmethod
    def none(cls, count: int, units: int, dtype: "np.dtype[Any]") -> "_Gone":
        """Room for so many."""
        shares, columns = np.empty((2, count, units), dtype)
        return cls(shares, columns, *np.empty((2, count), dtype))

    def change(self, steps: slice, places: Any, rows: _Matrix, columns: _Matrix) -> None:
        """Let some rows of both matrices, in place, follow these steps."""
        shares, behind = self.shares[steps], self.columns[steps]
        at = shares[:, places].T
        rows -= (at * self.heights[steps]) @ shares
        columns += (at * self.values[steps] - behind[:, places].T) @ shares
        columns -= at @ behind


def _chosen(inverse: _Matrix, outgoing: Blob, count: int) -> NDArray[np.bool_]:
    """Return which units are kept.

    Of the two matrices that each unit that goes changes, what is needed to choose the next are
    diagonals and its own rows. So the diagonals follow each step, and rows are made of the units
    that are cheapest at a time and follow from then on, a few steps at once: for a unit that is
    never near to going nothing is done.
    """
    units = len(inverse)
    leaving = outgoing.astype(inverse.dtype, copy=False)
    worth = leaving.T @ leaving
    # In float64, for they follow every step: so many roundings would change the choice.
    height, value = np.diag(inverse).astype(np.float64), np.diag(worth).astype(np.float64)
    kept, cost = np.ones(units, np.bool_), np.full(units, np.inf)
    np.divide(value, height, out=cost)
    gone, done = _Gone.none(count, units, inverse.dtype), 0
    ahead = np.zeros(0, np.int64)
    rows, columns = inverse[ahead], worth[ahead]
    while done < count:
        left = np.flatnonzero(kept)
        cheapest = left[np.argsort(cost[left], kind="stable")[:_AHEAD]]
        new = cheapest[~np.isin(cheapest, ahead)]
        new_rows, new_columns = inverse[new], worth[new]
        gone.change(slice(done), new, new_rows, new_columns)
        still = kept[ahead]
        ahead = np.concatenate([ahead[still], new])
        rows = np.concatenate([rows[still], new_rows])
        columns = np.concatenate([columns[still], new_columns])
        place = {unit: index for index, unit in enumerate(ahead.tolist())}
        start, unit = done, int(cheapest[0])
        while done < count and unit in place:
            row, column = rows[place[unit]], columns[place[unit]]
            gone.change(slice(start, done), unit, row, column)
            share = row / row[unit]
            gone.shares[done], gone.columns[done] = share, column
            gone.heights[done], gone.values[done] = row[unit], column[unit]
            height -= share * row
            value += share * (column[unit] * share - 2 * column)
            kept[unit], cost[unit] = False, np.inf
            np.divide(value, height, out=cost, where=kept)
            unit = int(np.argmin(cost))
            done += 1
            if done - start == _TOGETHER or unit not in place:
                gone.change(slice(start, done), ahead, rows, columns)
                start = done
    return kept


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
    inverse = np.empty_like(matrix)
    _fill_with_square(root, inverse)
    return inverse


def _inverse_root(matrix: _Matrix) -> _Matrix:
    """Return the inverse of Cholesky's factor, by halves: nearly all of it is matrix products."""
    if len(matrix) <= _AT_LEAST:
        return np.tril(np.linalg.inv(np.linalg.cholesky(matrix)))
    half = len(matrix) // 2
    first = _inverse_root(matrix[:half, :half])
    across = np.empty_like(matrix[half:, :half])
    for part in _parts(half):
        across[:, part] = matrix[half:, : part.stop] @ first[part, : part.stop].T
    last = _inverse_root(matrix[half:, half:] - across @ across.T)
    whole = np.zeros_like(matrix)
    whole[:half, :half], whole[half:, half:] = first, last
    between = np.empty_like(across)
    for part in _parts(half):
        between[:, part] = across[:, part.start :] @ first[part.start :, part]
    for part in _parts(len(last)):
        whole[half:, :half][part] = -last[part, : part.stop] @ between[: part.stop]
    return whole


def _fill_with_square(lower: _Matrix, whole: _Matrix) -> None:
    """Put the transpose of a lower triangular matrix times itself into a matrix, by halves."""
    if len(lower) <= _AT_LEAST:
        whole[...] = lower.T @ lower
        return
    half = len(lower) // 2
    across, last = lower[half:, :half], lower[half:, half:]
    _fill_with_square(lower[:half, :half], whole[:half, :half])
    whole[:half, :half] += across.T @ across
    for part in _parts(len(last)):
        whole[half:, :half][part] = last[part.start :, part].T @ across[part.start :]
    whole[:half, half:] = whole[half:, :half].T
    _fill_with_square(last, whole[half:, half:])


def _parts(size: int) -> list[slice]:
    """A few parts of a triangular matrix: what is 0 beside each is left out of a product."""
    length = max(-(-size // _PARTS), _AT_LEAST)
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]


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
        moved = np.moveaxis(model.layer(key[0]).blobs[key[1]], axis, -1)
        before = moved.reshape(-1, moved.shape[-1])
        after = before.copy()
        places = np.stack([np.flatnonzero(read == channel) for channel in ids.tolist()])
        for stay, gone in zip(places[kept].T, places[~kept].T, strict=True):
            after[:, stay] += before[:, gone].astype(takes.dtype, copy=False) @ takes
            after[:, gone] = 0
        changed[key] = np.ascontiguousarray(np.moveaxis(after.reshape(moved.shape), -1, axis))
    return model.with_blobs(changed)
