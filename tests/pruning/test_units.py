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
    following_layers,
    prunable_layers,
    unit_weights,
)

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


def test_readers_are_found_through_elementwise_layers() -> None:
    dropout = 'layer { name: "drop1" type: "Dropout" bottom: "ip1" top: "dropped" }'
    reader = READER.replace('bottom: "ip1"', 'bottom: "dropped"')
    assert following_layers(net_of(DATA, HIDDEN, dropout, reader, ENDS), "ip1") == ["ip2"]


def test_readers_of_either_phase_are_found() -> None:
    aside = 'layer {{ name: "{0}" type: "InnerProduct" bottom: "ip1" top: "{0}" {1} }}'
    train = aside.format("aside", "include { phase: TRAIN }")
    test = aside.format("check", "exclude { phase: TRAIN }")
    net = net_of(DATA, HIDDEN, READER, train, test, ENDS)
    assert set(following_layers(net, "ip1")) == {"ip2", "aside", "check"}


def test_a_silenced_blob_blocks_nothing() -> None:
    silence = 'layer { name: "hush" type: "Silence" bottom: "ip1" }'
    assert following_layers(net_of(DATA, HIDDEN, READER, silence, ENDS), "ip1") == ["ip2"]


@pytest.mark.parametrize("end", ["SoftmaxWithLoss", "Accuracy", "Softmax", "EuclideanLoss"])
def test_an_output_layer_is_refused(end: str) -> None:
    net = net_of(DATA, HIDDEN, READER, f'layer {{ name: "end" type: "{end}" bottom: "ip2" }}')
    with pytest.raises(SurgeryError, match=f"'ip2' is an output layer .*'end', {end}"):
        following_layers(net, "ip2")
    assert prunable_layers(net) == ["ip1"]


def test_an_output_layer_that_nobody_reads_is_refused() -> None:
    net = net_of(DATA, HIDDEN, READER)
    with pytest.raises(SurgeryError, match="'ip2' is an output layer: no InnerProduct"):
        following_layers(net, "ip2")


def test_a_hidden_layer_that_a_loss_reads_too_is_refused() -> None:
    aside = 'layer { name: "loss1" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" }'
    net = net_of(DATA, HIDDEN, READER, aside, ENDS)
    with pytest.raises(SurgeryError, match=r"'ip1' is an output layer .*'loss1'"):
        following_layers(net, "ip1")


@pytest.mark.parametrize("kind", ["Convolution", "Concat", "BatchNorm", "Eltwise", "Reshape"])
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_layer_in_between_that_mixes_units_is_refused_by_name_and_type(
    kind: str, phase: str
) -> None:
    between = (
        f'layer {{ name: "mixer" type: "{kind}" bottom: "ip1" top: "ip1" '
        f"include {{ phase: {phase} }} }}"
    )
    net = net_of(DATA, HIDDEN, between, READER, ENDS)
    message = f"'ip1' is read by layer 'mixer' of type {kind}.*--layers"
    with pytest.raises(SurgeryError, match=message):
        choose_units(net, MODEL, {"ip1": 0.5})
    with pytest.raises(SurgeryError, match=message):
        delete_units(net, MODEL, {"ip1": np.ones(6, np.bool_)})
    assert prunable_layers(net) == []


@pytest.mark.parametrize(
    ("name", "message"), [("ip9", "no layer 'ip9'.*: ip1, ip2"), ("relu1", "'relu1' is a ReLU")]
)
def test_only_inner_product_layers_have_units(name: str, message: str) -> None:
    with pytest.raises(SurgeryError, match=message):
        choose_units(NET, MODEL, {name: 0.5})


def test_layers_that_share_parameters_are_refused() -> None:
    shared = 'param { name: "w" } inner_product_param'
    twin = """
layer { name: "ip1_p" type: "InnerProduct" bottom: "data" top: "ip1_p"
  inner_product_param { num_output: 6 } }
layer { name: "ip2_p" type: "InnerProduct" bottom: "ip1_p" top: "ip2_p"
  inner_product_param { num_output: 3 } }
"""
    hidden = HIDDEN.replace("inner_product_param", shared)
    own_shared = net_of(DATA, hidden, READER, twin.replace("inner_product_param", shared, 1))
    with pytest.raises(SurgeryError, match="'ip1' shares its parameter 'w' with layer 'ip1_p'"):
        following_layers(own_shared, "ip1")
    reader = READER.replace("inner_product_param", shared)
    head, tail = twin.split('layer { name: "ip2_p"')
    tail = tail.replace("inner_product_param", shared)
    reader_shared = net_of(DATA, HIDDEN, reader, head, 'layer { name: "ip2_p"', tail)
    with pytest.raises(SurgeryError, match="'ip2' shares its parameter 'w' with layer 'ip2_p'"):
        following_layers(reader_shared, "ip1")


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
        (model_of(ip1=(5, 4), ip2=(3, 5)), "'ip1': the net says num_output 6.* 5x4"),
        (model_of(ip1=(6, 4), ip2=(2, 6)), "'ip2': the net says num_output 3.* 2x6"),
        (model_of(ip1=(6, 4), ip2=(3, 7)), "'ip2' reads .*'ip1'.* 3x7 .* 6x4"),
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
    with pytest.raises(SurgeryError, match=r"'ip3' reads .*'ip1'.* 3x9 .* 6x4"):
        use(net, model_of(ip1=(6, 4), ip2=(3, 6), ip3=(3, 9)))


@pytest.mark.parametrize("use", USES)
def test_weights_that_lack_a_layer_are_refused(
    use: Callable[[NetParameter, Caffemodel], object],
) -> None:
    with pytest.raises(FormatError, match="no layer 'ip2'"):
        use(NET, model_of(ip1=(6, 4)))
    no_weights = Caffemodel((*MODEL.layers[:1], Layer(MODEL.layer("ip2").param)))
    with pytest.raises(SurgeryError, match="'ip2' of the caffemodel holds no two-dim"):
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


def test_unit_weights_undo_a_transpose() -> None:
    net = net_of(DATA, HIDDEN.replace("num_output: 6", "num_output: 6 transpose: true"))
    weights = np.arange(24, dtype=np.float32).reshape(4, 6)
    model = MODEL.with_blobs({("ip1", 0): weights})
    np.testing.assert_array_equal(unit_weights(net, model, "ip1"), weights.T)


def test_layers_of_the_caffemodel_that_the_net_does_not_name_are_carried_along() -> None:
    extra = model_of(ip1=(6, 4), ip2=(3, 6), other=(2, 2))
    twice = Caffemodel((*extra.layers, *model_of(other=(5, 5)).layers))
    _, small = delete_units(NET, twice, KEEP)
    assert [layer.name for layer in small.layers] == ["ip1", "ip2", "other", "other"]
    for after, before in zip(small.layers[2:], twice.layers[2:], strict=True):
        assert after is before
