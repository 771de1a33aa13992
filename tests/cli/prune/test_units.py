import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from pycaffe_prune.cli.prune.command import prune
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.named_model import named_model
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.formats.weights import write_weights
from pycaffe_prune.net.fit import require_fitting
from tests.pruning.random_nets import random_weights

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 8, 8] } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 10 kernel_size: 3 } }
layer { name: "norm1" type: "LRN" bottom: "conv1" top: "norm1" lrn_param { local_size: 3 } }
layer { name: "conv2a" type: "Convolution" bottom: "norm1" top: "conv2a"
  convolution_param { num_output: 6 kernel_size: 1 } }
layer { name: "conv2b" type: "Convolution" bottom: "norm1" top: "conv2b"
  convolution_param { num_output: 6 kernel_size: 1 } }
layer { name: "sum" type: "Eltwise" bottom: "conv2a" bottom: "conv2b" top: "sum" }
layer { name: "fc1" type: "InnerProduct" bottom: "sum" top: "fc1"
  inner_product_param { num_output: 20 } }
layer { name: "relu" type: "ReLU" bottom: "fc1" top: "fc1" }
layer { name: "fc2" type: "InnerProduct" bottom: "fc1" top: "fc2"
  inner_product_param { num_output: 4 } }
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    net = text_format.Parse(NET, NetParameter())
    (tmp_path / "deploy.prototxt").write_text(NET)
    write_caffemodel(tmp_path / "a.caffemodel", random_weights(net, 1))
    return (
        *("--net", str(tmp_path / "deploy.prototxt")),
        *("--weights", str(tmp_path / "a.caffemodel")),
        *("--out", str(tmp_path / "out")),
    )


def run(files: tuple[str, ...], *arguments: str) -> Result:
    return CliRunner().invoke(prune, ["units", *files, *arguments])


def units_left(out: Path) -> dict[str, int]:
    net, model = read_net(out / "net.prototxt"), read_caffemodel(out / "pruned.caffemodel")
    require_fitting(net, model)
    return {layer.name: len(layer.blobs[1]) for layer in model.layers if layer.blobs}


FULL = {"conv1": 10, "conv2a": 6, "conv2b": 6, "fc1": 20, "fc2": 4}


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (["--ratio", "0.5"], {"fc1": 10}),
        (
            ["--ratio", "0.5", "--layers", "all"],
            {"conv1": 5, "conv2a": 3, "conv2b": 3, "fc1": 10},
        ),
        (["--ratio", "0.5", "--layers", "conv*"], {"conv1": 5, "conv2a": 3, "conv2b": 3}),
        (["--ratio", "0.5", "--layers", "Convolution"], {"conv1": 5, "conv2a": 3, "conv2b": 3}),
        # One of two layers that are added up speaks for both.
        (["--ratio", "conv2b=0.5"], {"conv2a": 3, "conv2b": 3}),
        (
            ["--ratio", "0.2", "--ratio", "conv2b=0.5", "--layers", "all"],
            {"conv1": 8, "conv2a": 3, "conv2b": 3, "fc1": 16},
        ),
    ],
)
def test_the_layers_asked_for_lose_their_share_with_all_that_hangs_on_them(
    files: tuple[str, ...], tmp_path: Path, arguments: list[str], changed: dict[str, int]
) -> None:
    result = run(files, *arguments)
    assert result.exit_code == 0, result.output
    assert units_left(tmp_path / "out") == FULL | changed
    for name, count in changed.items():
        assert re.search(rf"{name} *│ *{count} of {FULL[name]} │", result.output)


@pytest.mark.parametrize("ending", [".h5", ".npz", ".sparse.npz", ".safetensors"])
def test_weights_in_any_form_give_the_same_caffemodel(
    files: tuple[str, ...], tmp_path: Path, ending: str
) -> None:
    assert run(files, "--ratio", "0.5", "--layers", "all").exit_code == 0
    expected = (tmp_path / "out" / "pruned.caffemodel").read_bytes()
    other = tmp_path / f"other{ending}"
    write_weights(other, read_caffemodel(tmp_path / "a.caffemodel"))
    changed = [str(other) if item.endswith("a.caffemodel") else item for item in files]
    assert run(tuple(changed), "--ratio", "0.5", "--layers", "all").exit_code == 0
    found = read_caffemodel(tmp_path / "out" / "pruned.caffemodel")
    (tmp_path / "expected.caffemodel").write_bytes(expected)
    for (key, blob), (name, wanted) in zip(
        found.blobs(), read_caffemodel(tmp_path / "expected.caffemodel").blobs(), strict=True
    ):
        assert key == name
        np.testing.assert_array_equal(blob, wanted)
    types = {layer.name: layer.type for layer in found.layers}
    assert types["fc1"] == "InnerProduct"


def test_the_masked_twin_has_the_full_size_and_zeros_where_the_other_has_nothing(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    assert run(files, "--ratio", "fc1=0.75", "--masked").exit_code == 0
    assert units_left(tmp_path / "out" / "masked") == FULL
    twin = read_caffemodel(tmp_path / "out" / "masked" / "pruned.caffemodel")
    small = read_caffemodel(tmp_path / "out" / "pruned.caffemodel")
    weights = twin.layer("fc2").blobs[0]
    kept = weights.any(axis=0)
    assert kept.sum() == 5
    np.testing.assert_array_equal(weights[:, kept], small.layer("fc2").blobs[0])


def test_a_changed_lrn_is_said_and_can_be_avoided(files: tuple[str, ...], tmp_path: Path) -> None:
    plain = run(files, "--ratio", "conv1=0.5")
    assert "norm1 (LRN) add up neighbouring channels" in plain.stderr
    assert units_left(tmp_path / "out")["conv1"] == 5
    exact = run(files, "--ratio", "conv1=0.5", "--keep-lrn-neighbours", "--masked")
    assert exact.exit_code == 0
    assert "LRN" not in exact.stderr
    assert 5 < units_left(tmp_path / "out")["conv1"] <= 10
    assert "LRN" not in run(files, "--ratio", "fc1=0.5").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ratio", "fc2=0.5"], "'fc2' is an output layer"),
        (["--ratio", "0.5", "--layers", "fc2"], "no layer 'fc2' can be pruned so"),
        (["--ratio", "sum=0.5"], "no layer 'sum' can be pruned so"),
        (["--ratio", "conv2a=0.5", "--ratio", "conv2b=0.2"], "need one ratio"),
        (["--ratio", "1.5"], "not 1.5"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    files: tuple[str, ...], tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = run(files, *arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, PruneError)
    assert message in str(result.exception)
    assert str(result.exception).startswith(f"{files[3]} with {files[1]}: ")
    assert not (tmp_path / "out").exists()


def test_a_ratio_that_is_none_is_a_fault_of_the_command_line(files: tuple[str, ...]) -> None:
    assert run(files, "--ratio", "half").exit_code == 2


CASES = Path(__file__).parents[2] / "cases"


def case(name: str, weights: str, out: Path) -> tuple[str, ...]:
    model = ("--weights", str(CASES / f"{weights}.caffemodel"))
    return ("--net", str(CASES / f"{name}.prototxt"), *model, "--out", str(out))


def test_the_nets_types_count_where_the_caffemodel_calls_them_otherwise(tmp_path: Path) -> None:
    result = run(case("fork_type_net", "fork_type", tmp_path), "--ratio", "0.5")
    assert result.exit_code == 0, result.output
    assert units_left(tmp_path) == {"ip1": 3, "ip2": 2}
    assert re.search(r"all .* 36 │ +18 │ +50.00", result.output)
    types = {layer.type for layer in read_caffemodel(tmp_path / "pruned.caffemodel").layers}
    assert types == {"CInnerProduct"}


def test_weights_that_layers_share_are_counted_once(tmp_path: Path) -> None:
    arguments = ("--layers", "all", "--ratio", "0.3")
    result = run(case("shared", "shared", tmp_path), *arguments)
    assert result.exit_code == 0, result.output
    assert re.search(r"all .* 60 │ +42 │ +30.00", result.output)
    assert units_left(tmp_path) == {"f1": 7, "g1": 2, "f2": 7, "g2": 2}


@pytest.mark.parametrize("method", ["connections", "units"])
def test_two_layers_of_one_name_are_refused(
    files: tuple[str, ...], tmp_path: Path, method: str
) -> None:
    (tmp_path / "deploy.prototxt").write_text(NET.replace('name: "conv2b"', 'name: "conv2a"'))
    result = CliRunner().invoke(prune, [method, *files, "--ratio", "0.5"])
    assert isinstance(result.exception, PruneError)
    assert "two layers of the name 'conv2a'" in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "left"),
    [("deconv_group", {"c1": (6, 1), "up": (6, 6)}), ("group_multiplier", {"c1": (18, 3)})],
)
def test_units_go_through_depthwise_layers_and_their_multipliers(
    tmp_path: Path, name: str, left: dict[str, tuple[int, int]]
) -> None:
    result = run(case(name, name, tmp_path), "--layers", "all", "--ratio", "0.3")
    assert result.exit_code == 0, result.output
    net = read_net(tmp_path / "net.prototxt")
    require_fitting(net, read_caffemodel(tmp_path / "pruned.caffemodel"))
    settings = {layer.name: layer.convolution_param for layer in net.layer}
    found = {name: (settings[name].num_output, settings[name].group) for name in left}
    assert found == left
    assert "left out: c2 (Convolution): is an output layer" in result.output


def test_where_nothing_can_be_pruned_each_layer_has_its_reason(tmp_path: Path) -> None:
    net = tmp_path / "wide.prototxt"
    net.write_text("""
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [4, 2, 6] } } }
        layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc"
          inner_product_param { num_output: 7 axis: 2 weight_filler { type: "xavier" } } }
        layer { name: "sum" type: "Reduction" bottom: "fc" top: "sum" reduction_param { axis: 2 } }
        layer { name: "out" type: "InnerProduct" bottom: "sum" top: "out"
          inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
    """)
    blobs = {
        ("fc", 0): np.ones((7, 6), np.float32),
        ("fc", 1): np.ones(7, np.float32),
        ("out", 0): np.ones((3, 2), np.float32),
        ("out", 1): np.ones(3, np.float32),
    }
    write_caffemodel(tmp_path / "w.caffemodel", named_model(blobs))
    words = ("--net", net, "--weights", tmp_path / "w.caffemodel", "--out", tmp_path / "out")
    arguments = ["units", *map(str, words), "--layers", "all", "--ratio", "0.3"]
    said = str(CliRunner().invoke(prune, arguments).exception)
    assert "layer 'fc' is read by layer 'sum' of type Reduction along axis 2, through" in said
    assert "layer 'out' is an output layer" in said


def test_merging_deletes_as_many_units_and_keeps_the_rest_as_it_was(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    result = run(files, "--method", "merge", "--ratio", "0.5")
    assert result.exit_code == 0, result.output
    assert units_left(tmp_path / "out") == {**FULL, "fc1": 10}
    model = read_caffemodel(tmp_path / "a.caffemodel")
    small = read_caffemodel(tmp_path / "out" / "pruned.caffemodel")
    incoming = {row.tobytes() for row in model.layer("fc1").blobs[0]}
    assert all(row.tobytes() in incoming for row in small.layer("fc1").blobs[0])
    outgoing = {column.tobytes() for column in model.layer("fc2").blobs[0].T}
    assert not all(column.tobytes() in outgoing for column in small.layer("fc2").blobs[0].T)


def test_layers_that_cannot_merge_are_listed(files: tuple[str, ...]) -> None:
    result = run(files, "--method", "merge", "--layers", "all", "--ratio", "0.5", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "left out: conv2a" in result.stdout
    assert "loses its units together with conv2b; they do not merge" in result.stdout


@pytest.mark.parametrize("other", [["--masked"], ["--keep-lrn-neighbours"], ["--criterion", "l1"]])
def test_what_ranks_does_not_go_with_merging(files: tuple[str, ...], other: list[str]) -> None:
    result = run(files, "--method", "merge", "--ratio", "0.5", *other)
    assert result.exit_code == 2
    assert f"{other[0]} goes with --method rank" in result.output
