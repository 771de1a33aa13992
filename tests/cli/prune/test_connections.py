"""`prune connections` beyond the paper's rule: convolutions, ratios, one threshold, sharing."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from pycaffe_prune.cli.prune.command import prune
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.hdf5 import write_hdf5_weights
from pycaffe_prune.formats.mask import MaskFile, read_mask, write_mask
from pycaffe_prune.pruning.connections import nonzero_where_masked
from pycaffe_prune.share import share_root

NET = """
name: "two branches"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 4 dim: 8 dim: 8 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 6 kernel_size: 3 group: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 5 kernel_size: 3 } }
layer { name: "ip1" type: "InnerProduct" bottom: "conv2" top: "ip1" param { name: "w" }
  inner_product_param { num_output: 10 } }
layer { name: "ip1_p" type: "InnerProduct" bottom: "conv2" top: "ip1_p" param { name: "w" }
  inner_product_param { num_output: 10 } }
"""
SHAPES = {
    "conv1": (6, 2, 3, 3),
    "conv2": (5, 6, 3, 3),
    "ip1": (10, 80),
    "ip1_p": (10, 80),
}
SIZES = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}


def random_model(seed: int) -> Caffemodel:
    random = np.random.default_rng(seed)
    net = text_format.Parse(NET, NetParameter())
    blobs = {
        name: (random.normal(size=shape).astype(np.float32), np.ones(shape[:1], np.float32))
        for name, shape in SHAPES.items()
    }
    blobs["ip1_p"] = (blobs["ip1"][0], blobs["ip1_p"][1])
    layers = (Layer(layer, blobs[layer.name]) for layer in net.layer if layer.name in blobs)
    return Caffemodel(tuple(layers), NetParameter(name=net.name))


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """The options that name the net and its weights."""
    (tmp_path / "net.prototxt").write_text(NET)
    write_caffemodel(tmp_path / "w.caffemodel", random_model(0))
    return ("--net", str(tmp_path / "net.prototxt"), "--weights", str(tmp_path / "w.caffemodel"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(prune, ["connections", *map(str, arguments)])


def pruned(out: Path) -> tuple[Caffemodel, MaskFile]:
    model, mask_file = read_caffemodel(out / "pruned.caffemodel"), read_mask(out / "kept.mask.h5")
    assert not any(nonzero_where_masked(model, mask_file.masks).values())
    return model, mask_file


def counts(mask_file: MaskFile) -> dict[str, int]:
    return {name: int((~mask).sum()) for (name, _), mask in mask_file.masks.items()}


def test_a_ratio_prunes_exactly_its_share_in_convolutions_too(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    asked = ("--layers", "all", "--ratio", 0.9, "--ratio", "conv*=0.5", "--ratio", "conv2=0.25")
    result = run(*files, *asked, "--out", out)
    assert result.exit_code == 0, result.output
    _, mask_file = pruned(out)
    assert counts(mask_file) == {
        "conv1": round(0.5 * SIZES["conv1"]),
        "conv2": round(0.25 * SIZES["conv2"]),
        "ip1": round(0.9 * SIZES["ip1"]),
        "ip1_p": round(0.9 * SIZES["ip1"]),
    }
    assert (mask_file.criterion, mask_file.parameters["scope"]) == ("ratio", "layer")
    assert mask_file.parameters["ratio"] == {"conv1": 0.5, "conv2": 0.25, "ip1": 0.9}
    for name in ("conv1", "conv2", "ip1"):
        size = np.abs(random_model(0).layer(name).blobs[0])
        limit = np.float32(mask_file.parameters["thresholds"][f"{name}/0"])
        np.testing.assert_array_equal(mask_file.masks[name, 0], size >= limit)


def test_layers_that_share_weights_are_pruned_alike_and_counted_once(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run(*files, "--layers", "ip1_p", "--alpha", 1, "--out", out)
    assert result.exit_code == 0, result.output
    model, mask_file = pruned(out)
    np.testing.assert_array_equal(model.layer("ip1").blobs[0], model.layer("ip1_p").blobs[0])
    np.testing.assert_array_equal(mask_file.masks["ip1", 0], mask_file.masks["ip1_p", 0])
    assert f"{SIZES['ip1']}" in result.output
    assert f"{2 * SIZES['ip1']:,}" not in result.output


@pytest.mark.parametrize("option", [("--ratio", 0.7), ("--alpha", 1.1)])
def test_a_global_scope_has_one_threshold_over_all_layers(
    files: tuple[str, ...], tmp_path: Path, option: tuple[str, float]
) -> None:
    out = tmp_path / "out"
    result = run(*files, "--layers", "all", *option, "--scope", "global", "--out", out)
    assert result.exit_code == 0, result.output
    _, mask_file = pruned(out)
    model = random_model(0)
    owners = ("conv1", "conv2", "ip1")
    whole = np.concatenate([model.layer(name).blobs[0].reshape(-1) for name in owners])
    gone = counts(mask_file)
    (limit,) = set(mask_file.parameters["thresholds"].values())
    for name in owners:
        kept = np.abs(model.layer(name).blobs[0]) >= np.float32(limit)
        np.testing.assert_array_equal(mask_file.masks[name, 0], kept)
    if option[0] == "--ratio":
        assert sum(gone[name] for name in owners) == round(0.7 * whole.size)
    else:
        assert limit == pytest.approx(1.1 * whole.std(dtype=np.float64), rel=1e-9)
    assert mask_file.parameters["scope"] == "global"
    assert mask_file.parameters[option[0].removeprefix("--")] == option[1]


def test_a_second_round_by_ratio_counts_what_the_first_one_pruned(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run(*files, "--layers", "conv2,ip1", "--ratio", 0.5, "--out", first)
    write_caffemodel(tmp_path / "grown.caffemodel", random_model(1))
    grown = (*files[:3], tmp_path / "grown.caffemodel")
    mask = ("--mask", first / "kept.mask.h5")
    result = run(*grown, *mask, "--layers", "conv2", "--ratio", 0.8, "--out", second)
    assert result.exit_code == 0, result.output
    _, before = pruned(first)
    model, after = pruned(second)
    expected = counts(before) | {"conv2": round(0.8 * SIZES["conv2"])}
    assert counts(after) == expected
    assert not any(nonzero_where_masked(model, before.masks).values())
    assert str(SIZES["ip1"] - expected["ip1"]) in result.output


def test_weights_in_hdf5_are_pruned_like_the_binary_ones(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    write_hdf5_weights(tmp_path / "w.caffemodel.h5", random_model(0))
    asked = ("--layers", "all", "--alpha", 1.2)
    for number, weights in enumerate(("w.caffemodel", "w.caffemodel.h5")):
        out = tmp_path / str(number)
        result = run(*files[:3], tmp_path / weights, *asked, "--out", out)
        assert result.exit_code == 0, result.output
    (one, masks), (other, same) = pruned(tmp_path / "0"), pruned(tmp_path / "1")
    assert list(masks.masks) == list(same.masks)
    for (_, binary), (_, hdf5) in zip(one.blobs(), other.blobs(), strict=True):
        np.testing.assert_array_equal(binary, hdf5)


def test_zoo_lenets_reductions_are_exact(data_dir: Path, tmp_path: Path) -> None:
    net = share_root() / "prototxt" / "lenet" / "deploy.prototxt"
    weights = data_dir / "zoo" / "lenet" / "lenet_iter_10000.caffemodel"
    asked = ("--layers", "all", "--ratio", 0.9, "--scope", "global", "--out", tmp_path / "out")
    result = run("--net", net, "--weights", weights, *asked)
    assert result.exit_code == 0, result.output
    assert sum(counts(pruned(tmp_path / "out")[1]).values()) == round(0.9 * 430_500)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "either --alpha or --ratio"),
        ("--alpha 1 --ratio 0.5", "either --alpha or --ratio"),
        ("--ratio 0.5 --sigma all", "--sigma and --original go with --alpha"),
        ("--ratio 0.5 --original w.caffemodel", "--sigma and --original go with --alpha"),
        ("--scope global --alpha 1 --alpha 2", "one value for all"),
        ("--scope global --ratio ip1=0.5", "one value for all"),
        ("--alpha much", "'much' is neither a number"),
        ("--ratio ip1=", "'ip1=' is neither a number"),
        ("--alpha 1 --mask m.mask.h5", "name the unpruned --original"),
    ],
)
def test_what_does_not_go_together_is_a_fault_of_the_command_line(
    files: tuple[str, ...], tmp_path: Path, options: str, message: str
) -> None:
    result = run(*files, *options.split(), "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def make_bad_files(folder: Path) -> None:
    other = NET.replace("group: 2", "group: 1")
    (folder / "other.prototxt").write_text(other)
    model = random_model(0)
    changed = model.with_blobs({("ip1_p", 0): model.layer("ip1").blobs[0] + 1})
    write_caffemodel(folder / "torn.caffemodel", changed)
    only_convs = NET.split('layer { name: "ip1"')[0]
    (folder / "convs.prototxt").write_text(only_convs)
    masks = {("ip1", 0): np.ones((80, 10), np.bool_)}
    write_mask(folder / "other.mask.h5", MaskFile(masks, "0" * 64, "ratio"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("--net other.prototxt --weights w.caffemodel --alpha 1", "'conv1', blob 0"),
        ("--net net.prototxt --weights torn.caffemodel --alpha 1", "'ip1' and 'ip1_p' share"),
        ("--net convs.prototxt --weights w.caffemodel --alpha 1", "'InnerProduct' can be pruned"),
        ("--net net.prototxt --weights w.caffemodel --ratio fc*=0.5", "no layer 'fc*'"),
        ("--net net.prototxt --weights w.caffemodel --ratio 1", "not 1.0"),
        ("--net net.prototxt --weights w.caffemodel --alpha conv1=-1", "alpha"),
        (
            "--net net.prototxt --weights w.caffemodel --ratio 0.5 --mask other.mask.h5",
            "the mask is 80x10 but the weights are 10x80",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_file(
    files: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    message: str,
) -> None:
    make_bad_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    result = run(*command.split(), "--out", "out")
    assert isinstance(result.exception, PruneError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert set(tmp_path.iterdir()) == before


CASES = Path(__file__).parents[2] / "cases"


def case(name: str) -> tuple[str, ...]:
    net, weights = (str(CASES / f"{name}.{ending}") for ending in ("prototxt", "caffemodel"))
    return ("--net", net, "--weights", weights)


@pytest.mark.parametrize(
    ("name", "pruned_of"),
    [
        ("deconv_group", {("c1", 0): 65, ("up", 0): 38, ("c2", 0): 5}),
        ("lstm", {("fc", 0): 13, ("lstm1", 0): 42, ("lstm1", 2): 30, ("out", 0): 4}),
        ("shared", {("f1", 0): 12, ("f2", 0): 12, ("g1", 0): 6, ("g2", 0): 6}),
    ],
)
def test_all_layers_are_all_matrices_of_weights(
    tmp_path: Path, name: str, pruned_of: dict[tuple[str, int], int]
) -> None:
    result = run(*case(name), "--layers", "all", "--ratio", 0.3, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    _, mask_file = pruned(tmp_path)
    assert {key: int((~mask).sum()) for key, mask in mask_file.masks.items()} == pruned_of
    assert "left out" not in result.output


def test_what_all_leaves_out_is_named_with_its_reason(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    slopes = '\nlayer { name: "slopes" type: "PReLU" bottom: "ip1" top: "slopes" }\n'
    (tmp_path / "net.prototxt").write_text(NET + slopes)
    model = random_model(0)
    slope = LayerParameter(name="slopes", type="PReLU")
    held = Layer(slope, (np.ones(10, np.float32),))
    write_caffemodel(tmp_path / "w.caffemodel", Caffemodel((*model.layers, held)))
    result = run(*files, "--layers", "all", "--ratio", 0.5, "--dry-run", "--out", tmp_path)
    assert "left out: slopes (PReLU): holds the slope" in result.output
    named = run(*files, "--layers", "slopes", "--ratio", 0.5, "--out", tmp_path)
    assert "no layer 'slopes' can be pruned so: it holds the slope" in str(named.exception)


def test_a_ratio_below_the_zeros_says_so_and_their_mask_changes_nothing(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    first, zeros = tmp_path / "first", tmp_path / "zeros"
    run(*files, "--layers", "all", "--ratio", 0.6, "--out", first)
    sparse = (*files[:3], first / "pruned.caffemodel", "--layers", "all")
    low = run(*sparse, "--ratio", 0.5, "--dry-run", "--out", zeros)
    assert "more weights are zero already" in low.stderr
    assert "--mask-zeros" in low.stderr
    assert "warning" not in run(*sparse, "--ratio", 0.7, "--dry-run", "--out", zeros).stderr
    result = run(*sparse, "--mask-zeros", "--out", zeros)
    assert result.exit_code == 0, result.output
    before, one = pruned(first)
    after, other = pruned(zeros)
    assert other.criterion == "zeros"
    assert counts(other) == counts(one)
    for (_, blob), (_, same) in zip(before.blobs(), after.blobs(), strict=True):
        np.testing.assert_array_equal(blob, same)
    both = run(*sparse, "--mask-zeros", "--ratio", 0.5, "--out", zeros)
    assert both.exit_code == 2
