from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from pycaffe_prune.cli.prune.command import prune
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.fit import require_fitting
from tests.pruning.random_nets import random_weights

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 8, 8] } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 12 kernel_size: 5 } }
layer { name: "fc1" type: "InnerProduct" bottom: "conv" top: "fc1"
  inner_product_param { num_output: 30 } }
layer { name: "fc2" type: "InnerProduct" bottom: "fc1" top: "fc2"
  inner_product_param { num_output: 5 } }
layer { name: "up" type: "Deconvolution" bottom: "conv" top: "up"
  convolution_param { num_output: 2 kernel_size: 2 } }
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "net.prototxt").write_text(NET)
    model = random_weights(text_format.Parse(NET, NetParameter()), 1)
    write_caffemodel(tmp_path / "a.caffemodel", model)
    return (
        *("--net", str(tmp_path / "net.prototxt")),
        *("--weights", str(tmp_path / "a.caffemodel")),
        *("--out", str(tmp_path / "out")),
    )


def run(files: tuple[str, ...], *arguments: str) -> Result:
    return CliRunner().invoke(prune, ["low-rank", *files, *arguments])


def ranks(out: Path) -> dict[str, int]:
    """The outputs of the first layers that were written, by the layer that they are of."""
    net, model = read_net(out / "net.prototxt"), read_caffemodel(out / "pruned.caffemodel")
    require_fitting(net, model)
    return {
        layer.name.removesuffix("_v"): layer.inner_product_param.num_output
        or layer.convolution_param.num_output
        for layer in net.layer
        if layer.name.endswith("_v")
    }


def test_the_ranks_that_were_asked_for(files: tuple[str, ...], tmp_path: Path) -> None:
    result = run(files, "--layers", "all", "--rank", "4", "--rank", "fc1=30", "--rank", "conv=2")
    assert result.exit_code == 0, result.output
    assert ranks(tmp_path / "out") == {"conv": 2, "fc1": 30, "fc2": 4}
    assert "30 of 30" in result.stdout  # though two layers of it are larger
    assert "left out: up (Deconvolution): is of the type Deconvolution" in result.stdout


def test_a_layer_stays_whole_where_two_would_not_be_smaller(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    result = run(files, "--energy", "0.9999")
    assert result.exit_code == 0, result.output
    assert ranks(tmp_path / "out") == {}
    assert "whole (30)" in result.stdout


def test_a_budget_of_macs_needs_the_size_of_images(files: tuple[str, ...], tmp_path: Path) -> None:
    assert run(files, "--layers", "all", "--macs", "0.4").exit_code == 0
    of_all = ranks(tmp_path / "out")
    assert of_all
    net = tmp_path / "net.prototxt"
    net.write_text(NET.replace("input_param { shape { dim: [1, 3, 8, 8] } }", ""))
    result = run(files, "--layers", "all", "--macs", "0.4")
    assert isinstance(result.exception, PruneError)
    assert "the MACs of layer 'conv' are not known" in str(result.exception)
    told = run(files, "--layers", "all", "--macs", "0.4", "--input-shape", "data=1x3x8x8")
    assert told.exit_code == 0, told.output
    assert ranks(tmp_path / "out") == of_all
    by_weights = run(files, "--layers", "all", "--parameters", "0.4", "--dry-run")
    assert "MACs are not counted: the MACs of layer 'conv'" in by_weights.stdout


def test_a_dry_run_writes_nothing(files: tuple[str, ...], tmp_path: Path) -> None:
    assert run(files, "--energy", "0.5", "--dry-run").exit_code == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of --energy, --rank, --parameters and --macs"),
        (["--energy", "0.5", "--rank", "2"], "give one of --energy, --rank"),
        (["--rank", "2.5"], "layer 'fc1' has ranks from 1 to 30, not 2.5"),
        (["--rank", "fc2=6"], "layer 'fc2' has ranks from 1 to 5, not 6"),
        (["--energy", "2"], "layer 'fc1' cannot keep 2.0 of its energy"),
        (["--parameters", "1"], "rank 1 takes 257, more than the 1 of the budget"),
        (["--rank", "up=1"], "it is of the type Deconvolution"),
    ],
)
def test_what_makes_no_sense_is_refused(
    files: tuple[str, ...], arguments: list[str], message: str
) -> None:
    result = run(files, *arguments)
    assert result.exit_code != 0
    assert message in result.output + str(result.exception)
