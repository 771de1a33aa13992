"""The weights into and out of channels, arranged as the criteria read them."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.net.channels import BlobChannels, Channels, Ids
from pycaffe_prune.pruning.counts import require_finite

__all__ = ["columns_read", "weights_around", "with_zeros"]


def weights_around(
    channels: Channels, model: Caffemodel, layers: Sequence[str], ids: Ids
) -> tuple[Blob, Blob]:
    """Return the weights into and out of the channels ``ids``.

    Args:
        channels: All channels of the net.
        model: Its weights.
        layers: The layers that make these channels.
        ids: Their channels, ascending.

    Returns:
        incoming: float32, (channels, inputs): the weights of the units of all ``layers``.
        outgoing: float32, (connections, channels): the weights by which other layers read them,
            every kernel position and every pixel of a flattened map counted; 0 where a layer reads
            some of the channels only. Biases, BatchNorm and Scale are in neither.

    Raises:
        SurgeryError: Weights are not finite.
        FormatError: The caffemodel lacks a layer.
    """
    place = np.full(channels.count, -1, np.int64)
    place[ids] = np.arange(len(ids))
    readers = list(_readers(channels, place))
    require_finite(model, dict.fromkeys([*layers, *(name for name, _ in readers)]))
    incoming = []
    for name in layers:
        rows, made = _rows(
            _weights(model, (name, 0)), channels.blobs[name, 0], channels.units[name]
        )
        incoming.append(_by_channel(rows.T, place[made], len(ids)))
    outgoing = []
    for key in readers:
        columns, read = columns_read(_weights(model, key), channels.blobs[key])
        wanted = place[read] >= 0
        if not wanted.all():
            columns, read = columns[:, wanted], read[wanted]
        outgoing.append(_by_channel(columns, place[read], len(ids)))
    return _stacked(incoming).T, _stacked(outgoing)


def _stacked(parts: Sequence[Blob]) -> Blob:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _weights(model: Caffemodel, key: BlobKey) -> Blob:
    layer = model.layer(key[0])
    if not layer.blobs:
        raise SurgeryError(
            f"layer '{layer.name}' of the caffemodel holds no weights; use the caffemodel that "
            "belongs to this net"
        )
    return layer.blobs[key[1]]


def _readers(channels: Channels, place: NDArray[np.int64]) -> Iterator[BlobKey]:
    """The blobs that read any of the channels; blob 0 of a layer that lacks the one that does."""
    for name, read in channels.readers.items():
        if (place[read] >= 0).any():
            reading = [
                (layer, index)
                for (layer, index), blob in channels.blobs.items()
                if layer == name and _reads_any(blob, place)
            ]
            yield from reading or [(name, 0)]


def _reads_any(blob: BlobChannels, place: NDArray[np.int64]) -> bool:
    ids = None if blob.reads is None else blob.axes[blob.reads]
    return ids is not None and bool((place[ids] >= 0).any())


def _rows(weights: Blob, blob: BlobChannels, units: Ids) -> tuple[Blob, Ids]:
    """Return weights with a unit's inputs in a row, (rows, inputs), and the unit of each row."""
    first, second = blob.axes[:2]
    if blob.reads == 1 and first is not None and len(first) > units.size:  # the gates of LSTM
        return weights, first
    if blob.reads is None and first is None and second is not None:  # Embed
        return weights.T, second
    if blob.reads == 0:  # Deconvolution, whose second axis are the filters of a group; transposed
        groups = len(second) if second is not None and second.ndim == 2 else 1
        weights = np.moveaxis(weights.reshape(groups, -1, *weights.shape[1:]), 2, 1)
    return weights.reshape(units.size, -1), units


def columns_read(weights: Blob, blob: BlobChannels) -> tuple[Blob, Ids]:
    """Return weights with what they read along the last axis.

    Returns:
        The weights, float32 (connections, inputs), and the channel of each input, (inputs,).
    """
    assert blob.reads is not None  # noqa: S101  (the caller's condition, told to mypy)
    ids = blob.axes[blob.reads]
    assert ids is not None  # noqa: S101  (as above)
    if ids.ndim == 1:
        moved = np.moveaxis(weights, blob.reads, -1)
        return moved.reshape(-1, moved.shape[-1]), ids
    # Filters of group g read the inputs of group g: the groups go side by side.
    groups, inputs = ids.shape
    grouped = np.moveaxis(weights.reshape(groups, -1, *weights.shape[1:]), 2, -1)
    columns = grouped.reshape(groups, -1, inputs).transpose(1, 0, 2).reshape(-1, groups * inputs)
    return columns, ids.reshape(-1)


def _by_channel(columns: Blob, place: NDArray[np.int64], channels: int) -> Blob:
    """Bring (connections, inputs) to (connections × repeats, channels)."""
    if len(place) == channels and (place == np.arange(channels)).all():
        return columns
    repeats = np.bincount(place, minlength=channels)
    most = int(repeats.max())
    order = np.argsort(place, kind="stable")
    if (np.diff(order) != 1).any():
        columns = columns[:, order]
    if (repeats == most).all():
        cube = columns.reshape(len(columns), channels, most)
        return cube.transpose(0, 2, 1).reshape(-1, channels)
    starts = np.cumsum(repeats) - repeats
    rank = np.arange(len(place)) - np.repeat(starts, repeats)
    cube = np.zeros((most, len(columns), channels), np.float32)
    cube[rank, :, place[order]] = columns.T
    return cube.reshape(-1, channels)


def with_zeros(weights: Blob, axis: int, ids: Ids, gone: NDArray[np.bool_]) -> Blob:
    """Return a copy of a parameter blob with zeros at channels that go.

    Args:
        weights: The blob.
        axis: Along which the channels lie.
        ids: As in `BlobChannels.axes`.
        gone: Shape (all channels of the net,).
    """
    zeroed = weights.copy()
    parts = [zeroed] if ids.ndim == 1 else np.split(zeroed, len(ids))
    for part, flags in zip(parts, gone[np.atleast_2d(ids)], strict=True):
        np.moveaxis(part, axis, 0)[flags] = 0
    return zeroed
