"""What a solver says is followed: for each field a twin that has another outcome in the real Caffe.

The real Caffe runs the solver as it was written; what `prepare` makes of it must come to the same,
in the real Caffe and in the engine torch.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.prepare import prepare
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.torch_engine.solver import Solver
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.prototxt import read_net, read_solver

Outcome = dict[str, NDArray[np.float32]]

SOURCE = """layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 2 dim: 3 } shape { dim: 2 } data_filler { value: 0.5 } data_filler { value: 1 } } }
"""
HEAD = """layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {
  num_output: 3 weight_filler { value: 0.2 } bias_filler { value: 0.1 } } }
layer { name: "scores" type: "InnerProduct" bottom: "ip" top: "scores" inner_product_param {
  num_output: 2 weight_filler { value: 0.3 } bias_filler { value: -0.1 } } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }'


def bent(rules: str) -> str:
    """A layer that changes every outcome, in the net by its rules."""
    return f'layer {{ name: "bent" type: "TanH" bottom: "ip" top: "ip" {rules} }}'


def net(rules: str | None = None, state: str = "") -> str:
    middle = "" if rules is None else bent(rules)
    ip, scores = HEAD.split('layer { name: "scores"')
    return f'{state} {SOURCE} {ip} {middle} layer {{ name: "scores"{scores} {LOSS}'


PLAIN, BENT = net(), net("")
DEEP = net('include { stage: "deep" }')
BASE = 'base_lr: 0.1 lr_policy: "fixed" '
NET = 'net: "plain.prototxt" '
ADAGRAD = 'net: "plain.prototxt" base_lr: 0.1 lr_policy: "fixed" type: "AdaGrad" '
TESTED = "test_iter: 1 test_interval: 9 " + BASE
DEEP_NET = 'net: "deep.prototxt" '
BENT_NET = 'net: "bent.prototxt" ' + BASE

TWINS: dict[str, tuple[str, str]] = {
    "base_lr": (NET + BASE, NET + 'base_lr: 0.3 lr_policy: "fixed"'),
    "lr_policy": (
        NET + 'base_lr: 0.1 lr_policy: "fixed" gamma: 0.5 stepsize: 2',
        NET + 'base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 2',
    ),
    "gamma": (
        NET + 'base_lr: 0.1 lr_policy: "exp" gamma: 0.5',
        NET + 'base_lr: 0.1 lr_policy: "exp" gamma: 0.9',
    ),
    "power": (
        NET + 'base_lr: 0.1 lr_policy: "poly" power: 1',
        NET + 'base_lr: 0.1 lr_policy: "poly" power: 2',
    ),
    "stepsize": (
        NET + 'base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 1',
        NET + 'base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 3',
    ),
    "stepvalue": (
        NET + 'base_lr: 0.1 lr_policy: "multistep" gamma: 0.5 stepvalue: 1',
        NET + 'base_lr: 0.1 lr_policy: "multistep" gamma: 0.5 stepvalue: 1 stepvalue: 2',
    ),
    "max_iter": (NET + BASE, NET + BASE + "max_iter: 3"),
    "momentum": (NET + BASE, NET + BASE + "momentum: 0.9"),
    "weight_decay": (NET + BASE, NET + BASE + "weight_decay: 0.5"),
    "regularization_type": (
        NET + BASE + "weight_decay: 0.5",
        NET + BASE + 'weight_decay: 0.5 regularization_type: "L1"',
    ),
    "clip_gradients": (NET + BASE, NET + BASE + "clip_gradients: 0.01"),
    "iter_size": (
        NET + BASE + "clip_gradients: 0.01",
        NET + BASE + "clip_gradients: 0.01 iter_size: 2",
    ),
    "type": (NET + BASE, ADAGRAD),
    "solver_type": (NET + BASE, NET + BASE + "solver_type: ADAGRAD"),
    "delta": (ADAGRAD, ADAGRAD + "delta: 1"),
    "rms_decay": (
        NET + BASE + 'type: "RMSProp" rms_decay: 0.5',
        NET + BASE + 'type: "RMSProp" rms_decay: 0.9',
    ),
    "momentum2": (
        NET + BASE + 'type: "Adam" momentum: 0.9 momentum2: 0.9',
        NET + BASE + 'type: "Adam" momentum: 0.9 momentum2: 0.999',
    ),
    "net": (NET + BASE, 'net: "bent.prototxt" ' + BASE),
    "net_param": (f"net_param {{ {PLAIN} }} {BASE}", f"net_param {{ {BENT} }} {BASE}"),
    "train_net": ('train_net: "plain.prototxt" ' + BASE, 'train_net: "bent.prototxt" ' + BASE),
    "train_net_param": (
        f"train_net_param {{ {PLAIN} }} {BASE}",
        f"train_net_param {{ {BENT} }} {BASE}",
    ),
    "test_net": (
        'train_net: "plain.prototxt" test_net: "plain.prototxt" ' + TESTED,
        'train_net: "plain.prototxt" test_net: "bent.prototxt" ' + TESTED,
    ),
    "test_net_param": (
        f'train_net: "plain.prototxt" test_net_param {{ {PLAIN} }} {TESTED}',
        f'train_net: "plain.prototxt" test_net_param {{ {BENT} }} {TESTED}',
    ),
    "train_state": (DEEP_NET + BASE, DEEP_NET + BASE + 'train_state { stage: "deep" }'),
    "test_state": (DEEP_NET + TESTED, DEEP_NET + TESTED + 'test_state { stage: "deep" }'),
    "NetParameter.state": (DEEP_NET + BASE, 'net: "deep_state.prototxt" ' + BASE),
    "NetState.stage": (
        DEEP_NET + BASE + 'train_state { stage: "other" }',
        DEEP_NET + BASE + 'train_state { stage: "deep" }',
    ),
    "NetState.level": (
        'net: "from_level_2.prototxt" ' + BASE + "train_state { level: 1 }",
        'net: "from_level_2.prototxt" ' + BASE + "train_state { level: 2 }",
    ),
    "NetStateRule.phase": (
        'net: "in_training.prototxt" ' + TESTED,
        'net: "in_tests.prototxt" ' + TESTED,
    ),
    "NetStateRule.min_level": (
        'net: "from_level_0.prototxt" ' + BASE,
        'net: "from_level_2.prototxt" ' + BASE,
    ),
    "NetStateRule.max_level": (
        'net: "to_level_0.prototxt" ' + BASE,
        'net: "to_level_-1.prototxt" ' + BASE,
    ),
    "NetStateRule.stage": (BENT_NET, DEEP_NET + BASE),
    "NetStateRule.not_stage": (
        'net: "not_deep.prototxt" ' + BASE,
        'net: "not_deep.prototxt" ' + BASE + 'train_state { stage: "deep" }',
    ),
    "LayerParameter.include": (BENT_NET, 'net: "in_tests.prototxt" ' + BASE),
    "LayerParameter.exclude": (BENT_NET, 'net: "not_in_training.prototxt" ' + BASE),
}
NETS = {
    "plain": PLAIN,
    "bent": BENT,
    "deep": DEEP,
    "deep_state": net('include { stage: "deep" }', 'state { stage: "deep" }'),
    "from_level_0": net("include { min_level: 0 }"),
    "from_level_2": net("include { min_level: 2 }"),
    "to_level_0": net("include { max_level: 0 }"),
    "to_level_-1": net("include { max_level: -1 }"),
    "not_deep": net('include { not_stage: "deep" }'),
    "in_training": net("include { phase: TRAIN }"),
    "in_tests": net("include { phase: TEST }"),
    "not_in_training": net("exclude { phase: TRAIN }"),
}


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a solver of its own name beside all nets."""
    for name, text in NETS.items():
        (tmp_path / f"{name}.prototxt").write_text(text)

    def write(name: str, text: str) -> Path:
        length = "" if "max_iter" in text else "max_iter: 4"
        path = tmp_path / f"{name}.prototxt"
        path.write_text(f"{text} {length} random_seed: 7 solver_mode: CPU\n")
        return path

    return write


def prepared(solver: Path, **wishes: object) -> RunFolder:
    folder = RunFolder(solver.with_suffix(""))
    folder.path.mkdir()
    prepare(TrainRequest(solver=solver, **wishes), folder)
    return folder


def outcome_in_torch(folder: RunFolder) -> Outcome:
    solver = Solver(read_solver(folder.solver), read_net(folder.net))
    solver.step(solver.param.max_iter)
    blobs = [blob for blobs in solver.net.params.values() for blob in blobs]
    found = {f"data:{index}": blob.data.copy() for index, blob in enumerate(blobs)}
    for place, test_net in enumerate(solver.test_nets):
        test_net.share_with(solver.net)
        test_net.forward()
        found[f"test:{place}"] = test_net.blobs["loss"].data.copy()
    solver.close()
    return found


def are_alike(one: Outcome, other: Outcome) -> bool:
    return one.keys() == other.keys() and all(
        np.allclose(one[key], other[key], rtol=1e-4, atol=1e-6) for key in one
    )


@pytest.mark.real_caffe
@pytest.mark.parametrize("field", TWINS)
def test_what_a_field_changes_in_caffe_it_changes_here(field: str, make, caffe_solver) -> None:
    wanted = []
    for name, text in zip(("one", "other"), TWINS[field], strict=True):
        solver = make(name, text)
        steps = read_solver(solver).max_iter
        wanted.append(caffe_solver(solver, "outcome", steps=steps))
        folder = prepared(solver)
        ours = caffe_solver(folder.solver, "outcome", steps=steps)
        assert ours.keys() == wanted[-1].keys()
        assert all(np.array_equal(ours[key], wanted[-1][key]) for key in ours), "bit for bit"
        assert are_alike(outcome_in_torch(folder), wanted[-1])
    assert not are_alike(*wanted), "the twins differ in nothing that Caffe looks at"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BASE, "names no net to train"),
        (NET + 'train_net: "plain.prototxt" ' + BASE, "train_net and net"),
        (NET + TESTED + "test_iter: 1", "has 2 test nets"),
        ('train_net: "plain.prototxt" ' + TESTED, "0 test nets and 1 test_iter"),
        (NET + TESTED + "test_state {} test_state {}", "2 test_state for 1 test nets"),
        (NET + 'test_net: "plain.prototxt" ' + BASE, "1 test nets and 0 test_iter"),
        (NET + BASE + "train_state { phase: TEST }", "train_state asks for the phase TEST"),
        (NET + TESTED + "test_state { phase: TRAIN }", "test_state asks for the phase TRAIN"),
        ('net: "no.prototxt" ' + BASE, "neither here nor beside it"),
        (NET + BASE + 'type: "SGD" solver_type: ADAM', "both 'solver_type'"),
        (NET + BASE + "iter_size: 0", "iter_size is 0"),
        (NET + BASE + "average_loss: 0", "average_loss is 0"),
        ("net_param {} " + BASE, "its net_param holds no layer"),
    ],
)
def test_what_caffe_or_a_run_cannot_do_is_one_sentence(text: str, sentence: str, make) -> None:
    with pytest.raises(FormatError, match=sentence):
        prepared(make("solver", text))


def test_a_net_of_one_s_own_takes_the_place_of_all_that_the_solver_names(
    make, tmp_path: Path
) -> None:
    solver = make("solver", 'train_net: "deep.prototxt" test_net: "deep.prototxt" ' + TESTED)
    folder = prepared(solver, net=tmp_path / "bent.prototxt")
    assert read_net(folder.net) == read_net(tmp_path / "bent.prototxt")


def test_a_net_without_states_stays_as_it_is_in_its_file(make, tmp_path: Path) -> None:
    folder = prepared(make("solver", 'net: "in_tests.prototxt" ' + TESTED))
    assert read_net(folder.net) == read_net(tmp_path / "in_tests.prototxt")
