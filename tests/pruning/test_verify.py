"""Two models are the same when every judge says so, and never when a value is not finite."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.comparison import opencv_net
from pycaffe_prune.errors import EngineError, FormatError, PruneError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.hdf5 import write_hdf5_weights
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.pruning.units import choose_units, delete_units, mask_units
from pycaffe_prune.pruning.verify import Judge, ModelFiles, compare_blobs, verify
from pycaffe_prune.pruning.verify_input import array_input, random_input

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 2 dim: 6 dim: 6 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 3 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "ip1" type: "InnerProduct" bottom: "conv1" top: "ip1"
  inner_product_param { num_output: 20 } }
layer { name: "relu2" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" }
"""
TRAIN_VAL = NET.replace(
    """type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 2 dim: 6 dim: 6 } }""",
    'type: "Data" top: "data" top: "label"',
).replace('type: "Softmax" bottom: "ip2"', 'type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label"')
OPENCV = Judge("opencv", opencv_net.forward)
SOURCE = random_input(4, seed=1)
Put = Callable[..., ModelFiles]


def net_of(text: str = NET) -> NetParameter:
    return text_format.Parse(text, NetParameter())


def model_of(net: NetParameter, seed: int = 0) -> Caffemodel:
    random = np.random.default_rng(seed)
    return Caffemodel(
        tuple(
            Layer(
                layer,
                tuple(
                    random.normal(0, max(1, np.prod(shape[1:])) ** -0.5, shape).astype(np.float32)
                    for shape in around.params
                ),
            )
            for layer, around in zip(net.layer, infer_shapes(net.layer), strict=True)
        ),
        NetParameter(name=net.name),
    )


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a model into a folder of its own."""

    def write(name: str, net: NetParameter | None = None, model: Caffemodel | None = None):
        net = net or net_of()
        files = ModelFiles(tmp_path / name / "net.prototxt", tmp_path / name / "pruned.caffemodel")
        write_prototxt(files.net, net)
        write_caffemodel(files.weights, model or model_of(net))
        return files

    return write


@pytest.fixture(params=[pytest.param("caffe", marks=pytest.mark.real_caffe), "opencv"])
def judge(request: pytest.FixtureRequest) -> Judge:
    """Each judge in turn."""
    if request.param == "opencv":
        return OPENCV
    return Judge("caffe", CaffeEngine(request.getfixturevalue("caffe_python")).forward)


def with_weight(model: Caffemodel, value: float) -> Caffemodel:
    """The model with one weight of ip1 set to ``value``."""
    weights = model.layer("ip1").blobs[0].copy()
    weights[0, 0] = value
    return model.with_blobs({("ip1", 0): weights})


def test_a_model_equals_itself(put: Put, judge: Judge) -> None:
    files = put("one")
    found = verify(files, files, [judge], SOURCE)
    assert found.is_same
    assert found.not_felt == ()
    (verdict,) = found.judged
    assert verdict.judge == judge.name
    assert [(blob.blob, blob.shape) for blob in verdict.blobs] == [
        ("ip2", (4, 5)),
        ("prob", (4, 5)),
    ]
    assert all(blob.max_difference == 0 < blob.largest for blob in verdict.blobs)
    assert all(blob.same_arg_max == 4 for blob in verdict.blobs)


def test_masked_equals_deleted(put: Put, judge: Judge) -> None:
    net, model = net_of(), model_of(net_of())
    kept = choose_units(net, model, {"conv1": 0.5, "ip1": 0.5})
    masked = put("masked", net, mask_units(net, model, kept))
    found = verify(masked, put("deleted", *delete_units(net, model, kept)), [judge], SOURCE)
    assert found.is_same
    assert not verify(put("before", net, model), masked, [judge], SOURCE).is_same


def test_one_changed_weight_is_found(put: Put, judge: Judge) -> None:
    model = model_of(net_of())
    models = put("before", model=model), put("after", model=with_weight(model, 1.0))
    found = verify(*models, [judge], random_input(32))  # enough to wake the unit
    assert not found.is_same
    assert found.difference is not None
    name, blob = found.difference
    assert name == judge.name
    assert blob.blob == "ip2"
    assert blob.relative_difference > found.tolerance


@pytest.mark.real_caffe
def test_the_judges_agree_on_how_far_models_are_apart(put: Put, caffe_python: Path) -> None:
    judges = [Judge("caffe", CaffeEngine(caffe_python).forward), OPENCV]
    net = net_of()
    first, second = put("one"), put("other", net, model_of(net, seed=1))
    by_caffe, by_opencv = verify(first, second, judges, SOURCE).judged
    for one, other in zip(by_caffe.blobs, by_opencv.blobs, strict=True):
        assert one.relative_difference == pytest.approx(other.relative_difference, rel=1e-4)
        assert one.same_arg_max == other.same_arg_max


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(put: Put, value: float) -> None:
    files = put("broken", model=with_weight(model_of(net_of()), value))
    with pytest.raises(
        SurgeryError, match=r"layer 'ip1', blob 0 .*: 1 of 2560 values are"
    ) as caught:
        verify(files, files, [OPENCV], SOURCE)
    assert str(files.weights) in str(caught.value)


def test_values_that_overflow_are_never_the_same(put: Put, judge: Judge) -> None:
    net = net_of()
    large = {key: blob * np.float32(1e30) for key, blob in model_of(net).blobs()}
    files = put("large", net, model_of(net).with_blobs(large))
    found = verify(files, files, [judge], SOURCE)
    assert not found.is_same
    assert found.difference is not None
    assert not found.difference[1].finite


def test_models_that_do_not_feel_their_input_are_reported(put: Put) -> None:
    model = model_of(net_of())
    dead = put("dead", model=model.with_blobs({("ip1", 0): model.layer("ip1").blobs[0] * 0}))
    assert verify(dead, dead, [OPENCV], SOURCE).not_felt == ("ip2", "prob")


def test_a_training_net_equals_its_deploy_form(put: Put, judge: Judge) -> None:
    model = model_of(net_of())
    found = verify(put("train_val", net_of(TRAIN_VAL), model), put("deploy"), [judge], SOURCE)
    assert found.is_same
    assert found.only_in_one == ("prob",)
    assert [blob.blob for blob in found.judged[0].blobs] == ["ip2"]


def test_weights_may_be_in_another_format(put: Put, judge: Judge, tmp_path: Path) -> None:
    files = put("binary")
    write_hdf5_weights(tmp_path / "weights.hdf5", model_of(net_of()))
    other = replace(files, weights=tmp_path / "weights.hdf5")
    assert verify(files, other, [judge], SOURCE).is_same


def test_a_given_shape_stands_in_for_one_that_no_net_tells(put: Put) -> None:
    model = model_of(net_of())
    files = put("train_val", net_of(TRAIN_VAL), model)
    assert verify(files, files, [OPENCV], SOURCE, shapes={"data": (1, 2, 6, 6)}).is_same
    with pytest.raises(SurgeryError, match="give it with --input-shape data="):
        verify(files, files, [OPENCV], SOURCE)


@pytest.mark.parametrize("kind", [EngineError, FormatError])
def test_a_later_judge_may_refuse_the_first_one_may_not(put: Put, kind: type[PruneError]) -> None:
    def refuse(*arguments: object) -> list[np.ndarray]:
        raise kind("does not know layer 'odd'")

    files = put("one")
    found = verify(files, files, [OPENCV, Judge("strict", refuse)], SOURCE)
    assert found.is_same
    assert [refusal.judge for refusal in found.refused] == ["strict"]
    with pytest.raises(kind, match="'odd'"):
        verify(files, files, [Judge("strict", refuse), OPENCV], SOURCE)


def test_a_refusal_names_the_net_that_was_given_and_not_the_part_of_it_that_judges_get(
    put: Put,
) -> None:
    def strict(net: Path, *arguments: object) -> list[np.ndarray]:
        raise FormatError(f"{net}: layer 'odd' is of a fork")

    files = put("one")
    with pytest.raises(FormatError, match=f"^{files.net}: layer 'odd' is of a fork$"):
        verify(files, files, [Judge("strict", strict)], SOURCE)


def test_one_judge_that_finds_a_difference_is_enough(put: Put) -> None:
    calls = []

    def fickle(*arguments: object) -> list[np.ndarray]:
        calls.append(arguments)
        return [np.full((4, 5), len(calls), np.float32)] * 2

    files = put("one")
    found = verify(files, files, [OPENCV, Judge("fickle", fickle)], SOURCE)
    assert not found.is_same
    assert found.difference is not None
    assert found.difference[0] == "fickle"


CHANGES: list[tuple[Sequence[tuple[str, str]], str]] = [
    ([("num_output: 5", "num_output: 6")], "blob 'ip2' is 4x5 in the first model and 4x6"),
    ([("dim: 6 dim: 6", "dim: 6 dim: 7")], "'data' is 1x2x6x6 in "),
    ([('"data"', '"image"')], "reads the data blobs data, "),
    ([('"ip2"', '"fc"'), ('"prob"', '"answer"')], "no output of the same name"),
]


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_models_that_cannot_be_compared_are_one_sentence(
    put: Put, changes: Sequence[tuple[str, str]], message: str
) -> None:
    text = NET
    for old, new in changes:
        text = text.replace(old, new)
    with pytest.raises(SurgeryError) as caught:
        verify(put("one"), put("other", net_of(text)), [OPENCV], SOURCE)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_net_are_one_sentence(put: Put) -> None:
    files = put("one")
    renamed = put("renamed", net_of(NET.replace('name: "ip1"', 'name: "fc1"')))
    with pytest.raises(PruneError) as caught:
        verify(files, replace(files, weights=renamed.weights), [OPENCV], SOURCE)
    assert str(renamed.weights) in str(caught.value)
    assert "'ip1'" in str(caught.value)
    assert "\n" not in str(caught.value)


VALUES = arrays(np.float32, (3, 4), elements=st.floats(-1e6, 1e6, width=32))


@given(VALUES, VALUES)
def test_only_equal_values_are_the_same_at_tolerance_0(first, second) -> None:
    found = compare_blobs("x", first, second)
    assert found.is_same(0) == np.array_equal(first, second)
    assert compare_blobs("x", first, first).is_same(0)


@given(VALUES, VALUES)
def test_differences_are_relative_to_the_first_models_largest_value(first, second) -> None:
    found = compare_blobs("x", first, second)
    assert found.max_difference == np.abs(first.astype(float) - second).max()
    assert found.is_same(found.relative_difference)
    if found.relative_difference:
        assert not found.is_same(np.nextafter(found.relative_difference, 0))
    scaled = compare_blobs("x", first * np.float32(4), second * np.float32(4))
    assert scaled.relative_difference == found.relative_difference


@given(VALUES, st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 11))
def test_not_finite_is_never_the_same_even_as_itself(values, bad, place) -> None:
    broken = values.copy()
    broken.flat[place] = bad
    for first, second in ((broken, broken), (broken, values), (values, broken)):
        found = compare_blobs("x", first, second)
        assert not found.finite
        assert not found.is_same(np.inf)


def test_a_difference_from_nothing_is_infinite() -> None:
    zero = np.zeros((2, 3), np.float32)
    assert compare_blobs("x", zero, zero + 1).relative_difference == np.inf


WITH_INDICES = """
layer { name: "words" type: "Input" top: "words" top: "which" top: "rows"
  input_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 1 } shape { dim: 4 } } }
layer { name: "embed" type: "Embed" bottom: "words" top: "e"
  embed_param { input_dim: 100 num_output: 5 } }
layer { name: "filter" type: "Filter" bottom: "e" bottom: "which" top: "f" }
layer { name: "reindex" type: "BatchReindex" bottom: "e" bottom: "rows" top: "r" }
"""


@pytest.mark.real_caffe
def test_a_net_with_indices_equals_itself(put: Put, caffe_python: Path, tmp_path: Path) -> None:
    files = put("one", net_of(WITH_INDICES))
    caffe = Judge("caffe", CaffeEngine(caffe_python).forward)
    for seed in range(3):
        found = verify(files, files, [caffe], random_input(4, seed=seed, scale=1e6))
        assert found.is_same
        assert all(blob.max_difference == 0 < blob.largest for blob in found.judged[0].blobs)
    alone = put(
        "alone",
        net_of(
            WITH_INDICES.partition('layer { name: "filter')[0]
            .replace('top: "which" top: "rows"', "")
            .replace("shape { dim: 4 dim: 1 } shape { dim: 4 }", "")
        ),
    )
    np.save(tmp_path / "words.npy", np.full((4, 3), 100))
    with pytest.raises(SurgeryError, match="whole numbers from 0 to 99 are needed"):
        verify(alone, alone, [caffe], array_input(tmp_path / "words.npy"))
