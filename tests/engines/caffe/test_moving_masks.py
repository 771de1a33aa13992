"""The worker's own copy of the rules, and its masks, without Caffe."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pycaffe_prune.engines.caffe.caffe_worker import moving_masks as worker
from pycaffe_prune.engines.caffe.caffe_worker.mask_state import read_mask_state, write_mask_state
from pycaffe_prune.pruning import dynamic_surgery, gradual

SHAPE = (5, 7)
# Few different values: equal magnitudes are what rules part on.
weights = arrays(np.float32, SHAPE, elements=st.integers(-6, 6).map(lambda value: value / 4))
masks = arrays(np.bool_, SHAPE)


@settings(max_examples=40)
@given(weights, masks, st.floats(0, 0.99))
def test_masks_shrink_as_in_pruning(blob, kept, share):
    before = kept.copy()
    ours = worker.shrunk(blob, kept, share)

    assert (ours == gradual.gradual_mask(blob, kept, share)).all()
    assert (kept == before).all()


@settings(max_examples=40)
@given(weights, masks, st.floats(-3, 3))
def test_surgery_is_that_of_pruning(blob, kept, c):
    limits = dynamic_surgery.surgery_limits(blob, c, kept)

    assert worker.surgery_limits(blob, c, kept) == limits
    ours = worker.operated(blob, kept, limits)
    assert (ours == dynamic_surgery.surgery_mask(blob, kept, limits)).all()


@given(*[st.integers(0, 2**63 - 1)] * 3)
def test_draws_are_those_of_pruning(seed, iteration, place):
    drawn = worker.surgery_draw(seed, iteration, place)

    assert drawn == dynamic_surgery.surgery_draw(seed, iteration, place)


def test_the_shares_are_those_of_the_schedule(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schedule = gradual.CubicSchedule(begin=3, every=4, changes=5)
    random = np.random.default_rng(0)
    blob = SimpleNamespace(
        data=random.normal(0, 1, (30, 40)).astype(np.float32), diff=np.zeros((30, 40), np.float32)
    )
    told = {"kind": "gradual", "begin": 3, "every": 4, "changes": 5, "initial": 0.1}
    told["blobs"] = [{"layer": "ip", "index": 0, "sparsity": 0.87}]
    job = {"masked": [], "masking": told, "seed": 1, "device": "cpu"}
    moving = worker.make_moving(SimpleNamespace(params={"ip": [blob]}), job)
    for iteration in range(30):
        moving.begin(iteration)
        gone = round(1200 * schedule.sparsity(iteration, 0.1, 0.87))
        assert np.count_nonzero(blob.data == 0) == gone


@settings(max_examples=20)
@given(st.lists(arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(1, 9))), max_size=3))
def test_masks_beside_a_snapshot_come_back(tmp_path_factory, kept):
    path = str(tmp_path_factory.mktemp("state") / "snapshot_iter_3")
    limits = [(np.float32(0.1) * place, np.float32(2)) for place in range(len(kept))]
    write_mask_state(path, kept, limits)
    found, bounds = read_mask_state(path)

    assert [mask.tolist() for mask in found] == [mask.tolist() for mask in kept]
    assert bounds == limits
