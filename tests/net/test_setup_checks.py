"""What the real Caffe aborts on when it sets a layer up is a sentence here."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from google.protobuf import text_format

from pycaffe_prune.convert.deploy import to_deploy
from pycaffe_prune.convert.onnx_model import to_onnx
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.graph import NetState
from pycaffe_prune.net.setup_checks import refuse_repeated_tops
from pycaffe_prune.net.shapes import infer_shapes
from tests.net.layer_nets import net_around

IMAGE = (2, 6, 8, 8)
ROWS = (2, 6)
CONV = "convolution_param {{ num_output: 4 {} }}"
POOL = "pooling_param {{ {} }}"


class Case(NamedTuple):
    kind: str
    bottoms: list[tuple[int, ...]]
    settings: str
    sentence: str
    tops: int = 1

    @property
    def net(self) -> NetParameter:
        text = net_around(self.kind, self.bottoms, self.settings, self.tops)
        return text_format.Parse(text, NetParameter())


def square(name: str) -> str:
    """A convolution's window told twice."""
    return CONV.format(f"{'' if name == 'kernel_size' else 'kernel_size: 3'} {name}: 1 ")


CASES = [
    # Of any layer
    Case("ReLU", [ROWS], "param { lr_mult: 1 }", "1 param .* 0 blobs"),
    Case(
        "InnerProduct",
        [ROWS],
        "inner_product_param { num_output: 2 bias_term: false } param {} param {}",
        "2 param .* 1 blob",
    ),
    Case("ReLU", [ROWS], "propagate_down: [true, false]", "2 propagate_down .* 1 bottom"),
    Case("EuclideanLoss", [ROWS, ROWS], "loss_weight: [1, 2]", "2 loss_weight .* 1 top"),
    Case("ReLU", [ROWS], "", "0 tops", tops=0),
    Case("Convolution", [IMAGE, IMAGE], CONV.format("kernel_size: 3"), "1 top", tops=1),
    Case("ImageData", [], 'image_data_param { source: "x" batch_size: 2 }', "1 top", tops=1),
    # Windows
    Case(
        "Convolution",
        [IMAGE],
        CONV.format("kernel_size: 3 kernel_h: 3 kernel_w: 3"),
        "kernel_size and kernel_h",
    ),
    Case(
        "Convolution",
        [IMAGE],
        CONV.format("kernel_size: 3 stride: 1 stride_h: 2 stride_w: 2"),
        "stride and stride_h",
    ),
    Case(
        "Convolution",
        [IMAGE],
        CONV.format("kernel_size: 3 pad: 1 pad_h: 2 pad_w: 2"),
        "pad and pad_h",
    ),
    Case(
        "Deconvolution",
        [IMAGE],
        CONV.format("kernel_size: 3 kernel_w: 3"),
        "kernel 0x3",
    ),
    Case(
        "Pooling",
        [IMAGE],
        POOL.format("kernel_size: 2 kernel_h: 2 kernel_w: 2"),
        "kernel_size and kernel_h",
    ),
    Case("Pooling", [IMAGE], POOL.format("kernel_h: 2"), "kernel 2x0"),
    Case(
        "Pooling",
        [IMAGE],
        POOL.format("kernel_size: 2 stride: 2 stride_h: 1 stride_w: 1"),
        "stride and stride_h",
    ),
    Case("Pooling", [IMAGE], POOL.format("kernel_size: 2 stride_h: 1"), "stride 1x0"),
    Case(
        "Pooling", [IMAGE], POOL.format("kernel_size: 2 pad: 1 pad_h: 1 pad_w: 1"), "pad and pad_h"
    ),
    Case("Pooling", [IMAGE], POOL.format("kernel_size: 2 pad_w: 1"), "pad_h and pad_w"),
    Case("Pooling", [IMAGE], POOL.format("global_pooling: true kernel_size: 8"), "global_pooling"),
    Case(
        "Pooling",
        [IMAGE],
        POOL.format("global_pooling: true kernel_h: 8 kernel_w: 8"),
        "global_pooling",
    ),
    Case("Pooling", [IMAGE], POOL.format("global_pooling: true stride: 2"), "global_pooling"),
    Case("Pooling", [IMAGE], POOL.format("global_pooling: true pad: 1"), "global_pooling"),
    Case("Pooling", [IMAGE], POOL.format("kernel_size: 3 pad: 2 pool: STOCHASTIC"), "STOCHASTIC"),
    Case("Pooling", [IMAGE], POOL.format("kernel_size: 3 pool: AVE"), "second top", tops=2),
    Case("Im2col", [ROWS], "convolution_param { kernel_size: 1 }", "needs a spatial axis"),
    Case("Im2col", [IMAGE], "convolution_param { stride: 2 }", "0 values of kernel_size"),
    Case("Im2col", [IMAGE], "convolution_param { kernel_size: [1, 1, 1] }", "3 values of"),
    Case("Im2col", [IMAGE], "convolution_param { kernel_size: 11 }", "does not fit"),
    Case(
        "Im2col",
        [IMAGE],
        "convolution_param { kernel_size: 3 kernel_h: 3 kernel_w: 3 }",
        "kernel_size and kernel_h",
    ),
    Case("SPP", [IMAGE], "spp_param { }", "no pyramid_height"),
    Case("SPP", [ROWS], "spp_param { pyramid_height: 2 }", "4 axes"),
    Case("SPP", [(2, 6, 5, 5)], "spp_param { pyramid_height: 3 }", "level 2 of 3 cuts 4x4"),
    Case("SPP", [IMAGE], "spp_param { pyramid_height: 5 }", "level 4 of 5 cuts 16x16"),
    Case(
        "SPP",
        [(2, 6, 7, 7)],
        "spp_param { pyramid_height: 2 pool: STOCHASTIC }",
        "pool: STOCHASTIC, which takes no padding",
    ),
    # Weights
    Case("BatchNorm", [IMAGE], "param { lr_mult: 0 } param { lr_mult: 1 }", "lr_mult"),
    Case("BatchNorm", [IMAGE], "param {}", "lr_mult"),
    Case("Embed", [(2,)], "embed_param { num_output: 0 input_dim: 3 }", "num_output"),
    Case("Embed", [(2,)], "embed_param { num_output: 3 }", "input_dim"),
    # Shapes
    Case("Concat", [ROWS, ROWS], "concat_param { axis: 1 concat_dim: 1 }", "axis and concat_dim"),
    Case("Slice", [ROWS], "slice_param { axis: 1 slice_dim: 1 }", "axis and slice_dim", tops=2),
    Case("Reshape", [ROWS], "reshape_param { shape { dim: 12 } num_axes: -2 }", "num_axes"),
    Case("Flatten", [IMAGE], "flatten_param { axis: 3 end_axis: 1 }", "end_axis"),
    Case("Tile", [ROWS], "", "tiles"),
    Case("Tile", [ROWS], "tile_param { tiles: 0 }", "tiles"),
    Case("BatchReindex", [ROWS, (2, 1)], "", "1 axis"),
    Case("ArgMax", [ROWS], "argmax_param { top_k: 7 }", "top_k"),
    Case("ArgMax", [ROWS], "argmax_param { top_k: 0 }", "top_k"),
    Case("ArgMax", [ROWS], "argmax_param { top_k: 3 axis: 0 }", "top_k"),
    Case("Reduction", [ROWS], "reduction_param { axis: 2 }", "axis 2"),
    Case("MVN", [(2, 3, 4, 5, 6)], "", "4 axes"),
    *(
        Case(kind, [ROWS], f'top: "in0" {settings}', "writes over its bottom 'in0'", tops=0)
        for kind, settings in (
            ("AbsVal", ""),
            ("Flatten", ""),
            ("Reshape", "reshape_param { shape { dim: 12 } }"),
            ("Split", ""),
        )
    ),
    Case("Filter", [ROWS, (3,)], "", "2x6, its selector"),
    Case("Filter", [ROWS, (2, 2)], "", "one number for each image"),
    Case("Filter", [ROWS, ROWS, (2,)], "", "1 tops for 3 bottoms"),
    Case("Filter", [ROWS], "", "1 bottoms"),
    # Functions
    Case("Exp", [ROWS], "exp_param { base: 0 }", "base"),
    Case("Exp", [ROWS], "exp_param { base: -2 }", "base"),
    Case("Log", [ROWS], "log_param { base: 0 }", "base"),
    Case("Log", [ROWS], "log_param { base: 1 }", "base"),
    # Ends
    Case("Accuracy", [ROWS, (2,)], "accuracy_param { top_k: 7 }", "top_k"),
    Case("SoftmaxWithLoss", [ROWS, (2,), (2,)], "", "has 3 bottoms"),
    Case("EuclideanLoss", [(2, 6), (2, 5)], "", "2x6 and 2x5"),
    Case("SigmoidCrossEntropyLoss", [(2, 6), (2, 5)], "", "2x6 and 2x5"),
    Case("ContrastiveLoss", [(2, 6), (2, 5), (2,)], "", "2x6 and 2x5"),
    Case("ContrastiveLoss", [IMAGE, IMAGE, (2,)], "", "2x6x8x8"),
    Case("ContrastiveLoss", [ROWS, ROWS, (2, 2)], "", "labels"),
    Case("MultinomialLogisticLoss", [ROWS, (2, 2)], "", "labels"),
    Case("InfogainLoss", [ROWS, (2,)], "", "source"),
    Case("InfogainLoss", [ROWS, (3,), (1, 1, 6, 6)], "", "labels"),
    Case("InfogainLoss", [ROWS, (2,), (1, 1, 5, 6)], "", "6x6"),
    Case("InfogainLoss", [ROWS, (2,), (1, 1, 6, 6)], "loss_param { normalize: true }", "normalize"),
    Case(
        "HDF5Output",
        [ROWS, (3,)],
        'hdf5_output_param { file_name: "/dev/null" }',
        "makes 0",
        tops=1,
    ),
    # Data
    Case(
        "DummyData",
        [],
        "dummy_data_param { num: 1 channels: 1 height: 1 width: 1 shape { dim: 1 } }",
        "shape and num",
    ),
    Case(
        "DummyData",
        [],
        "dummy_data_param { shape { dim: 1 } data_filler {} data_filler {} data_filler {} }",
        "data_filler",
        tops=2,
    ),
    Case("DummyData", [], "", "0 shape", tops=1),
    Case(
        "MemoryData",
        [],
        "memory_data_param { batch_size: 2 channels: 1 height: 3 }",
        "width",
        tops=2,
    ),
    Case("HDF5Data", [], "transform_param { scale: 2 }", "transform_param"),
    Case(
        "ImageData",
        [],
        'image_data_param { source: "x" batch_size: 2 new_height: 4 }',
        "new_height",
        tops=2,
    ),
]


REPEATED = text_format.Parse(
    net_around("ReLU", [ROWS], "") + net_around("TanH", [ROWS], "").splitlines()[-1], NetParameter()
)
"""Two layers that make one blob."""


@pytest.fixture(scope="module")
def said_by_caffe(caffe_python: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str | None]:
    folder = tmp_path_factory.mktemp("aborts")
    paths = []
    for number, net in enumerate([*(case.net for case in CASES), REPEATED]):
        paths.append(str(folder / f"{number}.prototxt"))
        Path(paths[-1]).write_text(text_format.MessageToString(net))
    (folder / "nets.json").write_text(json.dumps(paths))
    script = Path(__file__).with_name("aborts_with_caffe.py")
    done = subprocess.run(
        [caffe_python, script, folder / "nets.json"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1"},
    )
    said: list[str | None] = json.loads(done.stdout)
    return said


@pytest.mark.real_caffe
@pytest.mark.parametrize(
    "place", range(len(CASES)), ids=lambda place: f"{place}-{CASES[place].kind}"
)
def test_caffe_aborts(place: int, said_by_caffe: list[str | None]) -> None:
    assert said_by_caffe[place] is not None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_what_caffe_aborts_on_is_one_sentence(case: Case) -> None:
    with pytest.raises(SurgeryError, match=f"layer 'x' .*{case.sentence}"):
        infer_shapes(case.net.layer)


@pytest.mark.real_caffe
def test_caffe_builds_no_blob_twice(said_by_caffe: list[str | None]) -> None:
    assert "produced by multiple sources" in (said_by_caffe[-1] or "")


@pytest.mark.parametrize(
    "use",
    [
        lambda net: to_deploy(net),
        lambda net: to_onnx(net, Caffemodel(())),
        lambda net: Net(net, NetState(TEST)),
    ],
    ids=["deploy", "onnx", "torch"],
)
def test_a_blob_that_two_layers_make_is_one_sentence(use: Callable[[NetParameter], object]) -> None:
    with pytest.raises(SurgeryError, match=r"layer 'x' .TanH.*'out0'.*layer 'x' makes already"):
        use(REPEATED)


def test_a_blob_may_be_written_in_place() -> None:
    layers = text_format.Parse(net_around("ReLU", [ROWS], ""), NetParameter()).layer
    layers.add(name="y", type="ReLU", bottom=["out0"], top=["out0"])
    refuse_repeated_tops(layers)
