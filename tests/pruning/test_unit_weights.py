import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.channel_trace import trace_channels
from pycaffe_prune.net.channels import Channels
from pycaffe_prune.pruning.coupled import coupled_layers
from pycaffe_prune.pruning.unit_weights import weights_around
from tests.pruning.random_nets import nets, random_weights


def by_hand(channels: Channels, model: Caffemodel) -> tuple[np.ndarray, np.ndarray]:
    """Sums of absolute weights into and out of each channel, one index after another."""
    into, out_of = np.zeros(channels.count), np.zeros(channels.count)
    for (name, index), blob in channels.blobs.items():
        if index or blob.reads is None:
            continue
        weights = np.abs(model.layer(name).blobs[0])
        units = channels.units[name]
        axis = 0 if blob.reads == 1 else 1
        for unit, channel in enumerate(units.tolist()):
            into[channel] += weights.take(unit, axis=axis).sum()
        ids = blob.axes[blob.reads]
        if ids is None:
            continue
        rows = ids.reshape(-1, ids.shape[-1])  # one row, or one for each group of filters
        for part, row in zip(np.split(weights, len(rows)), rows.tolist(), strict=True):
            for place, channel in enumerate(row):
                out_of[channel] += part.take(place, axis=blob.reads).sum()
    return into, out_of


@given(nets(), st.integers(0, 99))
def test_each_weight_around_a_channel_is_there_once(net: NetParameter, seed: int) -> None:
    model = random_weights(net, seed)
    channels = trace_channels(net, model)
    into, out_of = by_hand(channels, model)
    for coupled in coupled_layers(channels):
        if all(channel in channels.fixed for channel in coupled.ids.tolist()):
            continue
        incoming, outgoing = weights_around(channels, model, coupled.layers, coupled.ids)
        assert incoming.dtype == outgoing.dtype == np.float32
        assert incoming.shape[0] == outgoing.shape[1] == len(coupled.ids)
        np.testing.assert_allclose(np.abs(incoming).sum(axis=1), into[coupled.ids], rtol=1e-4)
        np.testing.assert_allclose(np.abs(outgoing).sum(axis=0), out_of[coupled.ids], rtol=1e-4)


@given(nets())
def test_weights_that_are_not_finite_are_named(net: NetParameter) -> None:
    model = random_weights(net, 0)
    channels = trace_channels(net, model)
    first = coupled_layers(channels)[0]
    if all(channel in channels.fixed for channel in first.ids.tolist()):
        return
    weights = model.layer(first.layers[0]).blobs[0].copy()
    weights.reshape(-1)[0] = np.nan
    bad = model.with_blobs({(first.layers[0], 0): weights})
    with pytest.raises(SurgeryError, match=f"layer '{first.layers[0]}', blob 0 .* NaN or infinite"):
        weights_around(channels, bad, first.layers, first.ids)
