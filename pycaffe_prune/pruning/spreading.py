"""Units deleted without data, their outgoing weights spread over all units that stay.

Merging (`pruning.merging`) gives a unit's outgoing weights to one other. Here all units that stay
take over what best makes up for it, by least squares over inputs that are not seen but assumed:
normally distributed, with the covariance that the incoming weights themselves have, for gradient
descent adds up inputs in them. What two units behind a ReLU put out together has then a closed form
(the arc-cosine kernel of Cho and Saul 2009). A unit goes first whose loss costs least after that,
as in Optimal Brain Surgeon (Hassibi and Stork 1993), for units instead of weights.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
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
from pycaffe_prune.pruning.triangular import (
    inverse_of,
    mirror,
    put_lower_of_square,
    solve_upper,
)
from pycaffe_prune.pruning.unit_weights import weights_around

__all__ = ["expected_products", "left_out_of_spreading", "spread_order", "spread_units"]

_Matrix = NDArray[np.floating[Any]]

_ROWS = 64  # what is made of so many fits a processor's cache
_AHEAD = 128
"""The rows of so many units, the cheapest, follow what the others do."""
_TOGETHER = 96
"""After so many steps at the latest."""
_STILL = 7 / 8
"""When no more than this share of the units is left, those that are gone are forgotten."""
_CONNECTIONS = 256
"""Outgoing weights are changed so many connections at a time, within a processor's cache."""
_MOST_EXACT = 1024
"""Of more units the choice is made in float32, which takes half the time."""
_MOST_AMISS = 1e-2
"""How far a matrix times its inverse may be from 1 for a choice to rest on it."""
_RIDGE = 1e-4
"""Added to the diagonal, as a share of its mean: units may be copies of each other."""
_NOTHING = 1e-20
"""The mean where no unit puts out anything."""


def expected_products(incoming: Blob, bias: Blob) -> _Matrix:
    """Return what every two units put out behind a ReLU, multiplied, on average.

    Args:
        incoming: Shape (units, inputs).
        bias: Shape (units,); it stands for a weight of an input of variance 1.

    Returns:
        Shape (units, units), symmetric: float64, of many units float32. In units of the largest
        incoming weight's square, so that squares of squares stay in float32's range.
    """
    size = max(float(incoming.max(initial=0)), -float(incoming.min(initial=0))) or 1.0
    precision = _precision(len(incoming))
    weights = np.divide(_without_blank(incoming), precision(size), dtype=precision)
    together = np.empty((len(weights), len(weights)), weights.dtype)
    put_lower_of_square(weights, together)
    mirror(together)
    # Covariance of the inputs: weights^T weights, scaled to a mean variance of 1.
    scale = incoming.shape[1] / max(float(np.trace(together)), 1)
    offset = (bias / np.float64(size)).astype(weights.dtype)
    squares = scale * squared_lengths(together, precision) + np.square(offset)
    lengths = np.sqrt(np.maximum(squares, np.finfo(precision).tiny))
    together *= (precision(scale**0.5) / lengths)[:, np.newaxis]
    offset /= lengths
    lengths /= (2 * np.pi) ** 0.5
    sums = np.empty_like(together)
    put_lower_of_square(together, sums)
    for start in range(0, len(sums), _ROWS):
        rows, columns = slice(start, start + _ROWS), slice(start + _ROWS)
        part = sums[rows, columns]
        part += np.outer(offset[rows], offset[columns])
        _arc_cosine(part)
        part *= np.outer(lengths[rows], lengths[columns])
    mirror(sums)
    return sums


def _without_blank(incoming: Blob) -> Blob:
    """Leave out inputs that no unit reads: such are left of units that were spread before."""
    blank = np.flatnonzero((incoming[:1] == 0).all(axis=0))
    if blank.size:  # to take columns of what is mapped from a file copies all of it
        blank = blank[~incoming.take(blank, axis=1).any(axis=0)]
    if not blank.size:
        return incoming
    return incoming.take(np.setdiff1d(np.arange(incoming.shape[1]), blank), axis=1)


def _precision(units: int) -> type[np.floating[Any]]:
    return np.float64 if units <= _MOST_EXACT else np.float32


def _arc_cosine(cosines: _Matrix) -> None:
    """Put the kernel, for vectors of length (2π)^½, in place of the cosines between them."""
    np.clip(cosines, -1, 1, out=cosines)
    angles = np.arccos(cosines)
    sines = np.sin(angles)
    np.subtract(np.pi, angles, out=angles)
    cosines *= angles
    cosines += sines


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
        are kept).

    Raises:
        SurgeryError: The products cannot be inverted.
    """
    ridge = _RIDGE * max(float(np.trace(products)) / len(products), _NOTHING)
    order, shares = _chosen(_inverse_with(products, ridge), outgoing, count)
    kept = np.ones(len(products), np.bool_)
    kept[order] = False
    takes = shares.take(np.flatnonzero(kept), axis=1)
    # Shares are rows of the unit triangular factor of the inverse, whose blocks tell the solution.
    solve_upper(shares.take(order, axis=1), takes)
    takes *= -1
    return kept, takes[np.argsort(order)].astype(products.dtype, copy=False)


def _inverse_with(products: _Matrix, ridge: float) -> _Matrix:
    """Invert with the ridge: in the matrix's precision, or in float64 where that is too coarse."""
    if products.dtype != np.float64:
        probe = np.random.default_rng(0).choice([-1, 1], len(products)).astype(products.dtype)
        # Where it overflows, too, float64 may do.
        with suppress(np.linalg.LinAlgError), np.errstate(over="ignore", invalid="ignore"):
            inverse = inverse_of(products, ridge)
            solved = inverse @ probe
            if np.abs(products @ solved + ridge * solved - probe).max() <= _MOST_AMISS:
                return inverse
    with suppress(np.linalg.LinAlgError), np.errstate(over="ignore", invalid="ignore"):
        inverse = inverse_of(products.astype(np.float64, copy=False), ridge)
        if np.isfinite(inverse).all():
            return inverse
    raise SurgeryError(
        "what the units put out cannot be told apart: their incoming weights are too large, or too "
        "many are alike; delete or merge them instead"
    )


@dataclass
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
        at = shares.take(places, axis=1).T
        less = at * self.values[steps] - behind.take(places, axis=1).T
        # One product of both: BLAS is faster the more rows a matrix has.
        change = np.concatenate([at * self.heights[steps], less]) @ shares
        rows -= change[: len(at)]
        columns += change[len(at) :]
        columns -= at @ behind

    def narrow(self, units: NDArray[np.int64], done: int) -> None:
        """Forget all units but these; so many steps are done."""
        self.shares = _narrow(self.shares, units, done)
        self.columns = _narrow(self.columns, units, done)


def _narrow(matrix: _Matrix, columns: NDArray[np.int64], rows: int) -> _Matrix:
    """Keep some columns of the first rows, in the same memory."""
    taken = matrix[:rows].take(columns, axis=1)
    narrow = matrix.reshape(-1)[: len(matrix) * len(columns)].reshape(len(matrix), -1)
    narrow[:rows] = taken
    return narrow


def _chosen(inverse: _Matrix, outgoing: Blob, count: int) -> tuple[NDArray[np.int64], _Matrix]:
    """Return the units that go, in their order, and a row of shares for each.

    A row is the inverse's at that step over its diagonal: 1 at the unit's own place, and 0, but for
    rounding, at those that went before.

    Of the two matrices that each unit that goes changes, what is needed to choose the next are
    diagonals and its own rows. So the diagonals follow each step, and rows are made of the units
    that are cheapest at a time and follow from then on, a few steps at once: for a unit that is
    never near to going nothing is done. From time to time those that are gone are left out of
    ``units``, by whose places all but the result counts.
    """
    # A copy: what is mapped from a file is not aligned, and BLAS takes twice the time for it.
    worth = np.empty_like(inverse)
    put_lower_of_square(outgoing.astype(inverse.dtype).T, worth)
    mirror(worth)
    units = np.arange(len(inverse))
    order, all_shares = np.empty(count, np.int64), np.zeros((count, len(units)), inverse.dtype)
    # In float64, for they follow every step: so many roundings would change the choice.
    height, value = np.diag(inverse).astype(np.float64), np.diag(worth).astype(np.float64)
    kept, cost = np.ones(len(units), np.bool_), value / height
    gone, start, done = _Gone.none(count, len(units), inverse.dtype), 0, 0
    ahead = np.zeros(0, np.int64)
    rows, columns = inverse[ahead], worth[ahead]
    while done < count:
        still = kept[ahead]
        ahead, rows, columns = ahead[still], rows[still], columns[still]
        gone.change(slice(start, done), ahead, rows, columns)
        start = done
        left = np.flatnonzero(kept)
        if len(left) < _STILL * len(units):
            gone.narrow(left, done)
            rows, columns = rows.take(left, axis=1), columns.take(left, axis=1)
            units, height, value, cost = units[left], height[left], value[left], cost[left]
            ahead, kept = np.searchsorted(left, ahead), kept[left]
            left = np.arange(len(units))
        cheapest = left[np.argsort(cost[left], kind="stable")[:_AHEAD]]
        new = cheapest[~np.isin(cheapest, ahead)]
        new_rows, new_columns = (each[units[new]].take(units, axis=1) for each in (inverse, worth))
        gone.change(slice(done), new, new_rows, new_columns)
        ahead = np.concatenate([ahead, new])
        rows, columns = np.concatenate([rows, new_rows]), np.concatenate([columns, new_columns])
        place = {unit: index for index, unit in enumerate(ahead.tolist())}
        unit = int(cheapest[0])
        while done < count and unit in place:
            if done - start == _TOGETHER:
                gone.change(slice(start, done), ahead, rows, columns)
                start = done
            at = slice(place[unit], place[unit] + 1)
            row, column = rows[at], columns[at]
            gone.change(slice(start, done), [unit], row, column)
            row, column = row[0], column[0]
            share = np.divide(row, row[unit], out=gone.shares[done])
            gone.columns[done] = column
            gone.heights[done], gone.values[done] = row[unit], column[unit]
            order[done], all_shares[done, units] = units[unit], share
            height -= share * row
            value += share * (column[unit] * share - 2 * column)
            kept[unit], height[unit], value[unit] = False, 1, np.inf  # it costs inf from now on
            unit = int(np.argmin(np.divide(value, height, out=cost)))
            done += 1
    return order, all_shares


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
        elif any(_places(read, ids) is None for _, _, read in _reading(channels, ids)):
            reasons[name] = "is read in parts, and units of one part cannot make up for another's"
    return reasons


def _reading(channels: Channels, ids: Ids) -> Iterator[tuple[BlobKey, int, Ids]]:
    """The blobs that read some channels: key, axis, and the channel of each place along it."""
    for key, blob in channels.blobs.items():
        read = None if blob.reads is None else blob.axes[blob.reads]
        if blob.reads is not None and read is not None and np.isin(read, ids).any():
            yield key, blob.reads, read


def _places(read: Ids, ids: Ids) -> Ids | None:
    """Where each of the channels is read, a row each, the lowest first; None: not equally often."""
    read = read.reshape(-1)
    order = np.argsort(read, kind="stable")
    places = order[np.isin(read[order], ids)]
    found, times = np.unique(read[places], return_counts=True)
    if len(found) < len(ids) or (times != times[0]).any():
        return None
    return places.reshape(len(ids), -1)


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
        places = _places(read, ids)
        assert places is not None  # noqa: S101  (`left_out_of_spreading` has seen to it)
        others = np.flatnonzero(~np.isin(read, ids))
        stay, gone = places[kept].T, places[~kept].T
        columns = np.concatenate([others, *stay, *gone])
        source = np.empty_like(columns)
        source[columns] = np.arange(len(columns))
        after = np.empty_like(before)
        for start in range(0, len(before), _CONNECTIONS):
            rows = slice(start, start + _CONNECTIONS)
            after[rows] = _taken_over(before[rows], others, stay, gone, takes).take(source, axis=1)
        restored = np.moveaxis(after.reshape(moved.shape), -1, axis)
        changed[key] = np.ascontiguousarray(restored)
    return model.with_blobs(changed)


def _taken_over(rows: Blob, others: Ids, stay: Ids, gone: Ids, takes: _Matrix) -> Blob:
    """Return the columns of what is no channel, of the channels that stay, and zeros, in turn."""
    # Taken out and put together again: to index columns takes five times as long.
    parts = [rows.take(others, axis=1)]
    for kept, left in zip(stay, gone, strict=True):
        more = rows.take(left, axis=1).astype(takes.dtype, copy=False) @ takes
        parts.append((rows.take(kept, axis=1) + more).astype(rows.dtype, copy=False))
    return np.concatenate([*parts, np.zeros((len(rows), gone.size), rows.dtype)], axis=1)
