from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from data_prep.digits import build_digits
from pycaffe_prune.cli.prune.command import prune
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.fit import require_fitting
from tests.experiments.conftest import NET
from tests.pruning.random_nets import random_weights

INPUT = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 1, 28, 28] } } }
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "net.prototxt").write_text(NET)
    whole = text_format.Parse(NET, NetParameter())
    deploy = text_format.Parse(INPUT, NetParameter())
    deploy.layer.extend(layer for layer in whole.layer if layer.type in ("InnerProduct", "ReLU"))
    write_caffemodel(tmp_path / "a.caffemodel", random_weights(deploy, 1))
    return (
        *("--net", str(tmp_path / "net.prototxt")),
        *("--weights", str(tmp_path / "a.caffemodel")),
        *("--out", str(tmp_path / "out")),
    )


def run(files: tuple[str, ...], *arguments: str) -> Result:
    return CliRunner().invoke(prune, ["predict", *files, *arguments])


def samples(out: Path) -> dict[str, int]:
    """Outputs of the dictionaries that were written."""
    net, model = read_net(out / "net.prototxt"), read_caffemodel(out / "pruned.caffemodel")
    require_fitting(net, model, {"data": (1, 1, 28, 28)})
    fixed = [layer for layer in net.layer if layer.name.endswith("_v")]
    assert all(layer.param[0].lr_mult == layer.param[0].decay_mult == 0 for layer in fixed)
    return {layer.name: layer.inner_product_param.num_output for layer in fixed}


def test_the_places_of_pixels_need_the_size_of_images(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    result = run(files, "--share", "ip1=0.9")
    assert "the blob 'data' that layer 'ip1' reads is not known" in str(result.exception)
    told = ("--input-shape", "data=64x1x28x28")
    assert run(files, "--share", "ip1=0.9", *told, "--dry-run").exit_code == 0
    assert not (tmp_path / "out").exists()
    result = run(files, "--share", "ip1=0.9", *told)
    assert result.exit_code == 0, result.output
    assert samples(tmp_path / "out") == {"ip1_v": 78}
    result = run(files, "--share", "0.9", *told)
    assert "layer 'ip2' reads 20 values an image" in str(result.exception)


def test_the_covariance_is_that_of_training_images(files: tuple[str, ...], tmp_path: Path) -> None:
    build_digits(tmp_path / "data")
    told = ("--kernel", "covariance", "--data", str(tmp_path / "data"), "--engine", "torch")
    asked = ("--share", "0.5", "--share", "ip1=0.9", *told)
    result = run(files, *asked, "--images", "200")
    assert result.exit_code == 0, result.output
    assert samples(tmp_path / "out") == {"ip1_v": 78, "ip2_v": 10, "ip3_v": 6}
    assert "holds 1500 images, not 9999" in str(run(files, *asked, "--images", "9999").exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "1"], "a share of 1.0 of the inputs cannot be predicted"),
        (["--share", "0.5", "--images", "3"], "--images goes with --kernel covariance"),
        (
            ["--share", "0.5", "--kernel", "covariance", "--scale", "3"],
            "--scale goes with --kernel squared-exponential",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    files: tuple[str, ...], arguments: list[str], message: str
) -> None:
    result = run(files, *arguments)
    assert result.exit_code != 0
    assert message in result.output + str(result.exception)
