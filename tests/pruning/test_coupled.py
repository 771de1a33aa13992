import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.net.channel_trace import trace_channels
from pycaffe_prune.net.channels import Channels
from pycaffe_prune.pruning.coupled import Coupled, channels_to_delete, coupled_layers
from tests.pruning.random_nets import nets

INPUT = (
    'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 4, 2, 2] } } }'
)


def conv(name: str, bottom: str, outputs: int, group: int = 1) -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
        f"convolution_param {{ num_output: {outputs} kernel_size: 1 group: {group} }} }}\n"
    )


def traced(*parts: str) -> Channels:
    return trace_channels(text_format.Parse(INPUT + "".join(parts), NetParameter()))


def of(channels: Channels, name: str) -> Coupled:
    return next(coupled for coupled in coupled_layers(channels) if name in coupled.layers)


def concat(*bottoms: str) -> str:
    listed = " ".join(f'bottom: "{name}"' for name in bottoms)
    return f'layer {{ name: "x" type: "Concat" {listed} top: "x" }}\n'


def out(bottom: str) -> str:
    return (
        f'layer {{ name: "out" type: "InnerProduct" bottom: "{bottom}" top: "out" '
        "inner_product_param { num_output: 2 } }"
    )


@given(nets())
def test_every_layer_with_units_is_in_one_coupling_with_all_that_share_its_channels(
    net: NetParameter,
) -> None:
    channels = trace_channels(net)
    found = coupled_layers(channels)
    assert sorted(name for coupled in found for name in coupled.layers) == sorted(channels.units)
    seen: set[int] = set()
    for coupled in found:
        own = {c for name in coupled.layers for c in channels.units[name].tolist()}
        assert sorted(own) == coupled.ids.tolist()
        assert not own & seen
        seen |= own


@given(nets(), st.floats(0, 0.95), st.integers(0, 99))
def test_the_share_goes_lowest_first_and_nothing_loses_its_last_channel(
    net: NetParameter, ratio: float, seed: int
) -> None:
    channels = trace_channels(net)
    for coupled in coupled_layers(channels):
        scores = np.random.default_rng(seed).random(len(coupled.ids))
        try:
            gone = channels_to_delete(channels, coupled, scores, ratio)
        except SurgeryError:
            continue  # groups that cross each other
        assert np.isin(gone, coupled.ids).all()
        assert not any(channel in channels.fixed for channel in gone.tolist())
        groups = max((len(grouping.ids) for grouping in coupled.groupings), default=0)
        # Each group, and what is in none, is rounded by itself.
        assert len(gone) <= ratio * len(coupled.ids) + (groups + 1) / 2
        for name in coupled.layers:
            assert not np.isin(channels.units[name], gone).all()
        for grouping in coupled.groupings:
            left = (~np.isin(grouping.ids, gone)).sum(axis=1)
            assert (left == left[0]).all()
            assert left[0] > 0
        free = [c for c in coupled.ids.tolist() if c not in channels.fixed]
        is_plain = len(coupled.layers) == 1 and not coupled.groupings and not channels.slices
        if is_plain and len(free) == len(coupled.ids):
            assert len(gone) == min(round(ratio * len(free)), len(free) - 1)
            kept = ~np.isin(coupled.ids, gone)
            assert scores[~kept].max(initial=0) < scores[kept].min()


def test_layers_that_fill_the_groups_of_one_convolution_are_chosen_together() -> None:
    channels = traced(
        conv("a", "data", 4), conv("b", "data", 4), concat("a", "b"), conv("g", "x", 2, group=2),
        out("g"),
    )  # fmt: skip
    coupled = of(channels, "a")
    assert coupled.layers == ("a", "b")
    scores = np.array([5, 6, 7, 8, 1, 2, 3, 4])  # b has the lowest, yet both must lose two
    gone = channels_to_delete(channels, coupled, scores.astype(np.float64), 0.5)
    assert sorted(gone.tolist()) == sorted(
        [*channels.units["a"][:2].tolist(), *channels.units["b"][:2].tolist()]
    )


def test_finer_groups_keep_coarser_ones_equal() -> None:
    channels = traced(
        conv("a", "data", 8), conv("g", "a", 4, group=2), conv("h", "a", 4, group=4),
        concat("g", "h"), out("x"),
    )  # fmt: skip
    gone = channels_to_delete(channels, of(channels, "a"), np.arange(8, dtype=np.float64), 0.5)
    assert np.isin(channels.units["a"], gone).tolist() == [True, False] * 4


def test_groups_that_cross_are_refused_with_the_layers() -> None:
    channels = traced(
        conv("a", "data", 12), conv("g", "a", 4, group=2), conv("h", "a", 6, group=3),
        concat("g", "h"), out("x"),
    )  # fmt: skip
    with pytest.raises(SurgeryError, match=r"'h' and 'g' .* groups of different kinds \(3 and 2\)"):
        channels_to_delete(channels, of(channels, "a"), np.arange(12, dtype=np.float64), 0.5)


def test_a_channel_in_two_groups_is_refused() -> None:
    same = traced(
        conv("a", "data", 3), conv("b", "data", 1),
        concat("a", "b", "a", "b"),
        conv("g", "x", 2, group=2), out("g"),
    )  # fmt: skip
    gone = channels_to_delete(same, of(same, "a"), np.arange(4, dtype=np.float64), 0.5)
    assert len(gone) == 2  # both groups hold the same channels
    crossing = traced(
        conv("a", "data", 3), conv("b", "data", 2), conv("c", "data", 1),
        concat("a", "b", "b", "c"),
        conv("g", "x", 2, group=2), out("g"),
    )  # fmt: skip
    with pytest.raises(SurgeryError, match="'g' reads a channel in several of its groups"):
        channels_to_delete(crossing, of(crossing, "b"), np.arange(6, dtype=np.float64), 0.5)
