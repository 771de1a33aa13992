"""Weights to begin with: found or asked for, upgraded, and none of the net's layers forgotten."""

import numpy as np
import pytest

from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.experiments.pretrained import find_weights, read_pretrained
from pycaffe_prune.experiments.settings import WeightsSpec
from pycaffe_prune.formats.caffe_pb2 import BlobProto, NetParameter, V1LayerParameter
from pycaffe_prune.formats.prototxt import read_net

WEIGHTS = {"ip1": np.arange(20 * 784), "ip2": np.arange(12 * 20), "old": np.arange(12 * 1000)}


def _v1(folder, **blobs):
    """A caffemodel as those of the Model Zoo are: V1 layers, blobs of four dimensions."""
    layers = []
    inputs = {"ip1": 784, "ip2": 20, "ip3": 12, "old": 12}
    for name, values in blobs.items():
        outputs = values.size // inputs[name]
        weight = BlobProto(num=1, channels=1, height=outputs, width=inputs[name])
        weight.data.extend(values.astype(np.float32))
        bias = BlobProto(num=1, channels=1, height=1, width=outputs, data=[1.0] * outputs)
        layers.append(
            V1LayerParameter(
                name=name, type=V1LayerParameter.INNER_PRODUCT, blobs=[weight, bias], top=[name]
            )
        )
        layers[-1].inner_product_param.num_output = outputs
    path = folder / "zoo.caffemodel"
    path.write_bytes(NetParameter(name="zoo", layers=layers).SerializeToString())
    return path


@pytest.fixture
def net(toml):
    return read_net(toml.parent / "net.prototxt")


def test_layers_of_the_same_name_are_copied_and_the_new_classifier_is_left_alone(
    net, toml, tmp_path
):
    found = read_pretrained(find_weights(None, toml, _v1(tmp_path, **WEIGHTS)), net)
    assert [layer.name for layer in found.layers] == ["ip1", "ip2"]
    for name in ("ip1", "ip2"):
        weight, bias = found.layer(name).blobs
        assert weight.shape == (bias.size, WEIGHTS[name].size // bias.size)
        np.testing.assert_array_equal(weight.reshape(-1), WEIGHTS[name].astype(np.float32))


def test_a_classifier_that_fits_is_copied_too(net, toml, tmp_path):
    blobs = {**WEIGHTS, "ip3": np.arange(120)}
    found = read_pretrained(find_weights(None, toml, _v1(tmp_path, **blobs)), net)
    assert [layer.name for layer in found.layers] == ["ip1", "ip2", "ip3"]


@pytest.mark.parametrize(
    ("blobs", "message"),
    [
        ({"ip1": WEIGHTS["ip1"]}, "layer 'ip2': the net has it .* holds none"),
        (
            {**WEIGHTS, "ip2": np.arange(24 * 20)},
            r"layer 'ip2', blob 0: the net says 12x\?, .* 24x20",
        ),
        (
            {**WEIGHTS, "ip3": np.arange(9 * 12)},
            r"layer 'ip3', blob 0: the net says 10x\?, .* 9x12",
        ),
    ],
)
def test_what_would_silently_stay_random_or_not_fit_is_refused(net, toml, tmp_path, blobs, message):
    pretrained = find_weights(None, toml, _v1(tmp_path, **blobs))
    with pytest.raises(SurgeryError, match=rf"zoo\.caffemodel: {message}"):
        read_pretrained(pretrained, net)


def test_what_the_user_names_comes_first_then_what_the_file_says(toml, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_weights(None, toml, None) is None
    given = _v1(tmp_path, ip1=WEIGHTS["ip1"])
    assert find_weights(WeightsSpec(zoo="caffenet"), toml, given).path == given
    own = WeightsSpec(path="own.caffemodel")
    with pytest.raises(FormatError, match=r"small\.toml: .*'own\.caffemodel'.*--weights"):
        find_weights(own, toml, None)
    (tmp_path / "own.caffemodel").write_bytes(b"1")
    here = find_weights(own, toml, None)
    (toml.parent / "own.caffemodel").write_bytes(b"2")
    beside = find_weights(own, toml, None)
    assert [here.path, beside.path] == [
        tmp_path / "own.caffemodel",
        toml.parent / "own.caffemodel",
    ]
    assert here.sha256 != beside.sha256


def test_weights_of_the_zoo_that_are_missing_are_told_how_to_get_and_found_there(
    toml, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    wanted = WeightsSpec(zoo="caffenet")
    with pytest.raises(FormatError, match=r"convert --from-zoo caffenet --out weights`.*--weights"):
        find_weights(wanted, toml, None)
    file = tmp_path / "weights" / "bvlc_reference_caffenet.caffemodel"
    file.parent.mkdir()
    file.write_bytes(b"")
    assert find_weights(wanted, toml, None).path == file
