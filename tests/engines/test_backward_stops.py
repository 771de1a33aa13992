"""Trainings that the real Caffe ends at their first backward pass are refused before they begin."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format

from pycaffe_prune.engines.backward_stops import refuse_stopped_backward
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.prepare import prepare
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, NetParameter
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.net.graph import NetState, layers_in_state

DATA = """
layer { name: "d" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 3 } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "%s" top: "loss" }\n'
ACCURACY = 'layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc" %s }'
ARGMAX = 'layer { name: "best" type: "ArgMax" bottom: "fc" top: "best" }'
PLAIN = DATA + LOSS % "label"
LABELS = """
layer { name: "own" type: "InnerProduct" bottom: "data" top: "own"
  inner_product_param { num_output: 1 } }
"""
SQUARES = 'layer { name: "sq" type: "EuclideanLoss" bottom: "best" bottom: "best" top: "sq" }'
EMBED = """
layer { name: "em" type: "Embed" bottom: "label" top: "em"
  embed_param { num_output: 3 input_dim: 4 } }
layer { name: "sum" type: "Reduction" bottom: "em" top: "sum" loss_weight: 1 }
"""
FORCE = "force_backward: true "
LEFT_OUT = ACCURACY % "propagate_down: false propagate_down: false"


def refuse(text: str) -> None:
    net = text_format.Parse(text, NetParameter())
    layers = layers_in_state(net, NetState(TRAIN))
    refuse_stopped_backward(layers, {}, Path("net.prototxt"), force=net.force_backward)


@pytest.mark.parametrize(
    ("net", "sentence"),
    [
        (FORCE + PLAIN + ACCURACY % "", "'acc' (Accuracy) has no gradient for its scores, 'fc"),
        (FORCE + PLAIN + LEFT_OUT, "'acc' (Accuracy) has no gradient for its scores"),
        (PLAIN + ACCURACY % "loss_weight: 1", "'acc' (Accuracy) has no gradient for its scores"),
        (PLAIN + ARGMAX + SQUARES, "'best' (ArgMax) has no backward pass"),
        (FORCE + PLAIN + ARGMAX, "'best' (ArgMax) has no backward pass"),
        (DATA + LABELS + LOSS % "own", "'loss' (SoftmaxWithLoss) has no gradient for its labels"),
        (FORCE + DATA + EMBED, "'em' (Embed) has no gradient for its indices"),
    ],
)
def test_layers_without_a_gradient_are_refused(net: str, sentence: str) -> None:
    with pytest.raises(SurgeryError, match=re.escape(f"net.prototxt: layer {sentence}")):
        refuse(net)


@pytest.mark.parametrize(
    "net",
    [
        PLAIN + ACCURACY % "",
        FORCE + PLAIN,
        FORCE + PLAIN + ACCURACY % "include { phase: TEST }",
        PLAIN + ARGMAX,
        PLAIN + ACCURACY % "loss_weight: 1 propagate_down: false propagate_down: false",
        DATA + EMBED,
        'layer { name: "x" type: "Nowhere" top: "x" }',
    ],
)
def test_all_others_are_left_to_the_engine(net: str) -> None:
    refuse(net)


def test_a_run_that_would_end_so_is_not_begun(
    digits: Path, make_solver: Callable[[], Path], tmp_path: Path
) -> None:
    solver, folder = make_solver(), RunFolder(tmp_path / "run")
    net = read_net(solver.parent / "net.prototxt")
    net.force_backward = True
    (accuracy,) = (layer for layer in net.layer if layer.type == "Accuracy")
    write_prototxt(solver.parent / "net.prototxt", net)
    request = TrainRequest(solver=solver, data=digits, seed=3)
    prepare(request, RunFolder(tmp_path / "another"))
    del accuracy.include[:]
    write_prototxt(solver.parent / "net.prototxt", net)
    with pytest.raises(SurgeryError, match=r"'accuracy'.*scores, 'ip2'; leave the layer out"):
        prepare(request, folder)
    assert not folder.path.exists()


@pytest.mark.real_caffe
def test_the_real_caffe_ends_there(caffe_python: Path, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(FORCE + PLAIN + LEFT_OUT)
    code = "import caffe; n = caffe.Net('net.prototxt', caffe.TRAIN); n.forward(); n.backward()"
    done = subprocess.run(
        [caffe_python, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode != 0
    assert "Not Implemented Yet" in done.stderr
