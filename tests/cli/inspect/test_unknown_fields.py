"""Commands that carry fields of forks say so before they begin; slips are named with their line."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner

from pycaffe_prune.cli.convert.command import convert
from pycaffe_prune.cli.prune.command import prune
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net

NET = """input: "x" input_shape { dim: 1 dim: 3 }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 2 biasterm: true } }
"""
TOLD = ":3: layer 'ip': the field 'inner_product_param.biasterm' (did you mean 'bias_term'?) of"


def test_prune_and_convert_warn_and_carry(tmp_path: Path) -> None:
    net, weights, out = tmp_path / "net.prototxt", tmp_path / "w.caffemodel", tmp_path / "out"
    net.write_text(NET)
    (layer,) = [layer for layer in read_net(net).layer if layer.name == "ip"]
    write_caffemodel(weights, Caffemodel((Layer(layer, (np.ones((2, 3), np.float32),)),)))
    options = ["--net", str(net), "--weights", str(weights), "--ratio", "0.5", "--out", str(out)]
    pruned = CliRunner().invoke(prune, ["connections", *options])
    assert pruned.exit_code == 0, pruned.output
    command = [str(net), "--to", "deploy", "--out", str(tmp_path / "deploy.prototxt")]
    for found in (pruned, CliRunner().invoke(convert, command)):
        assert f"warning: {net}{TOLD}" in found.stderr
    for path in (out / "net.prototxt", tmp_path / "deploy.prototxt"):
        assert "biasterm: true" in path.read_text()
    quiet = CliRunner().invoke(convert, [str(weights), "--out", str(tmp_path / "w.npz")])
    assert "warning" not in quiet.output
