import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from pycaffe_prune.cli.prune.command import prune
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import MaskFile, read_mask, write_mask
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.pruning.connections import nonzero_where_masked

NET = """
name: "small"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 20 } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 10 } }
layer { name: "ip3" type: "InnerProduct" bottom: "ip2" top: "ip3"
  inner_product_param { num_output: 4 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip3" bottom: "label" top: "loss" }
"""
NAMES = ("ip1", "ip2", "ip3")
WRITTEN = {"net.prototxt", "pruned.caffemodel"}


def random_model(seed: int, inputs: int = 30) -> Caffemodel:
    random = np.random.default_rng(seed)
    layers = []
    for layer in text_format.Parse(NET, NetParameter()).layer:
        if layer.type == "InnerProduct":
            units = layer.inner_product_param.num_output
            shapes = ((units, inputs), (units,))
            blobs = (random.normal(size=shape).astype(np.float32) for shape in shapes)
            layers.append(Layer(layer, tuple(blobs)))
            inputs = units
    return Caffemodel(tuple(layers), NetParameter(name="small"))


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "train_val.prototxt"
    path.write_text(NET)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "final.caffemodel"
    write_caffemodel(path, random_model(0))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(prune, [str(item) for item in arguments])


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def reductions(output: str) -> dict[str, tuple[str, ...]]:
    """The rows of the printed table: layer, then weights, kept, reduction %."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines()]
    return {row[0]: tuple(row[1:]) for row in cells if row}


def test_connections_leaves_a_net_its_weights_and_their_mask(
    net: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "pruned"
    result = run("connections", "--net", net, "--weights", weights, "--alpha", 1.5, "--out", out)
    assert result.exit_code == 0, result.output
    assert names_in(out) == WRITTEN | {"kept.mask.h5"}
    assert read_net(out / "net.prototxt") == read_net(net)
    before, after = read_caffemodel(weights), read_caffemodel(out / "pruned.caffemodel")
    mask = read_mask(out / "kept.mask.h5")
    assert set(mask.masks) == {(name, 0) for name in NAMES}
    for name in NAMES:
        old, bias = before.layer(name).blobs
        kept = np.abs(old) >= np.float32(1.5 * old.std(dtype=np.float64))
        np.testing.assert_array_equal(mask.masks[name, 0], kept)
        np.testing.assert_array_equal(after.layer(name).blobs[0], np.where(kept, old, 0))
        np.testing.assert_array_equal(after.layer(name).blobs[1], bias)
        rate = f"{100 * (1 - kept.mean()):.2f}"
        assert reductions(result.output)[name] == (f"{old.size}", f"{kept.sum()}", rate)
        limit = mask.parameters["thresholds"][f"{name}/0"]
        assert limit == pytest.approx(1.5 * old.std(dtype=np.float64))
    assert mask.source_sha256 == sha256_of(weights)
    assert mask.criterion == "threshold"
    assert (mask.parameters["alpha"], mask.parameters["sigma"]) == (1.5, "initial")
    require_fitting(read_net(out / "net.prototxt"), after)


def test_connections_prunes_only_the_layers_named(net: Path, weights: Path, tmp_path: Path) -> None:
    arguments = ("--alpha", 1, "--layers", "ip3, ip1", "--out", tmp_path / "out")
    assert run("connections", "--net", net, "--weights", weights, *arguments).exit_code == 0
    assert set(read_mask(tmp_path / "out" / "kept.mask.h5").masks) == {("ip1", 0), ("ip3", 0)}
    after = read_caffemodel(tmp_path / "out" / "pruned.caffemodel").layer("ip2").blobs[0]
    np.testing.assert_array_equal(after, read_caffemodel(weights).layer("ip2").blobs[0])


@pytest.mark.parametrize("layers", [(), ("--layers", "ip2")])
def test_a_second_round_keeps_pruned_what_the_first_one_pruned(
    net: Path, weights: Path, tmp_path: Path, layers: tuple[str, ...]
) -> None:
    arguments = ("--net", net, "--alpha", 1.2)
    run("connections", *arguments, "--weights", weights, "--out", tmp_path / "one")
    first = tmp_path / "one" / "kept.mask.h5"
    retrained = tmp_path / "retrained.caffemodel"
    write_caffemodel(retrained, random_model(1))  # as if trained without the mask
    later = ("--weights", retrained, "--original", weights, "--mask", first, *layers)
    result = run("connections", *arguments, *later, "--out", tmp_path / "two")
    assert result.exit_code == 0, result.output
    masks, second = read_mask(first).masks, read_mask(tmp_path / "two" / "kept.mask.h5")
    after = read_caffemodel(tmp_path / "two" / "pruned.caffemodel")
    assert not any(nonzero_where_masked(after, masks).values())
    assert not any(nonzero_where_masked(after, second.masks).values())
    assert set(second.masks) == set(masks)
    for place, mask in masks.items():
        assert not (second.masks[place] & ~mask).any()
        pruned_now = not layers or place[0] in layers
        assert (second.masks[place].sum() < mask.sum()) == pruned_now
    sigma = read_caffemodel(weights).layer("ip2").blobs[0].std(dtype=np.float64)
    assert second.parameters["thresholds"]["ip2/0"] == pytest.approx(1.2 * sigma)
    assert second.source_sha256 == sha256_of(retrained)


@pytest.mark.parametrize("rule", ["initial", "all", "survivors"])
def test_sigma_is_taken_as_asked(net: Path, weights: Path, tmp_path: Path, rule: str) -> None:
    kept = np.zeros((20, 30), np.bool_)
    kept[:7] = True
    first = tmp_path / "first.mask.h5"
    write_mask(first, MaskFile({("ip1", 0): kept}, "0" * 64, "threshold"))
    original = tmp_path / "original.caffemodel"
    write_caffemodel(original, random_model(9))
    rounds = ("--original", original, "--mask", first, "--sigma", rule)
    base = ("--net", net, "--weights", weights, "--alpha", 2, "--out", tmp_path / "out")
    result = run("connections", *base, *rounds)
    assert result.exit_code == 0, result.output
    now = read_caffemodel(weights).layer("ip1").blobs[0]
    chosen = {"initial": random_model(9).layer("ip1").blobs[0], "all": now, "survivors": now[kept]}
    parameters = read_mask(tmp_path / "out" / "kept.mask.h5").parameters
    assert parameters["sigma"] == rule
    sigma = chosen[rule].std(dtype=np.float64)
    assert parameters["thresholds"]["ip1/0"] == pytest.approx(2 * sigma, rel=1e-12)


def test_a_second_round_must_know_the_unpruned_network(
    net: Path, weights: Path, tmp_path: Path
) -> None:
    arguments = ("--net", net, "--weights", weights, "--alpha", 1)
    result = run("connections", *arguments, "--mask", "x.mask.h5", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "--original" in result.output
    assert not (tmp_path / "out").exists()


def test_a_model_may_be_pruned_in_its_own_folder(net: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    source = weights.rename(out / "pruned.caffemodel")
    checksum = sha256_of(source)
    result = run("connections", "--net", net, "--weights", source, "--alpha", 1, "--out", out)
    assert result.exit_code == 0, result.output
    mask = read_mask(out / "kept.mask.h5")
    assert mask.source_sha256 == checksum != sha256_of(source)
    assert not any(nonzero_where_masked(read_caffemodel(source), mask.masks).values())


@pytest.mark.parametrize(
    ("ratios", "units"),
    [
        (("0.5",), {"ip1": 10, "ip2": 5, "ip3": 4}),
        (("ip1=0.9",), {"ip1": 2, "ip2": 10, "ip3": 4}),
        (("ip1=0.9", "0.2"), {"ip1": 2, "ip2": 8, "ip3": 4}),
        (("0.2", "ip1=0.9"), {"ip1": 2, "ip2": 8, "ip3": 4}),
        (("0",), {"ip1": 20, "ip2": 10, "ip3": 4}),
    ],
)
def test_units_leaves_a_smaller_net_and_weights_that_fit_it(
    net: Path, weights: Path, tmp_path: Path, ratios: tuple[str, ...], units: dict[str, int]
) -> None:
    out = tmp_path / "out"
    options = [item for ratio in ratios for item in ("--ratio", ratio)]
    result = run("units", "--net", net, "--weights", weights, *options, "--out", out)
    assert result.exit_code == 0, result.output
    assert names_in(out) == WRITTEN
    small_net = read_net(out / "net.prototxt")
    small = read_caffemodel(out / "pruned.caffemodel")
    inputs, total = 30, 0
    for name, count in units.items():
        assert small.layer(name).blobs[0].shape == (count, inputs)
        assert small.layer(name).blobs[1].shape == (count,)
        assert small.layer(name).param.inner_product_param.num_output == count
        total, inputs = total + count * inputs, count
    whole = 20 * 30 + 10 * 20 + 4 * 10
    assert reductions(result.output)["all"] == (
        "", f"{whole}", f"{total}", f"{100 * (1 - total / whole):.2f}"
    )  # fmt: skip
    expected = read_net(net)
    for layer in expected.layer:
        if layer.name in units:
            layer.inner_product_param.num_output = units[layer.name]
    assert small_net == expected


def test_units_restricts_a_plain_ratio_to_the_layers_named(
    net: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--ratio", 0.5, "--layers", "ip2", "--out", out)
    assert run("units", "--net", net, "--weights", weights, *options).exit_code == 0
    shapes = [layer.blobs[0].shape for layer in read_caffemodel(out / "pruned.caffemodel").layers]
    assert shapes == [(20, 30), (5, 20), (4, 5)]


def test_units_by_chance_follow_the_seed(net: Path, weights: Path, tmp_path: Path) -> None:
    def checksum(folder: str, *options: object) -> str:
        out = tmp_path / folder
        base = ("--net", net, "--weights", weights, "--ratio", 0.5, "--out", out)
        assert run("units", *base, *options).exit_code == 0
        return sha256_of(out / "pruned.caffemodel")

    by_chance = ("--criterion", "random", "--seed")
    assert checksum("a", *by_chance, 1) == checksum("b", *by_chance, 1)
    assert checksum("a", *by_chance, 1) != checksum("c", *by_chance, 2)
    assert checksum("d") != checksum("e", "--criterion", "inorm")


@pytest.mark.parametrize("command", [("connections", "--alpha", "1"), ("units", "--ratio", "0.5")])
def test_a_dry_run_shows_the_same_and_writes_nothing(
    net: Path, weights: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    before = names_in(tmp_path)
    arguments = (*command, "--net", net, "--weights", weights, "--out", tmp_path / "out")
    dry = run(*arguments, "--dry-run")
    assert dry.exit_code == 0
    assert names_in(tmp_path) == before
    wet = run(*arguments)
    assert wet.output == f"{dry.output}written to {tmp_path / 'out'}\n"


def make_bad_files(folder: Path) -> None:
    model = random_model(0)
    nan = model.layer("ip2").blobs[0].copy()
    nan[0, 0] = np.nan
    write_caffemodel(folder / "nan.caffemodel", model.with_blobs({("ip2", 0): nan}))
    content = (folder / "final.caffemodel").read_bytes()
    (folder / "cut.caffemodel").write_bytes(content[:-100])
    other_net = NET.replace("num_output: 20", "num_output: 21")
    (folder / "other.prototxt").write_text(other_net)
    (folder / "broken.prototxt").write_text("layer { name: 'ip1' ]")
    conv = 'name: "relu1" type: "ReLU"'
    assert conv in NET
    (folder / "mixed.prototxt").write_text(NET.replace(conv, 'name: "mix" type: "Reduction"'))
    (folder / "foreign.prototxt").write_text(NET.replace('"ip3"', '"out"'))
    masks = {("ip1", 0): np.ones((30, 20), np.bool_)}
    write_mask(folder / "other.mask.h5", MaskFile(masks, "0" * 64, "threshold"))


NOT_WHOLE = ("connections --net {net} --weights cut.caffemodel --alpha 1", "cut.caffemodel")
ALL_UNITS = ("units --net {net} --weights {weights} --ratio 1", "not 1.0")
BAD = [
    (
        "connections --net {net} --weights nowhere.caffemodel --alpha 1",
        "nowhere.caffemodel: no such",
    ),
    NOT_WHOLE,
    (
        "connections --net {net} --weights nan.caffemodel --alpha 1",
        "'ip2', blob 0 (10x20): 1 of 200",
    ),
    ("connections --net {net} --weights {weights} --alpha -1", "alpha"),
    ("connections --net broken.prototxt --weights {weights} --alpha 1", "broken.prototxt:1"),
    (
        "connections --net other.prototxt --weights {weights} --alpha 1",
        "layer 'ip1', blob 0: the net says 21x?, the caffemodel holds 20x30",
    ),
    (
        "connections --net foreign.prototxt --weights {weights} --alpha 1",
        "layer 'out': the net has",
    ),
    ("connections --net {net} --weights {weights} --alpha 1 --layers ip9", "no layer 'ip9'"),
    ("connections --net {net} --weights {weights} --alpha 1 --layers relu1", "'relu1'"),
    (
        "connections --net {net} --weights {weights} --alpha 1 --sigma all --mask other.mask.h5",
        "the mask is 30x20 but the weights are 20x30",
    ),
    ALL_UNITS,
    ("units --net {net} --weights {weights} --ratio ip3=0.5", "'ip3' is an output layer"),
    ("units --net {net} --weights {weights} --ratio ip9=0.5", "no layer 'ip9'"),
    ("units --net {net} --weights nan.caffemodel --ratio 0.5", "'ip2', blob 0 (10x20): 1 of 200"),
    ("units --net other.prototxt --weights {weights} --ratio 0.5", "the net says 21x"),
    ("units --net mixed.prototxt --weights {weights} --ratio ip1=0.5", "'mix' of type Reduction"),
]


@pytest.mark.parametrize(("command", "message"), BAD)
def test_bad_input_leaves_no_file_behind(
    net: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    message: str,
) -> None:
    make_bad_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = names_in(tmp_path)
    arguments = command.format(net=net, weights=weights).split()
    result = run(*arguments, "--out", "out")
    assert result.exit_code == 1
    assert isinstance(result.exception, PruneError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert names_in(tmp_path) == before


@pytest.mark.parametrize(("command", "message"), [NOT_WHOLE, ALL_UNITS])
def test_the_command_says_one_sentence_and_exits_with_1(
    net: Path, weights: Path, tmp_path: Path, command: str, message: str
) -> None:
    make_bad_files(tmp_path)
    arguments = command.format(net=net, weights=weights).split()
    done = subprocess.run(
        [sys.executable, "-m", "pycaffe_prune", "prune", *arguments, "--out", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("caffe-prune: ")
    assert message in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ratio", ["half", "ip1=", "ip1=most"])
def test_a_ratio_that_is_no_number_is_a_fault_of_the_command_line(
    net: Path, weights: Path, tmp_path: Path, ratio: str
) -> None:
    arguments = ("--net", net, "--weights", weights, "--ratio", ratio, "--out", tmp_path / "out")
    result = run("units", *arguments)
    assert result.exit_code == 2
    assert ratio in result.output


def test_a_net_without_hidden_units_is_refused(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "flat.prototxt"
    path.write_text(
        'layer { name: "ip3" type: "InnerProduct" bottom: "x" top: "ip3" '
        "inner_product_param { num_output: 4 } }"
    )
    arguments = ("--net", path, "--weights", weights, "--ratio", 0.5, "--out", tmp_path / "out")
    result = run("units", *arguments)
    assert isinstance(result.exception, PruneError)
    assert "no layer that can be pruned" in str(result.exception)
