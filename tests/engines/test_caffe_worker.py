"""The worker's arithmetic, without Caffe: which answers are right, which bits are zeroed."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pycaffe_prune.engines.caffe_worker import loop, testing
from pycaffe_prune.engines.caffe_worker.masks import Masks
from pycaffe_prune.engines.prepare import solver_settings
from pycaffe_prune.formats.prototxt import read_solver

SCORES = st.floats(-1e4, 1e4, width=32)


@given(
    scores=arrays(np.float32, (7, 4), elements=SCORES),
    labels=arrays(np.int64, 7, elements=st.integers(0, 3)),
)
def test_an_answer_is_right_when_no_other_score_reaches_the_true_one(scores, labels):
    right, loss, finite = testing.judge(scores, labels)
    expected = sum(
        all(row[label] > other for place, other in enumerate(row) if place != label)
        for row, label in zip(scores, labels, strict=True)
    )
    assert (right.sum(), finite) == (expected, True)
    assert loss >= 0


def test_equal_scores_are_wrong_and_cost_the_logarithm_of_the_classes():
    right, loss, finite = testing.judge(np.zeros((3, 10), np.float32), np.array([0, 4, 9]))
    assert (right.sum(), finite) == (0, True)
    assert loss == pytest.approx(3 * np.log(10))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_never_right(bad):
    scores = np.zeros((2, 3), np.float32)
    scores[:, 1] = 5
    scores[0, 2] = bad
    right, loss, finite = testing.judge(scores, np.array([1, 1]))
    assert (right.tolist(), finite) == ([False, True], False)
    assert np.isnan(loss)


def test_a_hopeless_score_costs_no_more_than_caffes_smallest_probability():
    scores = np.array([[1000.0, 0.0]], np.float32)
    _, loss, _ = testing.judge(scores, np.array([1]))
    assert loss == pytest.approx(-np.log(np.finfo(np.float32).tiny))


class _Net:
    """A test net whose scores come in batches from a ring of images."""

    def __init__(self, scores, labels, batch):
        self._ring, self._batch, self._at = (scores, labels), batch, 0
        self.blobs = {"s": SimpleNamespace(data=None), "l": SimpleNamespace(data=None)}

    def forward(self):
        places = np.arange(self._at, self._at + self._batch) % len(self._ring[1])
        self._at += self._batch
        self.blobs["s"].data = self._ring[0][places]
        self.blobs["l"].data = self._ring[1][places].astype(np.float32)


@given(
    images=st.integers(1, 40),
    batch=st.integers(1, 17),
    seed=st.integers(0, 99),
    more=st.integers(1, 99),
)
def test_each_image_counts_once_whatever_the_batch_and_wherever_the_cursor_is(
    images, batch, seed, more
):
    random = np.random.default_rng(seed)
    scores = random.normal(size=(images, 5)).astype(np.float32)
    labels = random.integers(0, 5, images)
    whole = testing.judge(scores, labels)
    job = {"test_images": images, "scores_blob": "s", "label_blob": "l"}
    tester = testing.Tester(_Net(scores, labels, batch), job)
    job = job | {"cycled_images": images + more}
    cycling = testing.Tester(_Net(scores, labels, batch), job)
    round_and_round = [whole[0][place % images] for place in range(images + more)]
    for _ in range(3):
        found = tester.run()
        assert (found["images"], found["correct"]) == (images, whole[0].sum())
        assert found["loss"] == pytest.approx(whole[1] / images)
        both = cycling.run()
        assert both == found | {
            "cycled": sum(round_and_round) / (images + more),
            "cycled_images": images + more,
        }


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
    monkeypatch.setattr(loop.time, "time", lambda: clock[0])
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

    loop.run(_SlowSolver(clock), None, job, 0, lambda **_: None, snapshot)
    assert found == taken
