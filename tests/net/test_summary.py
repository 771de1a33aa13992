from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import (
    Caffemodel,
    Layer,
    read_caffemodel,
    write_caffemodel,
)
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.counts import count_layers
from pycaffe_prune.net.summary import summarise

IMAGE = "input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } }"
NET = f"""
layer {{ name: "data" type: "Input" top: "data" {IMAGE} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param {{ num_output: 4 kernel_size: 3 }} }}
layer {{ name: "slope" type: "PReLU" bottom: "conv" top: "conv" }}
"""

blobs_with_zeros = st.lists(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(max_dims=4, max_side=5),
        elements=st.sampled_from([0.0, -0.0, 1.0, -2.5, 1e-45, 1e6]),
    ),
    min_size=1,
    max_size=3,
)


def write(path: Path, *blobs: NDArray[np.float32]) -> Path:
    param = LayerParameter(name="ip", type="InnerProduct")
    data = Layer(LayerParameter(name="data", type="Data"))
    write_caffemodel(path, Caffemodel((data, Layer(param, blobs)), NetParameter(name="small")))
    return path


@given(blobs=blobs_with_zeros)
def test_counts_are_numpys(
    tmp_path_factory: pytest.TempPathFactory, blobs: list[NDArray[np.float32]]
) -> None:
    path = write(tmp_path_factory.mktemp("summary") / "a.caffemodel", *blobs)
    found = summarise(path)
    assert (found.path, found.name, found.bytes) == (str(path), "small", path.stat().st_size)
    assert found.parameters == sum(blob.size for blob in blobs)
    assert found.nonzero == sum(np.count_nonzero(blob) for blob in blobs)
    assert len(found.blobs) == len(blobs)
    for index, (row, blob) in enumerate(zip(found.blobs, blobs, strict=True)):
        assert (row.layer, row.type, row.index) == ("ip", "InnerProduct", index)
        assert (row.shape, row.count) == (blob.shape, blob.size)
        assert row.nonzero == np.count_nonzero(blob)
        assert row.finite
        assert (row.minimum, row.maximum) == (blob.min(), blob.max())
        assert row.std == pytest.approx(blob.astype(np.float64).std(), rel=1e-9)


def test_a_real_model_is_counted_as_its_readme_says(data_dir: Path) -> None:
    path = data_dir / "zoo" / "squeezenet" / "squeezenet_v1.0_pruned.caffemodel"
    found = summarise(path)
    weights = [row for row in found.blobs if row.index == 0]
    assert len(weights) == 26
    assert sum(row.count for row in weights) == 1_244_448
    assert sum(row.nonzero for row in weights) == 415_921
    for row, (place, blob) in zip(found.blobs, read_caffemodel(path).blobs(), strict=True):
        assert (row.layer, row.index) == place
        assert row.nonzero == np.count_nonzero(blob)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_blob_that_is_not_finite_is_marked_and_not_measured(tmp_path: Path, bad: float) -> None:
    blob = np.ones((2, 3), np.float32)
    blob[0, 0] = bad
    (row,) = summarise(write(tmp_path / "bad.caffemodel", blob)).blobs
    assert not row.finite
    assert (row.minimum, row.maximum, row.std) == (0, 0, 0)
    assert (row.count, row.nonzero) == (6, 6)


def test_an_empty_blob_has_no_values(tmp_path: Path) -> None:
    found = summarise(write(tmp_path / "empty.caffemodel", np.zeros((0, 3), np.float32)))
    assert (found.parameters, found.nonzero, found.blobs[0].shape) == (0, 0, (0, 3))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nowhere\.caffemodel: no such file"):
        summarise(tmp_path / "nowhere.caffemodel")


def write_conv(path: Path, net: NetParameter) -> Path:
    """Weights of NET with 7 zeros, defined as ``net`` says."""
    weights = np.ones((4, 3, 3, 3), np.float32)
    weights.reshape(-1)[:7] = 0
    values = {"conv": (weights, np.zeros(4, np.float32)), "slope": (np.ones(4, np.float32),)}
    layers = tuple(Layer(param, values.get(param.name, ())) for param in net.layer)
    write_caffemodel(path, Caffemodel(layers))
    return path


def test_macs_are_those_of_the_weights_at_every_place(tmp_path: Path) -> None:
    net = text_format.Parse(NET, NetParameter())
    path = write_conv(tmp_path / "a.caffemodel", net)
    found = summarise(path)
    assert [row.macs for row in found.blobs] == [4 * 27 * 16, 0, 0]
    assert [row.macs_nonzero for row in found.blobs] == [(4 * 27 - 7) * 16, 0, 0]
    assert (found.macs, found.macs_nonzero) == (4 * 27 * 16, (4 * 27 - 7) * 16)
    smaller = summarise(path, net.layer, {"data": (1, 3, 4, 4)})
    assert smaller.macs == 4 * 27 * 4


@pytest.mark.parametrize("change", ["kernel_size: 9", "kernel_size: 3 group: 2"])
def test_definitions_that_tell_nothing_or_nonsense_leave_macs_unknown(
    tmp_path: Path, change: str
) -> None:
    nonsense = text_format.Parse(NET.replace("kernel_size: 3", change), NetParameter())
    found = summarise(write_conv(tmp_path / "a.caffemodel", nonsense))
    assert (found.macs, found.macs_nonzero, found.nonzero) == (None, None, 4 * 27 - 7 + 4)
    unknown = text_format.Parse(NET.replace(IMAGE, ""), NetParameter())
    assert summarise(write_conv(tmp_path / "b.caffemodel", unknown)).macs is None


CASES = Path(__file__).parents[1] / "cases"


def test_what_layers_share_is_counted_once_and_multiplied_by_each() -> None:
    found = summarise(CASES / "shared.caffemodel")
    assert (found.parameters, found.nonzero, found.macs) == (72, 60, 120)
    owners = {f"{row.layer}/{row.index}": row.shared_with for row in found.blobs}
    assert owners["f1/0"] is None
    assert {name: owner for name, owner in owners.items() if owner} == {
        "f2/0": "f1/0", "f2/1": "f1/1", "g2/0": "g1/0", "g2/1": "g1/1"
    }  # fmt: skip


def test_macs_of_recurrent_weights_are_those_of_their_net() -> None:
    net = read_net(CASES / "lstm.prototxt")
    found = summarise(CASES / "lstm.caffemodel", net.layer)
    assert found.macs == sum(layer.macs or 0 for layer in count_layers(net.layer)) > 0
    macs = {row.index: row.macs for row in found.blobs if row.layer == "lstm1"}
    assert macs == {0: 2 * 20 * 7, 1: 0, 2: 2 * 20 * 5}  # 2 streams a time step


def test_definitions_without_blobs_around_leave_the_macs_unknown() -> None:
    path = CASES / "fork_type.caffemodel"  # names its layers' types, and nothing else of them
    assert (summarise(path).parameters, summarise(path).macs) == (44, None)
    net = read_net(CASES / "fork_type_net.prototxt")
    assert summarise(path, net.layer).macs == 36
