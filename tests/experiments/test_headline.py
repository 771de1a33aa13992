"""What an experiment is judged by, told before it is trained."""

from pathlib import Path

import pytest

from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.headline import require_headline
from pycaffe_prune.experiments.plan import make_plan
from pycaffe_prune.experiments.result import DataSet, Execution
from pycaffe_prune.experiments.spec import read_experiment

HEADS = """
layer { name: "d" type: "Data" top: "data" top: "label"
  data_param { source: "x" batch_size: 2 backend: LMDB } }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a"
  inner_product_param { num_output: 3 } }
layer { name: "b" type: "InnerProduct" bottom: "data" top: "b"
  inner_product_param { num_output: 3 } }
layer { name: "loss_a" type: "SoftmaxWithLoss" bottom: "a" bottom: "label" top: "loss_a"
  loss_weight: 1 include { phase: TRAIN } }
layer { name: "loss_b" type: "SoftmaxWithLoss" bottom: "b" bottom: "label" top: "loss_b"
  loss_weight: 0.3 include { phase: TRAIN } }
layer { name: "acc_a" type: "Accuracy" bottom: "a" bottom: "label" top: "acc_a"
  include { phase: TEST } }
layer { name: "acc_b" type: "Accuracy" bottom: "b" bottom: "label" top: "acc_b"
  include { phase: TEST } }
"""


def test_heads_without_a_loss_in_the_test_net_are_weighed_by_the_train_nets(tmp_path: Path) -> None:
    net, solver = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
    net.write_text(HEADS)
    solver.write_text('net: "net.prototxt" max_iter: 1')
    assert require_headline(solver, net, None, trust=False).layer == "acc_a"
    assert require_headline(solver, net, "acc_b", trust=False).layer == "acc_b"


def test_a_net_of_ones_own_is_planned_with_trust_alone(toml: Path, data_set: DataSet) -> None:
    net = toml.with_name("net.prototxt")
    own = 'layer { name: "own" type: "Python" bottom: "ip3" python_param { module: "m" } }'
    net.write_text(net.read_text() + own)
    spec, solver = read_experiment(toml), toml.with_name("solver.prototxt")

    def plan(*, trusted: bool) -> None:
        execution = Execution(trusted=trusted)
        folder = toml.parent
        make_plan(spec, solver, folder / "out", folder, data_set, "caffe", execution)

    with pytest.raises(FormatError, match="layer 'own' is a Python layer"):
        plan(trusted=False)
    plan(trusted=True)
