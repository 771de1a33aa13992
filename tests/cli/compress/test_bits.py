from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from pycaffe_prune.cli.compress.command import compress
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.compressed.file import read_compressed
from pycaffe_prune.formats.weights import read_weights, write_weights

NET = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 50 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 40 } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 30 bias_term: false } }
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draws = np.random.default_rng(3)

    def normal(*shape: int) -> np.ndarray:
        blob = draws.standard_normal(shape).astype(np.float32)
        blob[np.abs(blob) < 1] = 0
        return blob

    layers = (
        Layer(LayerParameter(name="ip1", type="InnerProduct"), (normal(40, 50), normal(40))),
        Layer(LayerParameter(name="ip2", type="InnerProduct"), (normal(30, 40),)),
    )
    path = tmp_path_factory.mktemp("weights") / "a.caffemodel"
    write_caffemodel(path, Caffemodel(layers))
    return path


def run(*arguments: Path | str) -> Result:
    return CliRunner().invoke(
        compress, [str(item) for item in arguments], catch_exceptions=False, standalone_mode=False
    )


def compressed(*arguments: Path | str, out: Path) -> dict[BlobKey, np.ndarray]:
    run(*arguments, "--out", out)
    return dict(read_compressed(out).blobs())


def values(blob: np.ndarray) -> int:
    return int(np.unique(blob[blob != 0]).size)


def test_weights_share_what_is_wished_and_biases_stay(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.cpz"
    wishes = ("--bits", "4", "--bits", "ip2=3%")
    found = compressed("--weights", weights, *wishes, out=out)
    before = dict(read_weights(weights).blobs())
    assert values(found["ip1", 0]) == 16
    assert found["ip1", 1].tobytes() == before["ip1", 1].tobytes()
    for key in (("ip1", 0), ("ip2", 0)):
        assert ((found[key] == 0) == (before[key] == 0)).all()
    lost = np.linalg.norm(found["ip2", 0] - before["ip2", 0]) / np.linalg.norm(before["ip2", 0])
    assert 0 < lost <= 0.03
    output = run("--weights", weights, *wishes, "--out", out).output
    row = next(line.split() for line in output.splitlines() if line.startswith("ip2"))
    assert row[3:] == [str(values(found["ip2", 0])), f"{100 * lost:.2f}"]


def test_no_error_is_no_change(weights: Path, tmp_path: Path) -> None:
    found = compressed("--weights", weights, "--bits", "0%", out=tmp_path / "a.cpz")
    assert [blob.tobytes() for blob in found.values()] == [
        blob.tobytes() for _, blob in read_weights(weights).blobs()
    ]


def test_names_alone_need_the_net_whose_definitions_the_file_gets(
    weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    write_weights(tmp_path / "a.npz", read_weights(weights))
    with pytest.raises(SurgeryError, match=r"a\.npz: the file .* says no types .* --net"):
        run("--weights", tmp_path / "a.npz", "--out", tmp_path / "a.cpz", "--bits", "4")
    named = ("--weights", tmp_path / "a.npz", "--net", tmp_path / "net.prototxt", "--bits", "4")
    assert values(compressed(*named, out=tmp_path / "a.cpz")["ip1", 0]) == 16
    types = [layer.type for layer in read_compressed(tmp_path / "a.cpz").layers]
    assert types == ["Input", "InnerProduct", "InnerProduct"]


@pytest.mark.parametrize("wish", ["0", "17", "ip1=x", "-1%", "101%", "nan%", "%", "4.5"])
def test_a_wish_that_means_nothing_is_refused(weights: Path, tmp_path: Path, wish: str) -> None:
    with pytest.raises(click.BadParameter, match="is none of 1 to 16 bits"):
        run("--weights", weights, "--out", tmp_path / "a.cpz", "--bits", wish)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_is_none_is_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(SurgeryError, match=r"a\.caffemodel: no layer 'ip3' can be"):
        run("--weights", weights, "--out", tmp_path / "a.cpz", "--bits", "ip3=4")
