from collections.abc import Callable

import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.pruning.units import (
    choose_units,
    delete_units,
    keep_lrn_neighbours,
    lrn_layers_changed,
    mask_units,
    prunable_layers,
    units_together,
)
from tests.pruning.conftest import CaffeForward
from tests.pruning.random_nets import random_weights

DATA = """
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST } }
"""
HIDDEN = """
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 6 } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
"""
READER = """
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 3 } }
"""
ENDS = """
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""


def net_of(*parts: str) -> NetParameter:
    return text_format.Parse("".join(parts), NetParameter())


def model_of(**shapes: tuple[int, int]) -> Caffemodel:
    """InnerProduct layers with random weights of these shapes (outputs, inputs) and a bias."""
    random = np.random.default_rng(0)
    layers = []
    for name, shape in shapes.items():
        param = LayerParameter(name=name, type="InnerProduct")
        param.inner_product_param.num_output = shape[0]
        blobs = (random.normal(size=size).astype(np.float32) for size in (shape, shape[:1]))
        layers.append(Layer(param, tuple(blobs)))
    return Caffemodel(tuple(layers))


NET = net_of(DATA, HIDDEN, READER, ENDS)
MODEL = model_of(ip1=(6, 4), ip2=(3, 6))


def readers(net: NetParameter, model: Caffemodel, name: str) -> set[str]:
    """The layers of which some weights are zeroed to mask the first unit of ``name``."""
    keep = np.ones(len(model.layer(name).blobs[1]), np.bool_)
    keep[0] = False
    masked = mask_units(net, model, {name: keep})
    return {
        layer.name
        for layer, before in zip(masked.layers, model.layers, strict=True)
        if any(new is not old for new, old in zip(layer.blobs, before.blobs, strict=True))
    }


def test_readers_are_found_through_elementwise_layers() -> None:
    dropout = 'layer { name: "drop1" type: "Dropout" bottom: "ip1" top: "dropped" }'
    reader = READER.replace('bottom: "ip1"', 'bottom: "dropped"')
    assert readers(net_of(DATA, HIDDEN, dropout, reader, ENDS), MODEL, "ip1") == {"ip2"}


def test_readers_of_either_phase_are_found() -> None:
    aside = """
layer {{ name: "{0}" type: "InnerProduct" bottom: "ip1" top: "{0}" {1}
  inner_product_param {{ num_output: 2 }} }}
"""
    train = aside.format("aside", "include { phase: TRAIN }")
    test = aside.format("check", "exclude { phase: TRAIN }")
    net = net_of(DATA, HIDDEN, READER, train, test, ENDS)
    model = model_of(ip1=(6, 4), ip2=(3, 6), aside=(2, 6), check=(2, 6))
    assert readers(net, model, "ip1") == {"ip2", "aside", "check"}


def test_a_silenced_blob_blocks_nothing() -> None:
    silence = 'layer { name: "hush" type: "Silence" bottom: "ip1" }'
    assert readers(net_of(DATA, HIDDEN, READER, silence, ENDS), MODEL, "ip1") == {"ip2"}


@pytest.mark.parametrize("end", ["SoftmaxWithLoss", "Accuracy", "Softmax", "EuclideanLoss"])
def test_an_output_layer_is_refused(end: str) -> None:
    net = net_of(DATA, HIDDEN, READER, f'layer {{ name: "end" type: "{end}" bottom: "ip2" }}')
    with pytest.raises(SurgeryError, match=f"'ip2' is an output layer .*'end', {end}"):
        choose_units(net, MODEL, {"ip2": 0.5})
    assert prunable_layers(net) == ["ip1"]


def test_an_output_layer_that_nobody_reads_is_refused() -> None:
    net = net_of(DATA, HIDDEN, READER)
    with pytest.raises(SurgeryError, match="'ip2' is an output layer: its blob 'ip2'"):
        choose_units(net, MODEL, {"ip2": 0.5})


def test_a_layer_that_only_a_silence_reads_is_refused() -> None:
    net = net_of(DATA, HIDDEN, READER, 'layer { name: "hush" type: "Silence" bottom: "ip2" }')
    with pytest.raises(SurgeryError, match="'ip2' is an output layer: no layer with weights"):
        choose_units(net, MODEL, {"ip2": 0.5})


def test_a_hidden_layer_that_a_loss_reads_too_is_refused() -> None:
    aside = 'layer { name: "loss1" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" }'
    net = net_of(DATA, HIDDEN, READER, aside, ENDS)
    with pytest.raises(SurgeryError, match=r"'ip1' is an output layer .*'loss1'"):
        choose_units(net, MODEL, {"ip1": 0.5})


@pytest.mark.parametrize(
    "kind", ["Reduction", "Embed", "Python", "Reshape", "MVN", "Scale", "Flatten", "LSTM"]
)
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_layer_in_between_that_mixes_units_is_refused_by_name_and_type(
    kind: str, phase: str
) -> None:
    settings = {
        "MVN": "mvn_param { across_channels: true }",
        "Scale": "scale_param { axis: 0 num_axes: 2 }",
        "Flatten": "flatten_param { axis: 0 }",
    }
    between = (
        f'layer {{ name: "mixer" type: "{kind}" bottom: "ip1" top: "ip1" '
        f"include {{ phase: {phase} }} {settings.get(kind, '')} }}"
    )
    net = net_of(DATA, HIDDEN, between, READER, ENDS)
    message = f"'ip1' is read by layer 'mixer' of type {kind}.*--layers"
    with pytest.raises(SurgeryError, match=message):
        choose_units(net, MODEL, {"ip1": 0.5})
    with pytest.raises(SurgeryError, match=message):
        delete_units(net, MODEL, KEEP)
    assert prunable_layers(net) == []
    # It is in nobody's way as long as no units are deleted through it.
    assert delete_units(net, MODEL, {})[0] == net


@pytest.mark.parametrize(
    ("name", "message"), [("ip9", "no layer 'ip9'.*: ip1, ip2"), ("relu1", "'relu1' is a ReLU")]
)
def test_only_layers_with_units_have_units(name: str, message: str) -> None:
    with pytest.raises(SurgeryError, match=message):
        choose_units(NET, MODEL, {name: 0.5})


TWIN = """
layer { name: "ip1_p" type: "InnerProduct" bottom: "data" top: "ip1_p"
  inner_product_param { num_output: 6 } }
layer { name: "ip2_p" type: "InnerProduct" bottom: "ip1_p" top: "ip2_p"
  inner_product_param { num_output: 3 } }
"""


def test_layers_that_share_parameters_lose_the_same_units() -> None:
    shared = 'param { name: "w" } inner_product_param'
    hidden = HIDDEN.replace("inner_product_param", shared)
    net = net_of(DATA, hidden, READER, TWIN.replace("inner_product_param", shared, 1), ENDS)
    assert units_together(net) == [("ip1", "ip1_p"), ("ip2",), ("ip2_p",)]
    model = model_of(ip1=(6, 4), ip2=(3, 6), ip1_p=(6, 4), ip2_p=(3, 6))
    kept = choose_units(net, model, {"ip1": 0.5})
    np.testing.assert_array_equal(kept["ip1"], kept["ip1_p"])
    small_net, small = delete_units(net, model, {"ip1_p": kept["ip1_p"]})
    for name, inputs in (("ip1", 4), ("ip1_p", 4)):
        assert small.layer(name).blobs[0].shape == (3, inputs)
    assert small.layer("ip2").blobs[0].shape == small.layer("ip2_p").blobs[0].shape == (3, 3)
    outputs = {layer.name: layer.inner_product_param.num_output for layer in small_net.layer}
    assert (outputs["ip1"], outputs["ip1_p"]) == (3, 3)


def test_layers_whose_weights_are_shared_by_what_they_read_lose_the_same_units() -> None:
    shared = 'param { name: "w" } inner_product_param'
    head, tail = TWIN.split('layer { name: "ip2_p"')
    tail = 'layer { name: "ip2_p"' + tail.replace("inner_product_param", shared)
    net = net_of(DATA, HIDDEN, READER.replace("inner_product_param", shared), head, tail, ENDS)
    # ip2 is an output; what it shares with ip2_p ties ip1 to ip1_p.
    model = model_of(ip1=(6, 4), ip2=(3, 6), ip1_p=(6, 4), ip2_p=(3, 6))
    assert ("ip1", "ip1_p") in units_together(net, model)


def test_coupled_layers_must_be_asked_for_the_same() -> None:
    shared = 'param { name: "w" } inner_product_param'
    hidden = HIDDEN.replace("inner_product_param", shared)
    net = net_of(DATA, hidden, READER, TWIN.replace("inner_product_param", shared, 1), ENDS)
    model = model_of(ip1=(6, 4), ip2=(3, 6), ip1_p=(6, 4), ip2_p=(3, 6))
    with pytest.raises(SurgeryError, match=r"ip1, ip1_p lose .* not ip1 0.5, ip1_p 0.2"):
        choose_units(net, model, {"ip1": 0.5, "ip1_p": 0.2})
    other = {"ip1": KEEP["ip1"], "ip1_p": ~KEEP["ip1"]}
    with pytest.raises(SurgeryError, match="'ip1' loses its units together with other layers"):
        delete_units(net, model, other)


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.5, 0.99])
def test_the_units_with_the_lowest_outgoing_weights_go(ratio: float) -> None:
    keep = choose_units(NET, MODEL, {"ip1": ratio})["ip1"]
    scores = np.abs(MODEL.layer("ip2").blobs[0]).mean(axis=0, dtype=np.float64)
    assert (~keep).sum() == min(round(ratio * 6), 5)
    if not keep.all():
        assert scores[~keep].max() < scores[keep].min()


def test_all_readers_count_in_the_score_and_the_criterion_is_the_named_one() -> None:
    second = READER.replace("ip2", "ip3").replace("num_output: 3", "num_output: 2")
    net = net_of(DATA, HIDDEN, READER, second)
    model = model_of(ip1=(6, 4), ip2=(3, 6), ip3=(2, 6))
    both = np.concatenate([model.layer(name).blobs[0] for name in ("ip2", "ip3")])
    lowest = {
        "onorm": np.abs(both).mean(axis=0).argmin(),
        "inorm": np.abs(model.layer("ip1").blobs[0]).mean(axis=1).argmin(),
    }
    assert lowest["onorm"] != lowest["inorm"]
    for criterion, unit in lowest.items():
        keep = choose_units(net, model, {"ip1": 1 / 6}, criterion=criterion)["ip1"]
        assert np.flatnonzero(~keep) == [unit]


def test_random_units_follow_the_seed() -> None:
    keeps = [
        choose_units(NET, MODEL, {"ip1": 0.5}, criterion="random", seed=seed)["ip1"].tolist()
        for seed in (1, 1, 2, 3, 4)
    ]
    assert keeps[0] == keeps[1]
    assert len({tuple(keep) for keep in keeps}) > 1


KEEP = {"ip1": np.array([1, 1, 0, 1, 0, 1], np.bool_)}
USES: list[Callable[[NetParameter, Caffemodel], object]] = [
    lambda net, model: choose_units(net, model, {"ip1": 0.5}),
    lambda net, model: delete_units(net, model, KEEP),
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (model_of(ip1=(5, 4), ip2=(3, 5)), "'ip1', blob 0: the net says 6x.* 5x4"),
        (model_of(ip1=(6, 4), ip2=(2, 6)), "'ip2', blob 0: the net says 3x6.* 2x6"),
        (model_of(ip1=(6, 4), ip2=(3, 7)), "'ip2' reads 6 channels of blob 'ip1'.* 3x7"),
    ],
)
def test_weights_of_another_net_are_refused_with_both_shapes(
    use: Callable[[NetParameter, Caffemodel], object], model: Caffemodel, message: str
) -> None:
    with pytest.raises(SurgeryError, match=message):
        use(NET, model)


@pytest.mark.parametrize("use", USES)
def test_a_second_reader_of_another_net_is_refused_too(
    use: Callable[[NetParameter, Caffemodel], object],
) -> None:
    net = net_of(DATA, HIDDEN, READER, READER.replace("ip2", "ip3"))
    with pytest.raises(SurgeryError, match=r"'ip3' reads 6 channels.*'ip1'.* 3x9"):
        use(net, model_of(ip1=(6, 4), ip2=(3, 6), ip3=(3, 9)))


@pytest.mark.parametrize("use", USES)
def test_weights_that_lack_a_layer_are_refused(
    use: Callable[[NetParameter, Caffemodel], object],
) -> None:
    with pytest.raises(FormatError, match="no layer 'ip2'"):
        use(NET, model_of(ip1=(6, 4)))
    no_weights = Caffemodel((*MODEL.layers[:1], Layer(MODEL.layer("ip2").param)))
    with pytest.raises(SurgeryError, match="'ip2' of the caffemodel holds no weights"):
        use(NET, no_weights)


@pytest.mark.parametrize("name", ["ip1", "ip2"])
def test_units_are_not_chosen_by_weights_that_are_not_finite(name: str) -> None:
    weights = MODEL.layer(name).blobs[0].copy()
    weights[0, 0] = np.nan
    with pytest.raises(SurgeryError, match=f"layer '{name}', blob 0 .* NaN or infinite"):
        choose_units(NET, MODEL.with_blobs({(name, 0): weights}), {"ip1": 0.5})


@pytest.mark.parametrize(
    "keep", [np.ones(5, np.bool_), np.ones(7, np.bool_), np.zeros(6, np.bool_)]
)
def test_a_choice_that_does_not_fit_the_layer_is_refused(keep: np.ndarray) -> None:
    with pytest.raises(SurgeryError, match="'ip1' has 6 units"):
        delete_units(NET, MODEL, {"ip1": keep})


def test_rows_biases_and_columns_of_the_deleted_units_go() -> None:
    small_net, small = delete_units(NET, MODEL, KEEP)
    (w1, b1), (w2, b2) = (MODEL.layer(name).blobs for name in ("ip1", "ip2"))
    units = np.flatnonzero(KEEP["ip1"])
    expected = {"ip1": (w1[units], b1[units]), "ip2": (w2[:, units], b2)}
    for name, blobs in expected.items():
        for found, wanted in zip(small.layer(name).blobs, blobs, strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert [layer.inner_product_param.num_output for layer in small_net.layer[2:5:2]] == [4, 3]


def test_layers_of_the_caffemodel_that_the_net_does_not_name_are_carried_along() -> None:
    extra = model_of(ip1=(6, 4), ip2=(3, 6), other=(2, 2))
    twice = Caffemodel((*extra.layers, *model_of(other=(5, 5)).layers))
    _, small = delete_units(NET, twice, KEEP)
    assert [layer.name for layer in small.layers] == ["ip1", "ip2", "other", "other"]
    for after, before in zip(small.layers[2:], twice.layers[2:], strict=True):
        assert after is before


def test_a_layer_without_units_to_name_is_refused() -> None:
    net = net_of(DATA, HIDDEN.replace("num_output: 6", ""), READER, ENDS)
    with pytest.raises(SurgeryError, match="'ip1': num_output is 0"):
        prunable_layers(net)


def test_weights_without_the_heads_of_training_are_pruned_all_the_same() -> None:
    head = """
layer { name: "aux" type: "InnerProduct" bottom: "ip1" top: "aux" include { phase: TRAIN }
  inner_product_param { num_output: 2 } }
layer { name: "aux_loss" type: "SoftmaxWithLoss" bottom: "aux" bottom: "label"
  include { phase: TRAIN } }
"""
    net = net_of(DATA, HIDDEN, READER, head, ENDS)
    assert prunable_layers(net, MODEL) == ["ip1"]
    small_net, small = delete_units(net, MODEL, KEEP)
    assert small.layer("ip2").blobs[0].shape == (3, 4)
    # With its weights there, the head shrinks too.
    model = model_of(ip1=(6, 4), ip2=(3, 6), aux=(2, 6))
    assert delete_units(net, model, KEEP)[1].layer("aux").blobs[0].shape == (2, 4)
    assert delete_units(net, model, KEEP)[0] == small_net


GROUPS = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 4, 4] } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 1 } }
layer { name: "norm1" type: "LRN" bottom: "conv1" top: "norm1"
  lrn_param { local_size: 3 alpha: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "norm1" top: "conv2"
  convolution_param { num_output: 4 kernel_size: 1 group: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "conv2" top: "fc"
  inner_product_param { num_output: 2 } }
"""


def groups_model() -> Caffemodel:
    return random_weights(net_of(GROUPS), seed=3)


@pytest.mark.parametrize("criterion", ["onorm", "inorm", "l1", "l2", "random"])
@pytest.mark.parametrize(("ratio", "kept"), [(0.5, 2), (0.25, 3), (0.9, 1), (0.05, 4)])
def test_each_group_loses_its_lowest_units_equally_many(
    criterion: str, ratio: float, kept: int
) -> None:
    net, model = net_of(GROUPS), groups_model()
    keep = choose_units(net, model, {"conv1": ratio}, criterion=criterion)["conv1"]
    assert keep.reshape(2, 4).sum(axis=1).tolist() == [kept, kept]
    if criterion == "onorm":
        # Filters 0 and 1 of conv2 read the first half, filters 2 and 3 the second.
        weights = np.abs(model.layer("conv2").blobs[0]).reshape(2, 2, 4).mean(axis=1)
        for scores, flags in zip(weights, keep.reshape(2, 4), strict=True):
            assert scores[~flags].max(initial=0) < scores[flags].min()


def test_a_choice_that_makes_groups_unequal_is_refused() -> None:
    keep = np.array([0, 1, 1, 1, 1, 1, 1, 1], np.bool_)
    with pytest.raises(SurgeryError, match=r"'conv2' takes channels in 2 groups, of which 3, 4"):
        delete_units(net_of(GROUPS), groups_model(), {"conv1": keep})


def test_lrn_layers_over_deleted_channels_are_named() -> None:
    net, model = net_of(GROUPS), groups_model()
    keep = np.array([0, 1, 1, 1, 1, 0, 1, 1], np.bool_)
    assert lrn_layers_changed(net, model, {"conv1": keep}) == ["norm1"]
    assert lrn_layers_changed(net, model, {"conv2": np.array([1, 0, 1, 0], np.bool_)}) == []
    within = net_of(GROUPS.replace("alpha: 2", "norm_region: WITHIN_CHANNEL"))
    assert lrn_layers_changed(within, model, {"conv1": keep}) == []


def test_neighbours_of_kept_channels_are_kept_and_groups_stay_equal() -> None:
    net, model = net_of(GROUPS), groups_model()
    keep = np.array([0, 0, 0, 1, 1, 1, 0, 0], np.bool_)
    # The window reaches one further: 2 and 6 stay. The first group then has 2 left, so the second,
    # with 3, is the measure, and one more stays.
    with pytest.raises(SurgeryError, match="1, 2 would stay"):
        keep_lrn_neighbours(net, model, {"conv1": keep})
    keep[7] = keep[1] = True
    keep[4] = False
    larger = keep_lrn_neighbours(net, model, {"conv1": keep})["conv1"]
    assert (larger & keep == keep).all()
    assert larger.tolist() == [True] * 8


@pytest.mark.real_caffe
def test_with_the_lrn_neighbours_kept_the_deleted_net_is_exact(
    caffe_forward: CaffeForward,
) -> None:
    net = net_of(GROUPS.replace("num_output: 8", "num_output: 24"))
    model = random_weights(net, seed=4)
    keep = np.zeros(24, np.bool_)
    keep[[2, 3, 4, 13, 14, 20]] = True
    kept = {"conv1": keep}
    images = {"data": np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)}
    masked = mask_units(net, model, kept)
    expected = caffe_forward(net, masked, images)["fc"]
    size = np.abs(expected).max()
    larger = keep_lrn_neighbours(net, model, kept)
    assert larger["conv1"].sum() < 24
    exact = caffe_forward(*delete_units(net, masked, larger), images)["fc"]
    assert np.abs(exact - expected).max() <= 1e-6 * size
    plain = caffe_forward(*delete_units(net, model, kept), images)["fc"]
    assert np.abs(plain - expected).max() > 1e-3 * size
