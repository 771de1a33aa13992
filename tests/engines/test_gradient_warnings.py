"""The warning of gradients that the real Caffe gets wrong: once a run, by both engines."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf import text_format

from pycaffe_prune.cli.verify.command import verify
from pycaffe_prune.engines.base import Engine, Event
from pycaffe_prune.engines.gradient_warnings import gradient_warning
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.run import train
from pycaffe_prune.formats.caffe_pb2 import NetParameter

NET = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { scale: 0.00390625 }
  data_param { source: "mnist_train_lmdb" batch_size: 8 backend: LMDB } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "a"
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "tanh" type: "TanH" bottom: "a" top: "a" }
layer { name: "scale" type: "Scale" bottom: "a" top: "a" scale_param { filler { value: 3 } } }
layer { name: "ip2" type: "InnerProduct" bottom: "a" top: "b"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "power" type: "Power" bottom: "b" top: "b" power_param { scale: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "b" bottom: "label" top: "loss" }
"""
SENTENCE = (
    "at layer 'tanh' (TanH: 'scale' writes over it in place), layer 'power' (Power: works in "
    "place); give a top of its own to 'scale', 'power'"
)


@pytest.fixture
def solver(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    path = tmp_path / "solver.prototxt"
    path.write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2')
    return path


def test_the_sentence_names_layers_and_remedy_and_is_not_said_without_need() -> None:
    told = gradient_warning(text_format.Parse(NET, NetParameter()))
    assert told is not None
    assert told.endswith(SENTENCE)
    assert "\n" not in told
    mended = NET.replace(
        'name: "scale" type: "Scale" bottom: "a" top: "a"',
        'name: "scale" type: "Scale" bottom: "a" top: "c"',
    ).replace('"InnerProduct" bottom: "a"', '"InnerProduct" bottom: "c"')
    mended = mended.replace('bottom: "b" top: "b"', 'bottom: "b" top: "d"').replace(
        '"SoftmaxWithLoss" bottom: "b"', '"SoftmaxWithLoss" bottom: "d"'
    )
    assert gradient_warning(text_format.Parse(mended, NetParameter())) is None


def test_each_engine_warns_once_in_a_run(
    engine: Engine, solver: Path, digits: Path, tmp_path: Path
) -> None:
    seen: list[Event] = []
    for iterations in (2, 3):  # the second goes on
        request = TrainRequest(solver=solver, data=digits, max_iter=iterations)
        train(request, tmp_path / "run", engine, seen.append)
    warnings = [event.message for event in seen if event.event == "warning"]
    assert len(warnings) == 1
    assert warnings[0] is not None
    assert warnings[0].endswith(SENTENCE)


@pytest.mark.real_caffe
def test_a_difference_of_the_engines_is_explained_by_it(
    solver: Path, digits: Path, caffe_python: Path
) -> None:
    result = CliRunner().invoke(
        verify,
        ["--engines", "caffe,torch", "--solver", str(solver), "--data", str(digits),
         "--iterations", "2", "--caffe-python", str(caffe_python)],
    )  # fmt: skip
    assert result.exit_code == 1
    assert "caffe and torch differ at iteration 1: " in str(result.exception)
    assert str(result.exception).endswith(SENTENCE)
