"""Surgery on real trained nets: 30 % of all units and filters deleted, and nothing else changed."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.idx import parse_idx, read_unpacked
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.comparison import opencv_net
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.mean import read_mean
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.pruning.units import (
    choose_units,
    delete_units,
    lrn_layers_changed,
    mask_units,
    prunable_layers,
)
from pycaffe_prune.pruning.verify import InputSource, Judge, ModelFiles, verify
from pycaffe_prune.pruning.verify_input import random_input
from pycaffe_prune.share import share_root

RATIO = 0.3
PRUNABLE = {"lenet": 3, "cifar10_quick": 4, "squeezenet": 25}


@dataclass(frozen=True)
class Pruned:
    """A zoo model with 30 % of its units masked, and deleted."""

    name: str
    net: NetParameter
    before: Caffemodel
    small_net: NetParameter
    small: Caffemodel
    masked_files: ModelFiles
    deleted_files: ModelFiles


def zoo_model(name: str, data_dir: Path) -> tuple[NetParameter, Caffemodel]:
    prototxt, weights = {
        "lenet": ("lenet/deploy.prototxt", "lenet/lenet_iter_10000.caffemodel"),
        "cifar10_quick": (
            "cifar10_quick/deploy.prototxt",
            "cifar10_quick/cifar10_quick_iter_5000.caffemodel",
        ),
        "squeezenet": (
            "squeezenet_v1.0/deploy_firenet.prototxt",
            "squeezenet/squeezenet_v1.0_pruned.caffemodel",
        ),
    }[name]
    net = read_net(share_root() / "prototxt" / prototxt)
    return net, read_caffemodel(data_dir / "zoo" / weights)


@pytest.fixture(scope="module", params=PRUNABLE)
def pruned(
    request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Pruned:
    """Each zoo model in turn, pruned."""
    net, model = zoo_model(request.param, data_dir)
    kept = choose_units(net, model, dict.fromkeys(prunable_layers(net, model), RATIO))
    assert lrn_layers_changed(net, model, kept) == []
    small_net, small = delete_units(net, model, kept)
    files = []
    for kind, definition, weights in (
        ("masked", net, mask_units(net, model, kept)),
        ("deleted", small_net, small),
    ):
        folder = tmp_path_factory.mktemp(kind)
        files.append(ModelFiles(folder / "net.prototxt", folder / "pruned.caffemodel"))
        write_prototxt(files[-1].net, definition)
        write_caffemodel(files[-1].weights, weights)
    return Pruned(request.param, net, model, small_net, small, *files)


def real_images(name: str, data_dir: Path) -> np.ndarray:
    """Real images: MNIST for LeNet, photographs of flowers for the others."""
    if name == "lenet":
        file = data_dir / "mnist/t10k-images-idx3-ubyte.gz"
        return parse_idx(read_unpacked(file), str(file))[:4, None] / 256
    photos = sorted((data_dir / "flowers102/original-subset/jpg").glob("*.jpg"))[:4]
    side = 227 if name == "squeezenet" else 32
    pixels = [cv2.resize(cv2.imread(str(photo)), (side, side)) for photo in photos]
    blue_green_red = np.stack(pixels).transpose(0, 3, 1, 2)
    if name == "squeezenet":
        return blue_green_red - np.array([104, 117, 123])[:, None, None]
    return blue_green_red[:, ::-1] - read_mean(data_dir / "zoo/cifar10_quick/mean.binaryproto")


def check_equal(pruned: Pruned, judges: list[Judge], source: InputSource) -> None:
    found = verify(pruned.masked_files, pruned.deleted_files, judges, source, tolerance=1e-4)
    assert found.is_same, found.difference
    assert found.not_felt == ()
    assert [verdict.judge for verdict in found.judged] == ["caffe", "opencv"]


@pytest.fixture(scope="module")
def judges(caffe_python: Path) -> list[Judge]:
    """The real Caffe, and OpenCV."""
    return [Judge("caffe", CaffeEngine(caffe_python).forward), Judge("opencv", opencv_net.forward)]


@pytest.mark.real_caffe
def test_masked_and_deleted_agree_on_random_input(pruned: Pruned, judges: list[Judge]) -> None:
    check_equal(pruned, judges, random_input(4, scale=50))


@pytest.mark.real_caffe
def test_masked_and_deleted_agree_on_real_images(
    pruned: Pruned, judges: list[Judge], data_dir: Path
) -> None:
    images = real_images(pruned.name, data_dir).astype(np.float32)
    check_equal(pruned, judges, lambda shapes, _: dict.fromkeys(shapes, images))


@pytest.mark.real_caffe
@pytest.mark.parametrize("name", PRUNABLE)
def test_the_judges_agree_on_the_real_nets(
    name: str, judges: list[Judge], data_dir: Path, tmp_path: Path
) -> None:
    net, model = zoo_model(name, data_dir)
    write_prototxt(tmp_path / "net.prototxt", net)
    write_caffemodel(tmp_path / "net.caffemodel", model)
    (shape,) = infer_shapes(net.layer)[0].tops
    data = random_input(2, scale=50)({"data": shape})
    last = [layer for layer in net.layer if layer.type == "Softmax"][-1].bottom[0]
    by_caffe, by_opencv = (
        judge.forward(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", data, [last])[0]
        for judge in judges
    )
    assert np.abs(by_caffe).max() > 0.1
    np.testing.assert_allclose(by_opencv, by_caffe, rtol=0, atol=1e-4 * np.abs(by_caffe).max())


def test_every_prunable_layer_loses_its_share(pruned: Pruned) -> None:
    names = prunable_layers(pruned.net, pruned.before)
    assert len(names) == PRUNABLE[pruned.name]
    for name in names:
        before, after = (
            model.layer(name).blobs[0].shape[0] for model in (pruned.before, pruned.small)
        )
        assert after == before - round(RATIO * before)


def test_parameter_counts_equal_the_shapes_of_the_net(pruned: Pruned) -> None:
    require_fitting(pruned.small_net, pruned.small)
    by_shape = sum(
        int(np.prod(shape))
        for around in infer_shapes(pruned.small_net.layer)
        for shape in around.params
    )
    assert by_shape == sum(blob.size for _, blob in pruned.small.blobs())


def test_the_file_becomes_smaller_in_proportion(pruned: Pruned) -> None:
    masked, deleted = (
        files.weights.stat().st_size for files in (pruned.masked_files, pruned.deleted_files)
    )
    before, after = (
        sum(blob.size for _, blob in model.blobs()) for model in (pruned.before, pruned.small)
    )
    assert after < 0.6 * before
    assert deleted / masked == pytest.approx(after / before, abs=0.01)
