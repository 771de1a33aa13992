"""`prune connections --method`: by lot and by what the loss on training images says; --rewind."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from pycaffe_prune.cli.prune.command import prune
from pycaffe_prune.engines.torch.curvature import curvature_net, hessian_diagonal
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.mask import MaskFile, read_mask
from pycaffe_prune.net.graph import NetState
from pycaffe_prune.pruning.connections import prune_to_global_ratio
from pycaffe_prune.pruning.criteria.connection_scores import (
    connection_scores,
    loss_increase,
    with_slope,
)

NET = """
name: "judged by its images"
layer {{ name: "data" type: "HDF5Data" top: "data" top: "label" include {{ phase: TRAIN }}
  hdf5_data_param {{ source: "{folder}/train.txt" batch_size: 4 }} }}
layer {{ name: "data" type: "HDF5Data" top: "data" top: "label" include {{ phase: TEST }}
  hdf5_data_param {{ source: "{folder}/train.txt" batch_size: 2 }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param {{ num_output: 6 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
"""
KEYS: list[BlobKey] = [("ip1", 0), ("ip2", 0)]
WEIGHTS = 5 * 6 + 6 * 3


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """The options that name a net, its weights and, through the net, twelve images."""
    random = np.random.default_rng(0)
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["data"] = random.normal(size=(12, 5)).astype(np.float32)
        file["label"] = random.integers(0, 3, 12).astype(np.float32)
    (tmp_path / "train.txt").write_text(f"{tmp_path}/train.h5\n")
    (tmp_path / "net.prototxt").write_text(NET.format(folder=tmp_path))
    net = built(tmp_path)
    net.save(tmp_path / "w.caffemodel")
    net.close()
    return ("--net", str(tmp_path / "net.prototxt"), "--weights", str(tmp_path / "w.caffemodel"))


def built(folder: Path) -> Net:
    definition = text_format.Parse((folder / "net.prototxt").read_text(), NetParameter())
    return Net(curvature_net(definition), NetState(TRAIN))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(prune, ["connections", *map(str, arguments)])


def written(out: Path) -> tuple[Caffemodel, MaskFile]:
    return read_caffemodel(out / "pruned.caffemodel"), read_mask(out / "kept.mask.h5")


def test_obd_prunes_what_the_loss_on_training_images_needs_least(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    net, model = built(tmp_path), read_caffemodel(tmp_path / "w.caffemodel")
    net.copy_from(tmp_path / "w.caffemodel")
    measured = {key: blob.numpy() for key, blob in hessian_diagonal(net, 3).items()}
    curvature = with_slope(measured, 0.01)
    net.close()
    weights = {key: model.layer(key[0]).blobs[0] for key in KEYS}
    scores = connection_scores("obd", weights, curvature=curvature)
    expected, masks = prune_to_global_ratio(model, 0.6, KEYS, None, scores)
    rise = sum(loss_increase(weights[key], curvature[key], masks[key]) for key in KEYS)

    asked = ("--method", "obd", "--ratio", 0.6, "--scope", "global", "--batches", 3)
    result = run(*files, *asked, "--weight-decay", 0.01, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"the loss rises by {rise:.4g}, to second order, on 3 training batches" in result.output
    found, mask_file = written(tmp_path / "out")
    for key in KEYS:
        np.testing.assert_array_equal(mask_file.masks[key], masks[key])
        np.testing.assert_array_equal(found.layer(key[0]).blobs[0], expected.layer(key[0]).blobs[0])
    assert mask_file.criterion == "obd"
    told = {"ratio": 0.6, "batches": 3, "weight_decay": 0.01, "scope": "global", "thresholds": {}}
    assert mask_file.parameters == told


def test_random_masks_are_the_seeds(files: tuple[str, ...], tmp_path: Path) -> None:
    def drawn(name: str, *seed: object) -> MaskFile:
        result = run(*files, "--method", "random", "--ratio", 0.5, *seed, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
        return written(tmp_path / name)[1]

    first, again, other = drawn("a"), drawn("b", "--seed", 0), drawn("c", "--seed", 1)
    assert sum(int((~mask).sum()) for mask in first.masks.values()) == WEIGHTS // 2
    for key in KEYS:
        np.testing.assert_array_equal(first.masks[key], again.masks[key])
    assert any((first.masks[key] != other.masks[key]).any() for key in KEYS)
    assert (other.criterion, other.parameters["seed"]) == ("random", 1)


def test_what_is_kept_goes_back_to_its_earlier_value(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    model = read_caffemodel(tmp_path / "w.caffemodel")
    first = model.with_blobs({key: -2 * blob + 1 for key, blob in model.blobs()})
    write_caffemodel(tmp_path / "first.caffemodel", first)
    rewound = ("--rewind", tmp_path / "first.caffemodel")
    for out, options in [("plain", ()), ("ticket", rewound)]:
        asked = (*files, "--method", "magnitude", "--ratio", 0.5, *options)
        assert run(*asked, "--out", tmp_path / out).exit_code == 0
    (_, mask), (back, same) = written(tmp_path / "plain"), written(tmp_path / "ticket")
    for key, kept in mask.masks.items():
        np.testing.assert_array_equal(same.masks[key], kept)
        earlier = first.layer(key[0]).blobs[0]
        np.testing.assert_array_equal(back.layer(key[0]).blobs[0], np.where(kept, earlier, 0))
        np.testing.assert_array_equal(back.layer(key[0]).blobs[1], first.layer(key[0]).blobs[1])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--method obd --alpha 1", "--method obd ranks weights"),
        ("--method threshold --ratio 0.5", "--method threshold takes --alpha"),
        ("--ratio 0.5 --seed 1", "--seed goes with --method random"),
        ("--method obd --ratio 0.5 --seed 1", "--seed goes with --method random"),
        (
            "--method random --ratio 0.5 --batches 2",
            "--batches, --data, --weight-decay and --device go with",
        ),
        ("--ratio 0.5 --weight-decay 0", "--batches, --data, --weight-decay and --device go with"),
        ("--mask-zeros --method random", "--mask-zeros takes no"),
        ("--mask-zeros --seed 0", "--mask-zeros takes no"),
        ("--method fisher", "give either --alpha or --ratio"),
    ],
)
def test_options_that_do_not_go_together_are_a_fault_of_the_command_line(
    files: tuple[str, ...], tmp_path: Path, options: str, sentence: str
) -> None:
    result = run(*files, *options.split(), "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (("HDF5Data", "Input"), "--method obd", "its phase TRAIN reads no training images"),
        (("", ""), "--rewind other.caffemodel", "--rewind other.caffemodel: "),
        (("train.txt", "gone.txt"), "--method fisher", "gone.txt"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_file(
    files: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: tuple[str, str],
    options: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.prototxt"
    path.write_text(path.read_text().replace(*change))
    model = read_caffemodel(tmp_path / "w.caffemodel")
    wider = {("ip1", 0): np.ones((7, 5), np.float32), ("ip1", 1): np.ones(7, np.float32)}
    write_caffemodel(tmp_path / "other.caffemodel", model.with_blobs(wider))
    result = run(*files, "--ratio", 0.5, *options.split(), "--out", "out")
    assert isinstance(result.exception, PruneError), result.output
    assert sentence in str(result.exception)
    assert not Path("out").exists()
