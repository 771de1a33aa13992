from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.experiments.features.trunk import Trunk, cut_trunk, pool_to_grid
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.lmdb_images import as_data_layer
from pycaffe_prune.formats.prototxt import read_net

PROTOTXT = Path(__file__).parents[3] / "prototxt"
Arrays = Mapping[str, NDArray[np.float32]]

NET = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 1 dim: 9 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 3 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 4 } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


class NetSeen:
    """An engine that remembers the net it is given, and answers with ones."""

    name = "seen"

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.net = NetParameter()

    def forward(
        self, net_path: Path, _weights: Path, inputs: Arrays, outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        self.net = read_net(net_path)
        ((_, images),) = inputs.items()
        return [np.ones((len(images), *self.shape), np.float32) for _ in outputs]


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Path]:
    """A small net and weights for it."""
    net = tmp_path / "net.prototxt"
    net.write_text(NET)
    layers = {layer.name: layer for layer in text_format.Parse(NET, NetParameter()).layer}
    random = np.random.default_rng(1)

    def blobs(*shapes: tuple[int, ...]) -> tuple[NDArray[np.float32], ...]:
        return tuple(random.normal(size=shape).astype(np.float32) for shape in shapes)

    held = (
        Layer(layers["conv"], blobs((3, 1, 3, 3), (3,))),
        Layer(layers["ip"], blobs((4, 3 * 7 * 6), (4,))),
    )
    write_caffemodel(tmp_path / "w.caffemodel", Caffemodel(held))
    return net, tmp_path / "w.caffemodel"


@given(
    sides=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    grid=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_a_grid_averages_cells_that_cover_the_map(
    sides: tuple[int, int], grid: int, seed: int
) -> None:
    maps = np.random.default_rng(seed).normal(size=(2, 3, *sides)).astype(np.float32)
    if min(sides) < grid:
        with pytest.raises(SurgeryError, match="does not fit"):
            pool_to_grid(maps, grid)
        return
    cells = [[slice(n * i // grid, -(n * (i + 1) // -grid)) for i in range(grid)] for n in sides]
    wanted = [[maps[:, :, row, column].mean((2, 3)) for column in cells[1]] for row in cells[0]]
    found = pool_to_grid(maps, grid)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.moveaxis(wanted, (0, 1), (2, 3)), rtol=1e-4, atol=1e-6)


@pytest.mark.real_caffe
def test_a_grid_of_3_on_13x13_is_caffes_pooling_of_5_by_4(
    caffe_python: Path, tmp_path: Path
) -> None:
    net = tmp_path / "pool.prototxt"
    net.write_text(
        'layer { name: "d" type: "Input" top: "d" '
        "input_param { shape { dim: 2 dim: 3 dim: 13 dim: 13 } } } "
        'layer { name: "p" type: "Pooling" bottom: "d" top: "p" '
        "pooling_param { pool: AVE kernel_size: 5 stride: 4 } }"
    )
    layer = Layer(read_net(net).layer[1])
    write_caffemodel(tmp_path / "none.caffemodel", Caffemodel((layer,)))
    maps = np.random.default_rng(2).normal(size=(2, 3, 13, 13)).astype(np.float32)
    (found,) = CaffeEngine(caffe_python).forward(
        net, tmp_path / "none.caffemodel", {"d": maps}, ["p"]
    )
    np.testing.assert_allclose(pool_to_grid(maps, 3), found, rtol=1e-5, atol=1e-6)


def test_what_comes_after_the_blob_is_not_computed(model: tuple[Path, Path]) -> None:
    trunk = cut_trunk(*model, "conv", (1, 9, 8))
    engine = NetSeen((3, 7, 6))
    assert trunk.features(engine, np.zeros((5, 1, 9, 8), np.float32)).shape == (5, 3, 7, 6)  # type: ignore[arg-type]
    assert [layer.name for layer in engine.net.layer] == ["data", "conv", "relu"]


def test_the_shape_is_that_of_the_grid_or_of_the_blob(model: tuple[Path, Path]) -> None:
    assert cut_trunk(*model, "conv", (1, 9, 8)).shape == (3, 7, 6)
    assert cut_trunk(*model, "conv", (1, 9, 8), grid=2).shape == (3, 2, 2)
    assert cut_trunk(*model, "prob", (1, 9, 8)).shape == (4, 1, 1)


@pytest.mark.parametrize(
    ("blob", "grid", "words"),
    [("none", None, "no blob 'none'"), ("conv", 7, "does not fit"), ("ip", 1, "does not fit")],
)
def test_a_blob_that_cannot_be_had_is_refused(
    model: tuple[Path, Path], blob: str, grid: int | None, words: str
) -> None:
    with pytest.raises(SurgeryError, match=words):
        cut_trunk(*model, blob, (1, 9, 8), grid=grid)


def test_weights_of_another_net_are_refused(model: tuple[Path, Path], tmp_path: Path) -> None:
    other = read_caffemodel(model[1])
    write_caffemodel(tmp_path / "other.caffemodel", Caffemodel(other.layers[1:]))
    with pytest.raises(SurgeryError, match="conv"):
        cut_trunk(model[0], tmp_path / "other.caffemodel", "conv", (1, 9, 8))
    with pytest.raises(FormatError, match="no such file"):
        cut_trunk(model[0], tmp_path / "missing.caffemodel", "conv", (1, 9, 8))


def test_features_of_labels_too_are_refused(model: tuple[Path, Path], tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        'layer { name: "d" type: "MemoryData" top: "data" top: "label" '
        "memory_data_param { batch_size: 2 channels: 3 height: 1 width: 1 } } "
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "data" bottom: "label" top: "loss" }'
    )
    with pytest.raises(SurgeryError, match="data, label"):
        cut_trunk(net, model[1], "loss", (3, 1, 1))


@pytest.mark.real_caffe
def test_both_engines_see_the_same_in_real_flowers(caffe_python: Path, data_dir: Path) -> None:
    pytest.importorskip("torch")
    import cv2

    from pycaffe_prune.engines.torch.engine import TorchEngine

    originals = sorted((data_dir / "flowers102" / "original-subset" / "jpg").glob("*.jpg"))[:2]
    weights = data_dir / "zoo" / "squeezenet" / "squeezenet_v1.0_pruned.caffemodel"
    if not originals or not weights.is_file():
        pytest.skip(f"{data_dir}: lacks the flowers or the weights of SqueezeNet")
    trunk = squeezenet(weights)
    mean = np.array([104, 117, 123], np.float32).reshape(3, 1, 1)
    images = np.stack(
        [
            as_data_layer(
                np.ascontiguousarray(
                    cv2.resize(cv2.imread(str(path)), (256, 256)).transpose(2, 0, 1)
                ),
                trunk.input_shape,
                mean=mean,
            )
            for path in originals
        ]
    )
    engine = TorchEngine()
    try:
        ours = trunk.features(engine, images)
    finally:
        engine.close()
    caffes = trunk.features(CaffeEngine(caffe_python), images)
    assert ours.shape == (2, 512, 3, 3)
    assert ours.std() > 0.1
    np.testing.assert_allclose(ours, caffes, rtol=1e-5, atol=1e-5 * float(caffes.max()))


def squeezenet(weights: Path) -> Trunk:
    net = PROTOTXT / "squeezenet_v1.0" / "deploy_firenet.prototxt"
    return cut_trunk(net, weights, "fire9/concat", (3, 256, 256), grid=3)


def test_a_layer_that_computes_as_in_training_is_refused(model: tuple[Path, Path]) -> None:
    net, weights = model
    net.write_text(NET.replace('type: "ReLU"', 'type: "ReLU" phase: TRAIN'))
    with pytest.raises(FormatError, match=r"layer 'relu' .ReLU. has phase: TRAIN, .*take it out"):
        cut_trunk(net, weights, "ip", (1, 9, 8))


DATA = """layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { crop_size: 7 %s } data_param { source: "lmdb" batch_size: 4 } }
"""


@pytest.mark.parametrize(
    ("settings", "mean", "scale", "words"),
    [
        ("mean_value: 104", False, True, "'data' .Data. prepares .* mean_value, .* no --mean"),
        ('mean_file: "m"', False, True, "mean_file, .* no --mean"),
        ("scale: 0.5", True, False, "scale, .* no --scale"),
        ("scale: 0.5 mean_value: 104", True, True, None),
        ("mirror: true", False, False, None),
    ],
)
def test_images_are_cut_as_the_data_layer_says_and_prepared_by_options(
    model: tuple[Path, Path], settings: str, mean: bool, scale: bool, words: str | None
) -> None:
    net, weights = model
    net.write_text(DATA % settings + NET[NET.index('layer { name: "conv"') :])
    trunk = cut_trunk(net, weights, "conv", (1, 9, 8))
    assert trunk.input_shape == (1, 1, 7, 7)
    if words is None:
        trunk.require_prepared(mean, scale)
    else:
        with pytest.raises(FormatError, match=words):
            trunk.require_prepared(mean, scale)
