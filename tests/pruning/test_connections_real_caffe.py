"""Pruned convolutions of real weights: exactly zero after training in the real Caffe."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from google.protobuf import text_format

from pycaffe_prune.cli.prune.command import prune
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.run import train
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.mask import MaskFile, read_mask, write_mask
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.pruning.connections import nonzero_where_masked, prune_to_global_ratio
from pycaffe_prune.pruning.selection import connection_layers
from pycaffe_prune.pruning.sharing import masks_for_all, shared_blobs
from pycaffe_prune.share import share_root

pytestmark = pytest.mark.real_caffe

SOLVER = """
net: "net.prototxt" base_lr: 0.001 momentum: 0.9 weight_decay: 0.0005 lr_policy: "fixed"
max_iter: 3 display: 1
"""
RANDOM_IMAGE = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param {
    shape { dim: 1 dim: 3 dim: 227 dim: 227 } shape { dim: 1 }
    data_filler { type: "gaussian" std: 50 } data_filler { type: "constant" value: 7 } } }
"""
LOSS = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "pool_final" bottom: "label" top: "loss"
  include { phase: TRAIN } }
"""
SHARING = """
layer { name: "data" type: "DummyData" top: "a" top: "b" top: "label"
  dummy_data_param { shape { dim: 8 dim: 2 dim: 6 dim: 6 } shape { dim: 8 dim: 2 dim: 6 dim: 6 }
    shape { dim: 8 } data_filler { type: "gaussian" } data_filler { type: "gaussian" }
    data_filler { type: "constant" value: 1 } } }
layer { name: "left" type: "Convolution" bottom: "a" top: "left" param { name: "w" }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "right" type: "Convolution" bottom: "b" top: "right" param { name: "w" }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "both" type: "Concat" bottom: "left" bottom: "right" top: "both" }
layer { name: "ip" type: "InnerProduct" bottom: "both" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
  include { phase: TRAIN } }
"""


def train_briefly(
    folder: Path,
    engine: CaffeEngine,
    net: Path,
    weights: Path | None = None,
    mask: Path | None = None,
) -> Path:
    solver = folder / "solver.prototxt"
    solver.write_text(SOLVER)
    request = TrainRequest(solver=solver, net=net, weights=weights, mask=mask)
    train(request, folder / "run", engine, lambda _: None)
    return folder / "run" / "final.caffemodel"


def test_squeezenets_pruned_filters_stay_exactly_zero(
    tmp_path: Path, caffe_python: Path, data_dir: Path
) -> None:
    net = read_net(share_root() / "prototxt" / "squeezenet_v1.0" / "deploy_firenet.prototxt")
    layers = [layer for layer in net.layer if layer.type not in ("Input", "Softmax")]
    del net.layer[:]
    net.layer.extend(text_format.Parse(RANDOM_IMAGE, NetParameter()).layer)
    net.layer.extend(layers)
    net.layer.extend(text_format.Parse(LOSS, NetParameter()).layer)
    write_prototxt(tmp_path / "net.prototxt", net)
    weights = data_dir / "zoo" / "squeezenet" / "squeezenet_v1.0_pruned.caffemodel"
    model = read_caffemodel(weights)
    names = [name for name, _ in connection_layers(net, model)]
    assert len(names) == 26
    pruned, masks = prune_to_global_ratio(model, 0.8, names)
    total = sum(mask.size for mask in masks.values())
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(0.8 * total)
    write_caffemodel(tmp_path / "pruned.caffemodel", pruned)
    write_mask(tmp_path / "kept.mask.h5", MaskFile(masks, "0" * 64, "ratio"))
    final = read_caffemodel(
        train_briefly(
            tmp_path,
            CaffeEngine(caffe_python),
            tmp_path / "net.prototxt",
            weights=tmp_path / "pruned.caffemodel",
            mask=tmp_path / "kept.mask.h5",
        )
    )
    assert set(nonzero_where_masked(final, masks).values()) == {0}
    for name in ("conv1", "conv_final"):
        before, after = pruned.layer(name).blobs[0], final.layer(name).blobs[0]
        assert not np.array_equal(before, after)
        assert np.count_nonzero(after) >= np.count_nonzero(before)


def test_shared_convolutions_have_the_same_zeros_after_training(
    tmp_path: Path, caffe_python: Path
) -> None:
    (tmp_path / "net.prototxt").write_text(SHARING)
    engine = CaffeEngine(caffe_python)
    first = tmp_path / "first"
    first.mkdir()
    start = train_briefly(first, engine, tmp_path / "net.prototxt")
    model, shared = read_caffemodel(start), shared_blobs(read_net(tmp_path / "net.prototxt"))
    _, owner = prune_to_global_ratio(model, 0.6, ["left", "ip"])
    masks = masks_for_all(shared, model, owner)
    write_mask(tmp_path / "kept.mask.h5", MaskFile(masks, "0" * 64, "ratio"))
    second = tmp_path / "second"
    second.mkdir()
    final = read_caffemodel(
        train_briefly(
            second,
            engine,
            tmp_path / "net.prototxt",
            weights=start,
            mask=tmp_path / "kept.mask.h5",
        )
    )
    assert set(nonzero_where_masked(final, masks).values()) == {0}
    left, right = final.layer("left").blobs[0], final.layer("right").blobs[0]
    np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(left != 0, masks["left", 0])


MATRICES = """
layer { name: "data" type: "DummyData" top: "word" top: "cont" top: "map" top: "label"
  dummy_data_param { shape { dim: 4 dim: 2 } shape { dim: 4 dim: 2 }
    shape { dim: 4 dim: 2 dim: 3 dim: 3 } shape { dim: 4 dim: 2 }
    data_filler { type: "uniform" max: 8.9 } data_filler { type: "constant" value: 1 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "embed" type: "Embed" bottom: "word" top: "embed"
  embed_param { input_dim: 9 num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "up" type: "Deconvolution" bottom: "map" top: "up"
  convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "flat" type: "Reshape" bottom: "up" top: "flat"
  reshape_param { shape { dim: 4 dim: 2 dim: 25 } } }
layer { name: "both" type: "Concat" bottom: "embed" bottom: "flat" top: "both"
  concat_param { axis: 2 } }
layer { name: "lstm" type: "LSTM" bottom: "both" bottom: "cont" top: "lstm"
  recurrent_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "rnn" type: "RNN" bottom: "lstm" bottom: "cont" top: "rnn"
  recurrent_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "rnn" top: "ip"
  inner_product_param { num_output: 3 axis: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
  softmax_param { axis: 2 } include { phase: TRAIN } }
"""


def test_matrices_of_every_type_stay_zero_where_masked_and_move_elsewhere(
    tmp_path: Path, caffe_python: Path
) -> None:
    """In LSTM and RNN each step of the unrolled net shares the hidden weights."""
    (tmp_path / "net.prototxt").write_text(MATRICES)
    engine = CaffeEngine(caffe_python)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    start = train_briefly(tmp_path / "first", engine, tmp_path / "net.prototxt")
    out = tmp_path / "pruned"
    asked = ("--net", tmp_path / "net.prototxt", "--weights", start, "--out", out)
    arguments = ["connections", *map(str, asked), "--layers", "all", "--ratio", "0.5"]
    result = CliRunner().invoke(prune, arguments)
    assert result.exit_code == 0, result.output
    masks = read_mask(out / "kept.mask.h5").masks
    assert set(masks) == {
        ("embed", 0), ("up", 0), ("lstm", 0), ("lstm", 2), ("rnn", 0), ("rnn", 2), ("rnn", 3),
        ("ip", 0),
    }  # fmt: skip
    final = read_caffemodel(
        train_briefly(
            tmp_path / "second",
            engine,
            tmp_path / "net.prototxt",
            weights=out / "pruned.caffemodel",
            mask=out / "kept.mask.h5",
        )
    )
    before = read_caffemodel(out / "pruned.caffemodel")
    assert set(nonzero_where_masked(final, masks).values()) == {0}
    for (name, index), mask in masks.items():
        one, other = before.layer(name).blobs[index], final.layer(name).blobs[index]
        assert (one[mask] != other[mask]).any(), (name, index)
