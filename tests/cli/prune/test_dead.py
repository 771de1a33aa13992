from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from pycaffe_prune.cli.prune.command import prune
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.mask import MaskFile, read_mask, write_mask
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.fit import require_fitting
from tests.pruning.random_nets import random_weights

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 8] } } }
layer { name: "fc1" type: "InnerProduct" bottom: "data" top: "fc1"
  inner_product_param { num_output: 6 } }
layer { name: "relu" type: "ReLU" bottom: "fc1" top: "fc1" }
layer { name: "fc2" type: "InnerProduct" bottom: "fc1" top: "fc2"
  inner_product_param { num_output: 3 } }
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """Dense weights, and a mask that cuts off unit 1, what reads unit 4, and input 5."""
    (tmp_path / "net.prototxt").write_text(NET)
    model = random_weights(text_format.Parse(NET, NetParameter()), 1)
    write_caffemodel(tmp_path / "a.caffemodel", model)
    masks = {("fc1", 0): np.ones((6, 8), np.bool_), ("fc2", 0): np.ones((3, 6), np.bool_)}
    masks["fc1", 0][1] = masks["fc1", 0][:, 5] = masks["fc2", 0][:, 4] = False
    masks["fc1", 0][0, 0] = False
    write_mask(tmp_path / "a.mask.h5", MaskFile(masks, "0" * 64, "threshold", {}))
    return (
        *("--net", str(tmp_path / "net.prototxt")),
        *("--weights", str(tmp_path / "a.caffemodel")),
        *("--mask", str(tmp_path / "a.mask.h5")),
        *("--out", str(tmp_path / "out")),
    )


def run(files: tuple[str, ...], *arguments: str) -> Result:
    return CliRunner().invoke(prune, ["dead", *files, *arguments])


def test_the_mask_shrinks_with_the_weights(files: tuple[str, ...], tmp_path: Path) -> None:
    result = run(files)
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    net, model = read_net(out / "net.prototxt"), read_caffemodel(out / "pruned.caffemodel")
    require_fitting(net, model)
    masks = read_mask(out / "kept.mask.h5").masks
    for (name, index), mask in masks.items():
        blob = model.layer(name).blobs[index]
        assert mask.shape == blob.shape
        np.testing.assert_array_equal(blob != 0, mask)
    assert {name: mask.shape for (name, _), mask in masks.items()} == {"fc1": (4, 8), "fc2": (3, 4)}
    assert "4 of 6" in result.stdout
    assert "5 of the 44 weights left are zero" in result.stdout
    assert "fc1 (InnerProduct): 1 of its 8 inputs are never read" in result.stdout


def test_a_dry_run_writes_nothing(files: tuple[str, ...], tmp_path: Path) -> None:
    assert run(files, "--dry-run").exit_code == 0
    assert not (tmp_path / "out").exists()


def test_an_error_names_both_files(files: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET.replace("num_output: 6", "num_output: 7"))
    result = run(files)
    assert isinstance(result.exception, PruneError)
    assert "a.caffemodel with " in str(result.exception)
    assert "net.prototxt: layer 'fc1'" in str(result.exception)
