"""Solvers of our module: where Caffe would abort, and what they log beside the real ones."""

import os
import re
import runpy
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune import pycaffe as caffe
from pycaffe_prune.caffe_name.finder import installed
from pycaffe_prune.errors import FormatError, PruneError, SurgeryError
from pycaffe_prune.pycaffe import glog
from tests.pycaffe.helpers import small_nets

BASE = 'base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" max_iter: 4 '


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(glog._LEVEL, "least", 2)


def solver_file(settings: str, net: str = small_nets.NET) -> str:
    return small_nets.solver_file("solver.prototxt", settings, net)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ('net_param { name: "x" }', "specifies its train net by net and net_param; one is due"),
        ('test_net: "a" test_net: "b" test_iter: 1', "test_iter must be specified for each"),
        ("test_iter: 1", "test_interval is 0"),
        ("test_iter: 1 test_interval: 1 test_state {} test_state {}", "test_state must be"),
        ("average_loss: 0", "average_loss is 0"),
        ("iter_size: 0", "iter_size is 0"),
        ('snapshot: 1 snapshot_prefix: "nowhere/x"', "cannot write to snapshot prefix"),
        ("bas_lr: 0.1", "'bas_lr' .did you mean 'base_lr'.*Caffe does not know"),
        ('regularization_type: "L3" weight_decay: 1', "L3' is not known"),
        ('weights: "none.caffemodel"', "Could not open file none.caffemodel"),
    ],
)
def test_what_caffe_aborts_on_is_a_sentence(settings: str, sentence: str) -> None:
    with pytest.raises(PruneError, match=sentence):
        caffe.SGDSolver(solver_file(settings))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BASE, "must specify a train net"),
        (BASE + 'net: "missing.prototxt"', "missing.prototxt"),
        (BASE + 'net_param { layers { name: "x" } }', "net_param has layers, an old form"),
        (BASE + 'train_net_param { input: "x" }', "train_net_param has input, an old form"),
    ],
)
def test_a_solver_needs_its_net(text: str, sentence: str) -> None:
    with pytest.raises(PruneError, match=sentence):
        caffe.SGDSolver(small_nets.write("solver.prototxt", text))


def test_a_policy_is_looked_at_when_it_is_used() -> None:
    solver = caffe.SGDSolver(solver_file('lr_policy: "none"'))
    small_nets.feed(solver.net)
    for use in (lambda: solver.lr, lambda: solver.step(1), solver.apply_update):
        with pytest.raises(FormatError, match="lr_policy 'none' is not known"):
            use()


def test_types_are_those_of_caffe() -> None:
    with pytest.raises(PruneError, match="type 'Rprop' is not known; use one of SGD, Nesterov"):
        caffe.get_solver(solver_file(BASE + 'type: "Rprop"'))
    with pytest.raises(RuntimeError, match="cannot be instantiated"):
        caffe._caffe.Solver(solver_file(BASE))
    with pytest.raises(FormatError, match="AdaGrad takes no momentum"):
        caffe.AdaGradSolver(solver_file(BASE))


def test_a_snapshot_of_another_solver_is_refused() -> None:
    sgd = caffe.SGDSolver(solver_file(BASE + 'snapshot_prefix: "sgd"'))
    sgd.snapshot()
    adam = caffe.AdamSolver(solver_file(BASE))
    before = small_nets.params(adam.net)
    with pytest.raises(SurgeryError, match="history of 4 blobs, the solver needs 8"):
        adam.restore("sgd_iter_0.solverstate")
    assert np.array_equal(small_nets.params(adam.net), before)
    Path("sgd_iter_0.caffemodel").unlink()
    with pytest.raises(FormatError, match=r"weights 'sgd_iter_0.caffemodel' are not there"):
        sgd.restore("sgd_iter_0.solverstate")


def test_the_same_seed_gives_the_same_weights() -> None:
    file = solver_file(BASE + "random_seed: 3", small_nets.NET.replace(*FILLED))
    one, other = (small_nets.params(caffe.SGDSolver(file).net) for _ in range(2))
    assert np.array_equal(one, other)
    assert one.any()
    changed = solver_file(BASE + "random_seed: 4", small_nets.NET.replace(*FILLED))
    assert not np.array_equal(one, small_nets.params(caffe.SGDSolver(changed).net))


FILLED = ("num_output: 4", 'num_output: 4 weight_filler { type: "xavier" }')


def test_nccl_is_refused() -> None:
    solver = caffe.SGDSolver(solver_file(BASE))
    with pytest.raises(PruneError, match="there is no NCCL here"):
        solver.add_callback(lambda: None)


def test_a_python_layer_of_the_script_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("own_layer.py").write_text(
        "from pycaffe_prune import pycaffe as caffe\n"
        "class Twice(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)\n"
        "    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data\n"
        "    def backward(self, top, down, bottom): bottom[0].diff[...] = 2 * top[0].diff\n"
    )
    monkeypatch.syspath_prepend(".")
    twice = 'layer { name: "t" type: "%s" bottom: "conv" top: "t" %s }'
    python = twice % ("Python", 'python_param { module: "own_layer" layer: "Twice" }')
    power = twice % ("Power", "power_param { scale: 2 }")
    found = []
    for layer in (python, power):
        net = small_nets.NET.replace('bottom: "conv" top: "fc"', 'bottom: "t" top: "fc"')
        net = net.replace('layer { name: "fc"', layer + ' layer { name: "fc"')
        solver = caffe.SGDSolver(solver_file(BASE, net))
        small_nets.fill(solver.net)
        small_nets.feed(solver.net)
        solver.step(3)
        found.append(small_nets.params(solver.net))
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)


# What is logged

SCRIPT = """
import caffe
from small_nets import NET, feed, fill, solver_file, write
solver = caffe.SGDSolver(solver_file("logged", '''base_lr: 0.1 momentum: 0.9 max_iter: 7 display: 2
    lr_policy: "multistep" gamma: 0.5 stepvalue: 3 average_loss: 3 test_interval: 3
    test_iter: 2 test_iter: 1 test_compute_loss: true snapshot: 4 snapshot_prefix: "logged"
    snapshot_format: HDF5 debug_info: true'''))
fill(solver.net)
for net in [solver.net] + list(solver.test_nets):
    feed(net)
solver.solve()
solver.step(2)
told = "debug_info: true force_backward: true " + NET.replace("{ lr_mult: 1 }", '{ name: "w" }')
net = caffe.Net(write("told.net", told), caffe.TRAIN)
fill(net)
feed(net)
net.forward()
net.blobs["loss"].diff[...] = 2
net.backward(end="fc")
"""
SETTING_UP = ("Initializing solver", "Creating ", "Solver scaffolding", "Solver ")
_LINE = re.compile(
    r"[IWE]\d{4} [\d:.]+ +\d+ (?:sgd_)?(?:solver|scores|solver_files)\.(?:cpp|py):\d+\] (.*)"
    r"|[IWE]\d{4} [\d:.]+ +\d+ (?:net\.cpp|debug_info\.py):\d+\] ( +\[.*)"
)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@pytest.mark.real_caffe
def test_the_log_is_caffes(
    caffe_python: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers = str(Path(small_nets.__file__).parent)
    Path("script.py").write_text(SCRIPT)
    code = f"import sys, runpy; sys.path.insert(0, {helpers!r}); runpy.run_path('script.py')"
    done = subprocess.run(
        [caffe_python, "-c", code],
        env={name: value for name, value in os.environ.items() if not name.startswith("GLOG")},
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    monkeypatch.syspath_prepend(helpers)
    caffe.init_log(0)
    with installed():
        runpy.run_path("script.py")
    theirs, ours = (lines(text) for text in (done.stderr, capsys.readouterr().err))
    assert [line for line, _ in ours] == [line for line, _ in theirs]
    for (line, found), (_, wanted) in zip(ours, theirs, strict=True):
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-5), line


def lines(text: str) -> list[tuple[str, list[float]]]:
    """The solver's lines after it was set up, with and without their numbers, but times."""
    found = []
    for match in _LINE.finditer(text):
        line = re.sub(r"\(\S+ iter/s, \S+s/", "(", match[1] or match[2])
        if not line.startswith(SETTING_UP):
            found.append((_NUMBER.sub("N", line), [float(n) for n in _NUMBER.findall(line)]))
    return found


def test_levels_and_words_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    caffe.init_log(1, True)
    caffe.log("not told")
    glog.error("an error")
    caffe.init_log()
    caffe.log("told")
    told = capsys.readouterr().err.splitlines()
    assert [re.sub(r"^(.).*\] ", r"\1 ", line) for line in told] == ["E an error", "I told"]
    assert re.match(r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ test_solvers.py:\d+\] told$", told[1])
