"""`--stage` and `--level` in the commands that read a net and write one back."""

from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from pycaffe_prune.cli.convert.command import convert
from pycaffe_prune.cli.prune.command import prune
from pycaffe_prune.cli.verify.command import verify
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net

# Either a or b reads h.
NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 6 } } }
layer {
  name: "h" type: "InnerProduct" bottom: "data" top: "h" inner_product_param { num_output: 8 }
}
layer {
  name: "a" type: "InnerProduct" bottom: "h" top: "y" include { stage: "deep" }
  inner_product_param { num_output: 5 }
}
layer {
  name: "b" type: "InnerProduct" bottom: "h" top: "y" exclude { stage: "deep" }
  inner_product_param { num_output: 3 }
}
"""
SHAPES = {"h": (8, 6), "a": (5, 8), "b": (3, 8)}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return path


def weights_of(net: Path, names: str) -> Path:
    random = np.random.default_rng(3)
    layers = tuple(
        Layer(
            layer,
            tuple(
                random.normal(size=shape).astype(np.float32)
                for shape in (SHAPES[layer.name], SHAPES[layer.name][:1])
            ),
        )
        for layer in read_net(net).layer
        if layer.name in names
    )
    path = net.with_name(f"{names}.caffemodel")
    write_caffemodel(path, Caffemodel(layers))
    return path


def run(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(item) for item in arguments])


def pruned(net: Path, names: str, kind: str, *options: str) -> Path:
    out = net.parent / "out"
    weights = weights_of(net, names)
    arguments = ("--net", net, "--weights", weights, "--ratio", "0.5", "--out", out)
    result = run(prune, kind, *arguments, "--layers", "all", *options)
    assert result.exit_code == 0, result.output
    return out


def test_connections_of_the_layers_of_the_chosen_state_are_pruned(net: Path) -> None:
    out = pruned(net, "hab", "connections", "--stage", "deep")
    model = read_caffemodel(out / "pruned.caffemodel")
    zeros = {layer.name: int((layer.blobs[0] == 0).sum()) for layer in model.layers}
    assert zeros == {"h": 24, "a": 20, "b": 0}
    assert read_net(out / "net.prototxt") == read_net(net)  # all layers, and no state of its own


@pytest.mark.parametrize("option", [(), ("--stage", "deep")])
def test_the_layers_of_all_states_lose_what_a_deleted_unit_fed(
    net: Path, option: tuple[str, ...]
) -> None:
    out = pruned(net, "hab", "units", "--masked", *option)
    assert not read_net(out / "net.prototxt").HasField("state")
    for state in ((), ("--stage", "deep")):
        assert run(verify, out / "masked", out, "--judge", "opencv", *state).exit_code == 0


def test_weights_of_one_state_are_enough_where_it_is_chosen(net: Path) -> None:
    out = pruned(net, "ha", "units", "--masked", "--stage", "deep")
    same = run(verify, out / "masked", out, "--judge", "opencv", "--stage", "deep")
    assert same.exit_code == 0
    without = run(verify, out / "masked", out, "--judge", "opencv")
    assert isinstance(without.exception, SurgeryError)
    assert "layer 'b'" in str(without.exception)


@pytest.mark.parametrize(("option", "last"), [((), "b"), (("--stage", "deep"), "a")])
def test_deploy_is_that_of_the_chosen_state(net: Path, option: tuple[str, ...], last: str) -> None:
    out = net.with_name("deploy.prototxt")
    assert run(convert, net, "--to", "deploy", "--out", out, *option).exit_code == 0
    assert [layer.name for layer in read_net(out).layer] == ["data", "h", last]
    assert not read_net(out).HasField("state")


def test_deploy_of_the_training_net_has_its_layers(net: Path) -> None:
    only = ' include { phase: TRAIN } bottom: "y" top: "z" }'
    net.write_text(NET + 'layer { name: "last" type: "Sigmoid"' + only)
    out = net.with_name("deploy.prototxt")
    assert run(convert, net, "--to", "deploy", "--phase", "train", "--out", out).exit_code == 0
    assert [layer.name for layer in read_net(out).layer] == ["data", "h", "b", "last"]


def test_converted_weights_have_the_definitions_of_the_chosen_state_and_not_the_choice(
    net: Path,
) -> None:
    out = net.with_name("out.caffemodel")
    arguments = (weights_of(net, "ha"), "--net", net, "--out", out, "--stage", "deep")
    assert run(convert, *arguments).exit_code == 0
    model = read_caffemodel(out)
    assert [layer.name for layer in model.layers] == ["data", "h", "a"]
    assert not model.net.HasField("state")


def test_a_choice_that_would_change_nothing_is_refused(net: Path) -> None:
    weights = weights_of(net, "hab")
    for arguments in (
        (net, "--to", "prototxt", "--stage", "deep"),
        (weights, "--to", "npz", "--stage", "deep"),
        (net, "--to", "prototxt", "--phase", "train"),
    ):
        assert run(convert, *arguments, "--out", net.with_name("out")).exit_code == 2
    pair = f"{net}:{weights}"
    assert isinstance(run(verify, pair, pair, "--stage", "shallow").exception, FormatError)
