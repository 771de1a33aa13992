from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel
from pycaffe_prune.formats.carried import parse_text
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.channel_rules import CARRYING, ENDS
from pycaffe_prune.net.channel_trace import trace_channels
from pycaffe_prune.net.channels import Channels
from pycaffe_prune.share import share_root

INPUT = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 4, 6, 6] } } }
"""


def conv(name: str, outputs: int, bottom: str = "data", extra: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
        f"convolution_param {{ num_output: {outputs} kernel_size: 1 {extra} }} }}\n"
    )


def layer(kind: str, bottoms: str, tops: str, param: str = "") -> str:
    parts = [f'bottom: "{name}"' for name in bottoms.split()]
    parts += [f'top: "{name}"' for name in tops.split()]
    name = tops.split()[0] if tops else kind
    return f'layer {{ name: "{name}" type: "{kind}" {" ".join(parts)} {param} }}\n'


def fc(name: str, bottom: str, outputs: int = 3) -> str:
    return layer("InnerProduct", bottom, name, f"inner_product_param {{ num_output: {outputs} }}")


def trace(*parts: str) -> Channels:
    return trace_channels(parse_text("".join(parts), NetParameter()))


def inputs(channels: Channels, name: str) -> list[int]:
    """The channel of each input of a layer's weights, whatever its axis."""
    blob = channels.blobs[name, 0]
    assert blob.reads is not None
    ids = blob.axes[blob.reads]
    assert ids is not None
    return ids.reshape(-1).tolist()


def free(channels: Channels, name: str) -> bool:
    return not any(channel in channels.fixed for channel in channels.units[name].tolist())


def test_units_are_channels_of_their_own() -> None:
    found = trace(INPUT, conv("a", 3), conv("b", 5, "a"), fc("out", "b"))
    a, b, out = (set(found.units[name].tolist()) for name in ("a", "b", "out"))
    assert [len(ids) for ids in (a, b, out)] == [3, 5, 3]
    assert len(a | b | out) == 11
    assert inputs(found, "b") == found.units["a"].tolist()
    assert free(found, "a")
    assert free(found, "b")
    assert "is an output of the net" in found.fixed[int(found.units["out"][0])]


def test_a_map_before_an_inner_product_takes_a_column_for_each_pixel() -> None:
    found = trace(INPUT, conv("a", 3), fc("out", "a"))
    assert inputs(found, "out") == np.repeat(found.units["a"], 36).tolist()
    flat = trace(INPUT, conv("a", 3), layer("Flatten", "a", "flat"), fc("out", "flat"))
    assert inputs(flat, "out") == np.repeat(flat.units["a"], 36).tolist()


def test_the_weights_tell_the_pixels_that_the_net_does_not() -> None:
    net = text_format.Parse(
        layer("Data", "", "data label") + conv("a", 3) + layer("Flatten", "a", "flat")
        + fc("hidden", "flat", 5) + fc("out", "hidden"), NetParameter()
    )  # fmt: skip
    shapes = {"a": (3, 1, 1, 1), "hidden": (5, 12), "out": (3, 5)}
    layers = [
        Layer(
            LayerParameter(name=name),
            (np.zeros(shape, np.float32), np.zeros(shape[:1], np.float32)),
        )
        for name, shape in shapes.items()
    ]
    found = trace_channels(net, Caffemodel(tuple(layers)))
    assert inputs(found, "hidden") == np.repeat(found.units["a"], 4).tolist()


PARAMS = {
    "Clip": "clip_param { min: 0 max: 6 }",
    "Pooling": "pooling_param { kernel_size: 2 }",
}


@pytest.mark.parametrize("kind", sorted(CARRYING - {"Split", "BatchReindex"}))
def test_carrying_layers_change_no_channel(kind: str) -> None:
    found = trace(
        INPUT,
        conv("a", 3),
        layer(kind, "a", "x", PARAMS.get(kind, "")),
        conv("b", 2, "x"),
        fc("out", "b"),
    )
    assert inputs(found, "b") == found.units["a"].tolist()
    assert free(found, "a")


@pytest.mark.parametrize("kind", sorted(ENDS))
def test_what_an_end_reads_is_fixed(kind: str) -> None:
    scores = layer("Pooling", "b", "scores", "pooling_param { global_pooling: true }")
    judged = {
        "ArgMax": "scores",
        "Softmax": "scores",
        "ContrastiveLoss": "scores scores label",
        "EuclideanLoss": "scores scores",
        "SigmoidCrossEntropyLoss": "scores scores",
    }
    tops = "" if kind == "HDF5Output" else "end"
    settings = 'infogain_loss_param { source: "matrix" }' if kind == "InfogainLoss" else ""
    end = layer(kind, judged.get(kind, "scores label"), tops, settings).replace(
        f'name: "{kind}"', 'name: "end"'
    )
    label = 'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }'
    found = trace(INPUT, label, conv("a", 3), conv("b", 2, "a"), scores, end)
    assert free(found, "a")
    assert f"(read by 'end', {kind})" in found.fixed[int(found.units["b"][0])]


def test_concat_puts_channels_side_by_side() -> None:
    found = trace(
        INPUT, conv("a", 3), conv("b", 2), layer("Concat", "a data b a", "x"), conv("c", 2, "x"),
        fc("out", "c"),
    )  # fmt: skip
    a, b = (found.units[name].tolist() for name in "ab")
    read = inputs(found, "c")
    assert read[:3] == a == read[9:]
    assert read[7:9] == b
    assert free(found, "a")
    for channel in read[3:7]:
        assert "input blob 'data'" in found.fixed[channel]


def test_slice_deals_channels_out() -> None:
    found = trace(
        INPUT, conv("a", 5), layer("Slice", "a", "x y", "slice_param { slice_point: 2 }"),
        conv("b", 2, "x"), conv("c", 2, "y"), layer("Concat", "b c", "z"), fc("out", "z"),
    )  # fmt: skip
    a = found.units["a"].tolist()
    assert (inputs(found, "b"), inputs(found, "c")) == (a[:2], a[2:])
    assert [ids.tolist() for ids in found.slices["x"]] == [a[:2], a[2:]]


@pytest.mark.parametrize("operation", ["SUM", "PROD", "MAX"])
def test_the_terms_of_an_eltwise_are_one_channel(operation: str) -> None:
    found = trace(
        INPUT, conv("a", 3), conv("b", 3), conv("c", 3, "b"),
        layer("Eltwise", "a c", "x", f"eltwise_param {{ operation: {operation} }}"),
        conv("d", 2, "x"), fc("out", "d"),
    )  # fmt: skip
    np.testing.assert_array_equal(found.units["a"], found.units["c"])
    assert not set(found.units["a"].tolist()) & set(found.units["b"].tolist())


def test_a_term_that_is_the_input_fixes_the_others() -> None:
    found = trace(
        INPUT, conv("a", 4), layer("Eltwise", "a data", "x"), conv("b", 2, "x"), fc("out", "b")
    )
    assert "is joined with the input blob 'data'" in found.fixed[int(found.units["a"][0])]


def test_parameters_of_one_value_a_channel_are_bound() -> None:
    found = trace(
        INPUT, conv("a", 3), layer("BatchNorm", "a", "n"),
        layer("Scale", "n", "s", "scale_param { bias_term: true }"), layer("PReLU", "s", "p"),
        layer("Bias", "p", "q"), conv("b", 2, "q"), fc("out", "b"),
    )  # fmt: skip
    for key in [("n", 0), ("n", 1), ("s", 0), ("s", 1), ("p", 0), ("q", 0)]:
        (ids,) = found.blobs[key].axes
        assert ids is not None
        np.testing.assert_array_equal(ids, found.units["a"])
    assert ("n", 2) not in found.blobs  # the scale factor of BatchNorm is one number


def test_groups_are_equal_on_both_sides() -> None:
    found = trace(INPUT, conv("a", 4), conv("b", 6, "a", "group: 2"), fc("out", "b"))
    shapes = {grouping.ids.shape for grouping in found.groupings}
    assert shapes == {(2, 2), (2, 3)}
    ids = found.blobs["b", 0].axes[1]
    assert ids is not None
    np.testing.assert_array_equal(ids, found.units["a"].reshape(2, 2))


def test_one_input_channel_a_group_ties_filters_to_it() -> None:
    found = trace(INPUT, conv("a", 4), conv("b", 8, "a", "group: 4"), fc("out", "b"))
    np.testing.assert_array_equal(found.units["b"], np.repeat(found.units["a"], 2))
    assert found.group_of["b"].tolist() == found.units["a"].tolist()
    assert found.groupings == ()


def test_shared_parameters_tie_channels_of_outputs_and_of_inputs() -> None:
    named = ('type: "Convolution"', 'type: "Convolution" param { name: "w" }')
    found = trace(
        INPUT, conv("a", 3), conv("b", 3), conv("c", 2, "a").replace(*named),
        conv("d", 2, "b").replace(*named), layer("Concat", "c d", "x"), fc("out", "x"),
    )  # fmt: skip
    np.testing.assert_array_equal(found.units["c"], found.units["d"])
    np.testing.assert_array_equal(found.units["a"], found.units["b"])
    assert found.owners["d", 0] == ("c", 0)


def test_an_unknown_type_fixes_what_it_reads_and_nothing_else() -> None:
    found = trace(
        INPUT,
        conv("a", 3),
        conv("b", 3, "a"),
        layer("Reduction", "b", "s", "reduction_param { axis: 2 }"),
        fc("out", "s"),
    )
    assert free(found, "a")
    assert "layer 's' of type Reduction" in found.fixed[int(found.units["b"][0])]


def test_what_passes_a_filter_keeps_its_channels_and_the_selector_its_own() -> None:
    found = trace(
        INPUT, conv("a", 3), conv("b", 2), layer("Pooling", "b", "g", GLOBAL), fc("s", "g", 1),
        layer("Filter", "a b s", "a2 b2"), layer("Concat", "a2 b2", "c"), fc("out", "c")
    )  # fmt: skip
    assert all(free(found, name) for name in "ab")
    wanted = np.repeat([*found.units["a"], *found.units["b"]], 36).tolist()
    assert inputs(found, "out") == wanted
    assert "of type Filter as its selector" in found.fixed[int(found.units["s"][0])]


GLOBAL = "pooling_param { global_pooling: true }"


def test_columns_have_each_channel_for_every_place_of_the_kernel() -> None:
    def columns(settings: str) -> str:
        return layer("Im2col", "a", "s", f"convolution_param {{ {settings} }}")

    found = trace(INPUT, conv("a", 3), columns("kernel_h: 2 kernel_w: 3"), conv("b", 2, "s"))
    assert inputs(found, "b") == np.repeat(found.units["a"], 6).tolist()
    later = trace(INPUT, conv("a", 3), columns("kernel_size: 2 axis: 2"), conv("b", 2, "s"))
    assert inputs(later, "b") == later.units["a"].tolist()
    mixed = trace(INPUT, conv("a", 3), columns("kernel_size: 2 axis: 0"), conv("b", 2, "s"))
    assert "of type Im2col with axis 0" in mixed.fixed[int(mixed.units["a"][0])]


def test_a_pyramid_has_each_channel_for_every_window_of_a_level_and_no_other() -> None:
    spp = "spp_param { pyramid_height: %d }"
    found = trace(INPUT, conv("a", 3), layer("SPP", "a", "s", spp % 2), fc("out", "s"))
    a = found.units["a"]
    wanted = [*a, *np.repeat(a, 4)]
    assert inputs(found, "out") == wanted
    alone = trace(INPUT, conv("a", 3), layer("SPP", "a", "s", spp % 1), conv("b", 2, "s"))
    assert inputs(alone, "b") == alone.units["a"].tolist()


CONTRADICTIONS = [
    ((conv("a", 0),), "'a'.* num_output"),
    ((conv("a", 3), conv("b", 4), layer("Eltwise", "a b", "x")), "'x'.*a.*b|3.*4"),
    ((conv("a", 5), conv("b", 4, "a", "group: 2")), "'b'.*group"),
]


@pytest.mark.parametrize(("parts", "message"), CONTRADICTIONS)
def test_a_net_that_contradicts_itself_is_refused(parts: tuple[str, ...], message: str) -> None:
    with pytest.raises(SurgeryError, match=message):
        trace(INPUT, *parts)


def test_a_layer_has_one_number_of_units_in_all_states() -> None:
    train = conv("a", 3).replace('type: "Conv', 'include { phase: TRAIN } type: "Conv')
    test = conv("a", 4).replace('type: "Conv', 'include { phase: TEST } type: "Conv')
    with pytest.raises(SurgeryError, match="'a' is defined twice, with num_output 3 and 4"):
        trace(INPUT, train, test)


def test_states_that_caffe_would_not_build_do_not_count() -> None:
    # Without the stage, the classifier's blob would be an unread output and so fixed.
    staged = fc("out", "a").replace('type: "Inner', 'include { stage: "deploy" } type: "Inner')
    read = layer("Softmax", "out", "prob")
    found = trace(INPUT, conv("a", 3), staged, read)
    assert free(found, "a")


@pytest.mark.parametrize(
    ("name", "together"),
    [
        ("resnet_50", [4, 4, 5, 7]),  # the stages: one projection and 3, 3, 4, 6 blocks
        ("resnet_152", [4, 4, 9, 37]),
        ("googlenet", []),
        ("vgg_16", []),
        ("caffenet", []),
    ],
)
def test_the_networks_of_table_1_are_understood_whole(name: str, together: list[int]) -> None:
    net = read_net(share_root() / "prototxt" / name / "deploy.prototxt")
    found = trace_channels(net)
    blocked = [reason for reason in found.fixed.values() if "cannot be deleted" in reason]
    assert blocked == []
    outputs = [layer_name for layer_name in found.units if not free(found, layer_name)]
    assert all("fc" in one or "classifier" in one for one in outputs)
    sizes: dict[int, int] = {}
    for ids in found.units.values():
        sizes[int(ids[0])] = sizes.get(int(ids[0]), 0) + 1
    assert sorted(size for size in sizes.values() if size > 1) == together


def test_a_real_model_of_the_zoo_is_followed_from_end_to_end(data_dir: Path) -> None:
    model = read_caffemodel(
        data_dir / "zoo" / "cifar10_quick" / "cifar10_quick_iter_5000.caffemodel"
    )
    net = read_net(share_root() / "prototxt" / "cifar10_quick" / "deploy.prototxt")
    found = trace_channels(net, model)
    names = ["conv1", "conv2", "conv3", "ip1", "ip2"]
    assert list(found.units) == names
    for before, after in pairwise(names):
        assert set(inputs(found, after)) == set(found.units[before].tolist())


def test_units_do_not_go_through_a_layer_with_unknown_fields() -> None:
    found = trace(
        INPUT,
        conv("a", 3),
        layer("ReLU", "a", "r", "relu_param { fork: 1 }"),
        conv("b", 3, "r"),
        conv("c", 3, "b"),
        fc("out", "c"),
    )
    assert (free(found, "a"), free(found, "b")) == (False, True)
    (reason,) = {found.fixed[channel] for channel in found.units["a"].tolist()}
    assert "'r' of type ReLU with the field 'relu_param.fork', which stock Caffe does not" in reason


def test_values_in_a_net_would_keep_their_old_shape_and_are_refused() -> None:
    net = parse_text(INPUT + conv("one", 3) + fc("two", "one"), NetParameter())
    net.layer[1].blobs.add()
    with pytest.raises(FormatError, match=r"layer 'one' .Convolution. has blobs, .*caffemodel"):
        trace_channels(net)
