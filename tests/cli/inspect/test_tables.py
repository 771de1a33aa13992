import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pycaffe_prune.cli.inspect.command import inspect
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TRAIN
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.hdf5 import write_hdf5_weights
from pycaffe_prune.net.counts import count_file
from pycaffe_prune.net.state_wish import StateWish

PROTOTXT = Path(__file__).parents[3] / "prototxt"
TRAIN_VAL = PROTOTXT / "lenet_300_100" / "train_val.prototxt"
DEPLOYS = sorted(PROTOTXT.glob("*/deploy.prototxt"))


def run(*arguments: Path | str, columns: int = 80) -> Result:
    return CliRunner().invoke(
        inspect, [str(item) for item in arguments], env={"COLUMNS": str(columns)}
    )


def rows(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()]


@pytest.fixture
def lenet(data_dir: Path) -> Path:
    return data_dir / "zoo" / "lenet" / "lenet_iter_10000.caffemodel"


@pytest.mark.parametrize("path", DEPLOYS, ids=lambda path: path.parent.name)
def test_a_nets_table_shows_its_layers_and_sums(path: Path) -> None:
    found = count_file(path, StateWish())
    result = run(path, columns=130)
    assert result.exit_code == 0
    shown = rows(result.output)
    for layer in found.layers:
        shape = "x".join(map(str, layer.tops[0].shape or ()))
        numbers = (layer.weights + layer.biases + layer.statistics, layer.macs, layer.activations)
        told = [f"{number:,}" for number in numbers]
        # More tops than have room go on in the lines below.
        (row,) = [row for row in shown if row[:2] == [layer.name, layer.type]]
        assert row[2].rstrip(",") == shape
        assert row[-3:] == told
    assert f"{found.parameters:,} parameters ({found.weights:,} weights" in result.output
    assert f"{found.macs:,} MACs and {found.activations:,} activations" in result.output


def test_a_narrow_terminal_loses_no_name_and_no_number() -> None:
    path = PROTOTXT / "squeezenet_v1.0" / "deploy.prototxt"
    *table, summary, _ = run(path).output.splitlines()
    assert all(len(line) <= 80 for line in table[1:])
    whole = "\n".join(table)
    assert "115,200,000" in whole
    assert "fire9/relu_sque" in whole
    assert "861,339,936" in summary


def test_totals_give_one_whole_row_a_net_at_any_width() -> None:
    result = run(*DEPLOYS, "--totals")
    shown = rows(result.output)
    for path in DEPLOYS:
        found = count_file(path, StateWish())
        sums = (found.weights, found.biases, found.statistics, found.parameters)
        numbers = [*sums, found.macs, found.activations]
        assert [
            *found.name.split(),
            str(len(found.layers)),
            *(f"{number:,}" for number in numbers),
        ] in shown


def test_the_training_net_has_other_layers_and_its_data_is_told() -> None:
    result = run(TRAIN_VAL, "--phase", "train", "--input-shape", "data=64x1x28x28", "--json")
    (found,) = json.loads(result.output)
    expected = count_file(TRAIN_VAL, StateWish(TRAIN), {"data": (64, 1, 28, 28)})
    assert found == expected.model_dump(mode="json")
    assert [layer["name"] for layer in found["layers"]][-1] == "loss"
    assert found["parameters"] == 266_610


@pytest.mark.parametrize("options", [[], ["--totals"]])
def test_what_is_not_known_is_said(options: list[str]) -> None:
    output = " ".join(run(TRAIN_VAL, *options).output.split())
    assert f"{TRAIN_VAL}: not all is counted: the prototxt does not tell the shape" in output
    assert "give it as data=NxCxHxW" in output


def test_a_net_that_contradicts_itself_is_named_with_layer_and_shapes(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    text = (PROTOTXT / "lenet" / "deploy.prototxt").read_text()
    path.write_text(text.replace("dim: 28 dim: 28", "dim: 4 dim: 28"))
    result = run(path)
    assert isinstance(result.exception, SurgeryError)
    sentence = str(result.exception)
    assert sentence.startswith(f"{path}: layer 'conv1' (Convolution): its kernel 5x5")
    assert "1x1x4x28" in sentence


def test_macs_of_weights_come_from_their_own_definitions(data_dir: Path) -> None:
    path = data_dir / "zoo" / "squeezenet" / "squeezenet_v1.0_pruned.caffemodel"
    found = count_file(PROTOTXT / "squeezenet_v1.0" / "deploy_firenet.prototxt", StateWish())
    wide, narrow = run(path, columns=120).output, run(path, columns=80).output
    assert "115,200,000" in wide
    assert "115,200,000" not in narrow
    for output in (wide, narrow):
        assert f"{found.macs:,} MACs per image, 443,223,545 of them" in output


def test_macs_of_weights_come_from_a_given_net(lenet: Path) -> None:
    (own,) = json.loads(run(lenet, "--json").output)
    assert own["macs"] is None  # its Data layer does not tell the images' size
    (told,) = json.loads(run(lenet, "--json", "--input-shape", "data=1x1x28x28").output)
    net = PROTOTXT / "lenet" / "deploy.prototxt"
    (given,) = json.loads(run(lenet, "--json", "--net", net).output)
    assert told == given
    assert told["macs"] == told["macs_nonzero"] == count_file(net, StateWish()).macs


def test_zero_weights_are_left_out_of_the_macs_that_matter(lenet: Path, tmp_path: Path) -> None:
    model = read_caffemodel(lenet)
    conv2 = model.layer("conv2").blobs[0].copy()
    conv2[:10] = 0
    path = tmp_path / "pruned.caffemodel"
    write_caffemodel(path, model.with_blobs({("conv2", 0): conv2}))
    net = PROTOTXT / "lenet" / "deploy.prototxt"
    (found,) = json.loads(run(path, "--json", "--net", net).output)
    assert found["macs"] - found["macs_nonzero"] == 10 * 20 * 5 * 5 * 8 * 8


def test_weights_of_another_net_are_refused_with_both_files(lenet: Path) -> None:
    net = PROTOTXT / "lenet_300_100" / "deploy.prototxt"
    result = run(lenet, "--net", net)
    assert isinstance(result.exception, SurgeryError)
    assert str(result.exception).startswith(f"{lenet} does not fit {net}: layer 'ip1'")


def test_weights_in_hdf5_are_shown_like_those_of_the_caffemodel(
    lenet: Path, tmp_path: Path
) -> None:
    model = read_caffemodel(lenet)
    path = tmp_path / "lenet.caffemodel.h5"
    write_hdf5_weights(path, model)
    (found,) = json.loads(run(path, "--json").output)
    (original,) = json.loads(run(lenet, "--json").output)
    assert found["parameters"] == original["parameters"]
    sizes = {(row["layer"], row["index"]): row["count"] for row in found["blobs"]}
    assert sizes == {place: blob.size for place, blob in model.blobs()}


def test_storage_tells_the_bytes_of_each_form(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "zoo" / "squeezenet" / "squeezenet_v1.0_pruned.caffemodel"
    archive = tmp_path / "dense.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(path, path.name)
    (found,) = json.loads(run(path, "--storage", "--json").output)
    assert found["path"] == str(path)
    assert found["dense"] == path.stat().st_size
    assert found["dense_zip"] == pytest.approx(archive.stat().st_size, abs=64)  # headers differ
    assert found["sparse_zip"] < found["sparse"] < found["dense"] / 2
    blobs = read_caffemodel(path).layer("conv_final").blobs
    non_zeros = sum(int(np.count_nonzero(blob)) for blob in blobs)
    shown = rows(run(path, "--storage").output)
    share = f"{100 * (1 - non_zeros / 513_000):.2f}"
    assert ["conv_final", "513,000", f"{non_zeros:,}", share] in shown
    for form in ("dense", "dense_zip", "sparse", "sparse_zip"):
        assert f"{found[form]:,}" in [row[-3] for row in shown if row[-1:] == ["%"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a.caffemodel", "--totals"], "a.caffemodel is none"),
        (["a.prototxt", "--storage"], "a.prototxt is a prototxt"),
        (["a.prototxt", "--audit", "kept.mask.h5"], "a.prototxt is a prototxt"),
        (["a.prototxt", "--net", "b.prototxt"], "a.prototxt is a prototxt"),
    ],
)
def test_options_that_do_not_belong_to_the_file_are_a_usage_error(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.prototxt").write_text('layer { name: "a" type: "ReLU" }')
    Path("a.caffemodel").write_bytes(b"\x0a\x01n")
    result = run(*options)
    assert result.exit_code == 2
    assert message in result.output
