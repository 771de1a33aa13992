import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pycaffe_prune.cli.inspect.command import inspect
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.mask import MaskFile, write_mask

CASES = Path(__file__).parents[2] / "cases"


def layer(name: str, kind: str, *shapes: tuple[int, ...]) -> Layer:
    random = np.random.default_rng(len(name))
    blobs = (random.normal(size=shape).astype(np.float32) for shape in shapes)
    return Layer(LayerParameter(name=name, type=kind), tuple(blobs))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model with long names; half of ip1's weights are zero."""
    ip1 = layer("ip1", "InnerProduct", (300, 784), (300,))
    ip1.blobs[0][:150] = 0
    path = tmp_path / "a.caffemodel"
    write_caffemodel(
        path,
        Caffemodel(
            (
                layer("fire2/squeeze1x1", "Convolution", (16, 96, 1, 1), (16,)),
                layer("fire9/expand3x3", "Convolution", (256, 64, 3, 3), (256,)),
                ip1,
            ),
            NetParameter(name="long names"),
        ),
    )
    return path


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    kept = np.ones((300, 784), np.bool_)
    kept[:150] = False
    path = tmp_path / "kept.mask.h5"
    write_mask(path, MaskFile({("ip1", 0): kept}, "0" * 64, "threshold"))
    return path


def run(*arguments: Path | str, columns: int = 80) -> Result:
    return CliRunner().invoke(
        inspect, [str(item) for item in arguments], env={"COLUMNS": str(columns)}
    )


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_is_whole_at_the_widths_that_terminals_have(model: Path, columns: int) -> None:
    result = run(model, columns=columns)
    assert result.exit_code == 0
    heading, *table = result.output.splitlines()
    assert heading.startswith(f"{model}: long names, ")
    assert all(len(line) <= columns for line in table)
    rows = [line.split() for line in table]
    sizes = ["300x784", "235,200", "117,600", "50.00"]
    assert ["ip1/0", "InnerProduct", *sizes] in [row[:6] for row in rows]
    for name, shape in (("fire2/squeeze1x1/0", "16x96x1x1"), ("fire9/expand3x3/1", "256")):
        assert [name, "Convolution", shape] in [row[:3] for row in rows]
    assert "…" not in result.output
    parameters = 16 * 97 + 256 * 577 + 300 * 785
    assert f"{parameters - 117_600:,} of {parameters:,} parameters are not zero" in result.output


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", ["lenet/lenet_iter_10000", "squeezenet/squeezenet_v1.0_pruned"])
def test_real_models_fit(data_dir: Path, name: str, columns: int) -> None:
    path = data_dir / "zoo" / f"{name}.caffemodel"
    output = run(path, columns=columns).output
    assert "…" not in output
    words = set(output.split())
    for (layer_name, index), blob in read_caffemodel(path).blobs():
        assert {f"{layer_name}/{index}", "x".join(map(str, blob.shape)), f"{blob.size:,}"} <= words


def test_a_name_that_looks_like_markup_is_shown_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "[bold]:smile:.caffemodel"
    write_caffemodel(path, Caffemodel((layer("[red]ip:smile:", "InnerProduct", (2, 3)),)))
    output = run(path).output
    assert "[red]ip:smile:/0" in output
    assert "[bold]:smile:.caffemodel: no name" in output


def test_values_that_are_not_finite_are_shown(tmp_path: Path) -> None:
    broken = layer("ip1", "InnerProduct", (2, 3))
    broken.blobs[0][0, 0] = np.nan
    write_caffemodel(tmp_path / "nan.caffemodel", Caffemodel((broken,)))
    assert "NaN/Inf" in run(tmp_path / "nan.caffemodel").output


def test_json_says_what_numpy_says(model: Path) -> None:
    result = run(model, model, "--json")
    first, second = json.loads(result.output)
    assert first == second
    assert (first["path"], first["name"]) == (str(model), "long names")
    assert first["bytes"] == model.stat().st_size
    blobs = list(read_caffemodel(model).blobs())
    assert len(first["blobs"]) == len(blobs)
    for row, ((name, index), blob) in zip(first["blobs"], blobs, strict=True):
        assert (row["layer"], row["index"], row["shape"]) == (name, index, list(blob.shape))
        assert (row["count"], row["nonzero"]) == (blob.size, np.count_nonzero(blob))
        assert (row["minimum"], row["maximum"]) == (blob.min(), blob.max())
        assert row["std"] == pytest.approx(blob.std(dtype=np.float64))
    assert first["parameters"] == sum(blob.size for _, blob in blobs)
    assert first["nonzero"] == sum(np.count_nonzero(blob) for _, blob in blobs)


def test_an_audit_of_a_sound_model_passes_and_leaves_the_json_whole(
    model: Path, mask: Path
) -> None:
    result = run(model, "--json", "--audit", mask)
    assert result.exit_code == 0
    assert json.loads(result.stdout)[0]["path"] == str(model)
    assert "exactly zero" in result.stderr


def test_an_audit_finds_a_revived_weight(model: Path, mask: Path) -> None:
    content = read_caffemodel(model)
    weights = content.layer("ip1").blobs[0].copy()
    weights[3, 5] = weights[149, 783] = 1e-20
    weights[150, 0] = 0  # kept, and zero by chance: no fault
    revived = model.with_name("revived.caffemodel")
    write_caffemodel(revived, content.with_blobs({("ip1", 0): weights}))
    done = subprocess.run(
        [sys.executable, "-m", "pycaffe_prune", "inspect", revived, "--audit", mask],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"caffe-prune: {revived}: pruned weights are not zero: 2 in ip1/0")


def test_all_models_are_audited(model: Path, mask: Path, tmp_path: Path) -> None:
    dense = tmp_path / "dense.caffemodel"
    write_caffemodel(dense, Caffemodel((layer("ip1", "InnerProduct", (300, 784), (300,)),)))
    result = run(model, dense, "--audit", mask)
    assert isinstance(result.exception, SurgeryError)
    assert "117600 in ip1/0" in str(result.exception)


@pytest.mark.parametrize(
    ("blob", "error", "message"),
    [
        ((("ip1", 0), (784, 300)), SurgeryError, "784x300 .* 300x784"),
        ((("ip1", 2), (300,)), SurgeryError, "'ip1' has 2 blobs"),
        ((("ip9", 0), (1,)), FormatError, "no layer 'ip9'"),
    ],
)
def test_a_mask_of_another_model_is_refused(
    model: Path,
    tmp_path: Path,
    blob: tuple[tuple[str, int], tuple[int, ...]],
    error: type[Exception],
    message: str,
) -> None:
    place, shape = blob
    other = tmp_path / "other.mask.h5"
    write_mask(other, MaskFile({place: np.ones(shape, np.bool_)}, "0" * 64, "threshold"))
    result = run(model, "--audit", other)
    assert result.exit_code == 1
    with pytest.raises(error, match=message):
        raise result.exception or AssertionError


def test_a_file_that_is_no_caffemodel_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.caffemodel"
    path.write_text("no net at all")
    result = run(path)
    assert isinstance(result.exception, FormatError)
    assert str(path) in str(result.exception)


def test_the_state_that_is_chosen_decides_which_layers_count(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 4 } } }'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "a"'
        "  inner_product_param { num_output: 3 } }"
        'layer { name: "prob" type: "Softmax" bottom: "a" top: "prob" include { stage: "deploy" } }'
        'layer { name: "deep" type: "ReLU" bottom: "a" top: "b" include { min_level: 1 } }'
        'layer { name: "drop" type: "Dropout" bottom: "a" top: "c" include { phase: TRAIN } }'
    )

    def layers(*options: str) -> list[str]:
        (found,) = json.loads(run(net, "--json", *options).output)
        return [layer["name"] for layer in found["layers"]][2:]

    assert layers() == []
    assert layers("--stage", "deploy") == ["prob"]
    assert layers("--level", "1", "--stage", "deploy") == ["prob", "deep"]
    assert layers("--stage", "deploy", "--phase", "train") == ["prob", "drop"]
    assert isinstance(run(net, "--stage", "other").exception, FormatError)


def test_a_file_is_told_by_its_content_and_not_by_its_ending(tmp_path: Path, model: Path) -> None:
    net, weights = tmp_path / "net.caffemodel", tmp_path / "weights.prototxt"
    net.write_text('name: "n" layer { name: "a" type: "ReLU" bottom: "x" top: "y" }')
    model.rename(weights)
    first, second = json.loads(run(net, weights, "--json").output)
    assert [layer["name"] for layer in first["layers"]] == ["a"]
    assert second["name"] == "long names"


@pytest.mark.parametrize("option", ["--json", "--storage"])
def test_one_bad_file_does_not_end_the_others(tmp_path: Path, model: Path, option: str) -> None:
    empty, pointer = tmp_path / "empty.caffemodel", CASES / "lfs_pointer.caffemodel"
    empty.touch()
    result = run(empty, pointer, model, "nowhere", option)
    assert result.exit_code == 1
    assert "ip1" in result.output
    said = [line.removeprefix("caffe-prune: ") for line in result.stderr.splitlines()]
    assert [line.partition(": ")[2][:20] for line in (*said, str(result.exception))] == [
        "is empty; a net prot",
        "is a Git LFS pointer",
        "no such file; a net ",
    ]


def test_every_model_is_audited(tmp_path: Path, model: Path, mask: Path) -> None:
    good, bad = model.with_name("good.caffemodel"), model.with_name("bad.caffemodel")
    changed = read_caffemodel(model)
    write_caffemodel(good, changed)
    ip1 = layer("ip1", "InnerProduct", (300, 784), (300,))
    write_caffemodel(bad, Caffemodel((ip1,)))
    result = run(bad, good, "--audit", mask)
    assert result.exit_code == 1
    assert f"{bad}: pruned weights are not zero" in str(result.exception)
    assert f"{good}: all weights" in result.stderr


def test_names_are_whole_where_the_output_is_no_terminal(tmp_path: Path) -> None:
    long = "a_layer_whose_name_is_as_long_as_those_of_inception/" * 4
    net = tmp_path / "net.prototxt"
    net.write_text(
        f'layer {{ name: "{long}" type: "Input" top: "data" input_param {{ shape {{ dim: 1 }} }} }}'
    )
    assert long not in run(net, columns=60).output
    assert long in CliRunner(env={"COLUMNS": None}).invoke(inspect, [str(net)]).output


def test_a_slip_is_named_with_its_line_where_a_net_cannot_be_counted(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text("""input: "x" input_shape { dim: [1, 3] }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" }
        layer { name: "sum" type: "Eltwise" bottom: "x" bottem: "y" top: "z" }
    """)
    found = run(path)
    assert found.exit_code == 1
    told = "net.prototxt:3: layer 'sum': the field 'bottem' (did you mean 'bottom'?) of Eltwise"
    assert told in found.stderr


def test_what_stock_caffe_does_not_know_is_shown_as_known_carried_or_unknown(
    tmp_path: Path,
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text("""
        input: "data" input_shape { dim: [1, 3, 8, 8] }
        layer { name: "p" type: "Permute" bottom: "data" top: "p" permute_param { order: 1 } }
        layer { name: "r" type: "ReLU" bottom: "p" top: "p" relu_param { negative_slop: 1 } }
    """)
    found = run(path, columns=200)
    assert found.exit_code == 0
    assert "known: type Permute (p), field 'permute_param' of Permute (p)" in found.output
    carried = "'relu_param.negative_slop' (did you mean 'negative_slope'?) of ReLU (r)"
    assert f"unknown and carried: field {carried}" in found.output
    (net,) = json.loads(run(path, "--json").output)
    assert [use["layers"] for use in net["forks"]] == [["p"], ["p"], ["r"]]
    assert [use["status"] for use in net["forks"]] == ["known", "known", "unknown"]
