"""The worker's arithmetic, without Caffe: which bits are zeroed."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pycaffe_prune.engines.caffe.caffe_worker import loop
from pycaffe_prune.engines.caffe.caffe_worker.masks import Masks
from pycaffe_prune.engines.caffe.caffe_worker.snapshots import require_whole
from pycaffe_prune.engines.resolved_solver import solver_settings
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.prototxt import read_solver


@given(
    values=arrays(np.float32, (4, 3), elements=st.floats(width=32)),
    mask=arrays(np.bool_, (4, 3)),
)
def test_masked_values_become_plus_zero_and_kept_ones_keep_their_bits(
    tmp_path_factory, values, mask
):
    folder = tmp_path_factory.mktemp("mask")
    np.savez(folder / "mask.npz", m0=mask)
    blob = SimpleNamespace(data=values.copy(), diff=values.copy())
    net = SimpleNamespace(params={"ip": [blob]})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        masks = Masks(net, {"masked": [["ip", 0]], "device": "cpu"})
    masks.zero_weights()
    masks.zero_gradients()
    for array in (blob.data, blob.diff):
        bits, before = array.view(np.int32), values.view(np.int32)
        assert (bits[~mask] == 0).all()
        assert (bits[mask] == before[mask]).all()
    assert masks.revived() == 0


def test_a_masked_weight_that_came_back_is_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("mask.npz", m0=np.array([True, False, False]))
    blob = SimpleNamespace(data=np.ones(3, np.float32), diff=np.ones(3, np.float32))
    masks = Masks(SimpleNamespace(params={"ip": [blob]}), {"masked": [["ip", 0]], "device": "cpu"})
    assert masks.revived() == 2


def test_a_message_that_is_cut_off_ends_the_worker(tmp_path):
    path, layer = tmp_path / "a.caffemodel", LayerParameter(name="ip", type="InnerProduct")
    blobs = (np.ones((5, 300), np.float32), np.ones(5, np.float32))
    write_caffemodel(path, Caffemodel((Layer(layer, blobs),)))
    require_whole(path)
    whole = path.read_bytes()
    for length in {*range(0, len(whole), 61), len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(SystemExit, match="could not be written whole"):
            require_whole(path)


_POLICIES = {
    "fixed": "",
    "step": "gamma: 0.5 stepsize: 7",
    "multistep": "gamma: 0.5 stepvalue: 5 stepvalue: 9 stepvalue: 30",
    "exp": "gamma: 0.97",
    "inv": "gamma: 0.01 power: 0.75",
    "poly": "power: 1.5",
    "sigmoid": "gamma: 0.2 stepsize: 20",
}

_ASK_FOR_RATES = """
import sys, caffe
caffe.set_mode_cpu()
solver = caffe.get_solver(sys.argv[1])
for _ in range(40):
    print(repr(float(solver.lr)))
    solver.step(1)
"""


@pytest.mark.real_caffe
@pytest.mark.parametrize("policy", sorted(_POLICIES))
def test_the_learning_rate_is_the_solvers(policy, caffe_python: Path, tmp_path):
    (tmp_path / "net.prototxt").write_text("""
        layer { name: "d" type: "DummyData" top: "d" top: "t"
          dummy_data_param { shape { dim: 1 dim: 2 } data_filler { value: 0.5 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "d" top: "ip"
          inner_product_param { num_output: 2 } }
        layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "t" top: "loss" }
    """)
    solver = tmp_path / "solver.prototxt"
    solver.write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.01 max_iter: 40 snapshot_prefix: "x" '
        f'snapshot_after_train: false lr_policy: "{policy}" {_POLICIES[policy]}'
    )
    script = tmp_path / "rates.py"
    script.write_text(_ASK_FOR_RATES)
    printed = subprocess.run(
        [caffe_python, script, solver], capture_output=True, text=True, check=True
    ).stdout
    settings = solver_settings(read_solver(solver)).model_dump()
    ours = [loop.learning_rate(settings, iteration) for iteration in range(40)]
    np.testing.assert_allclose(ours, [float(line) for line in printed.split()], rtol=2e-6)


class _SlowSolver:
    """A solver without a net to test; the clock goes on by a second an iteration."""

    def __init__(self, clock):
        self.net = SimpleNamespace(blobs={"loss": SimpleNamespace(data=np.zeros(1))})
        self._clock = clock

    def step(self, iterations):
        self._clock[0] += iterations


@pytest.mark.parametrize(
    ("keep", "seconds", "taken"),
    [
        (False, 0, [61, 122, 183, 200]),
        (False, 5, [61, 162, 200]),  # 20 times 5 seconds after the first one's end
        (True, 0, [200]),
    ],
)
def test_snapshots_come_by_the_clock_and_seldom_where_they_cost_much(
    monkeypatch, keep, seconds, taken
):
    clock = [1000.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(loop._Rate, "chunk", lambda _: 1)
    job = {
        "max_iter": 200,
        "snapshot": 1000,
        "display": 0,
        "test_interval": 0,
        "batch": 1,
        "checkpoints": [],
        "keep_snapshots": keep,
        "losses": [["loss", 1.0]],
        "solver": {"lr_policy": "fixed", "base_lr": 0.1, "gamma": 0, "power": 0},
    }
    found = []

    def snapshot(iteration):
        found.append(iteration)
        clock[0] += seconds

    loop.run(_SlowSolver(clock), [], job, 0, lambda **_: None, snapshot)
    assert found == taken
