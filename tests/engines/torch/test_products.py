"""Which way masked layers are computed: measured once, noted, followed."""

import json

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from pycaffe_prune.engines.torch import products
from pycaffe_prune.engines.torch.products import Product, maskable, read_products, write_products
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from tests.engines.torch.training_nets import make_solver, small_net


@pytest.fixture
def solver(digits, monkeypatch, tmp_path) -> Solver:
    monkeypatch.setenv("PYCAFFE_PRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(products, "_LEAST", 400)  # ip2 has 200 weights
    made = make_solver(small_net(digits))
    shape = made.net.params["ip1"][0].shape
    mask = np.random.default_rng(0).random(shape) < 0.1
    made.mask({("ip1", 0): mask, ("ip2", 0): np.zeros((10, 20), np.bool_)})
    return made


def times_of(monkeypatch, *times: float) -> list:
    asked = []

    def least_times(trials) -> dict:
        asked.append(trials)
        return dict(zip(("dense", "live", "sparse"), times, strict=True))

    monkeypatch.setattr(products, "_least_times", least_times)
    return asked


def test_each_way_is_measured_and_the_note_is_followed(solver, monkeypatch):
    (first,) = solver.measured_products()
    assert first.layer == "ip1"
    assert all(0 < first.milliseconds[way] < 1000 for way in ("dense", "live", "sparse"))
    asked = times_of(monkeypatch, 1, 2, 3)
    assert solver.measured_products() == (first,)
    assert not asked


@pytest.mark.parametrize(
    ("times", "way"),
    [
        ((1, 2, 3), "dense"),
        ((1, 0.99, 0.985), "dense"),
        ((1, 0.9, 0.8), "sparse"),
        ((1, 0.5, 0.6), "live"),
    ],
)
def test_the_fastest_way_is_taken_where_it_gains_something(solver, monkeypatch, times, way):
    times_of(monkeypatch, *times)
    (product,) = solver.measured_products()
    assert product.way == way
    assert "layer 'ip1'" in product.told
    assert f"live {times[1]:.3f}" in product.told


def test_what_decides_a_time_is_part_of_its_note(solver, digits, monkeypatch):
    asked = times_of(monkeypatch, 1, 2, 3)
    solver.measured_products()
    solver.measured_products()
    assert len(asked) == 1
    mask = np.ones(solver.net.params["ip1"][0].shape, np.bool_)
    mask[0, 0] = False
    solver.mask({("ip1", 0): mask})
    solver.measured_products()
    assert len(asked) == 2
    adam = make_solver(small_net(digits), 'type: "Adam" momentum: 0.9 lr_policy: "fixed"')
    adam.mask({("ip1", 0): mask})
    adam.measured_products()
    assert len(asked) == 3


def test_notes_that_cannot_be_read_or_written_are_passed_over(solver, monkeypatch, tmp_path):
    asked = times_of(monkeypatch, 1, 2, 3)
    (tmp_path / "cache").mkdir()
    notes = tmp_path / "cache" / "products.jsonl"
    notes.write_text('{"case": "cut o')
    solver.measured_products()
    notes.unlink()
    notes.mkdir()
    assert [product.way for product in solver.measured_products()] == ["dense"]
    assert len(asked) == 2


def test_of_two_notes_the_first_counts(solver, monkeypatch, tmp_path):
    times_of(monkeypatch, 1, 2, 3)
    solver.measured_products()
    notes = tmp_path / "cache" / "products.jsonl"
    other = json.loads(notes.read_text())
    other["products"][0]["way"] = "sparse"
    notes.write_text(notes.read_text() + json.dumps(other) + "\n")
    assert [product.way for product in solver.measured_products()] == ["dense"]


def test_the_run_is_that_of_a_solver_that_measured_nothing(solver, digits):
    shape = solver.net.params["ip1"][0].shape
    mask = np.random.default_rng(0).random(shape) < 0.1

    def stepped(*, measuring: bool) -> list[torch.Tensor]:
        made = make_solver(small_net(digits, normalized=True, dropout=True))
        made.mask({("ip1", 0): mask})
        made.step(2)
        if measuring:
            assert len(made.measured_products()) == 1
        made.step(3)
        return [made.net.parameters.data, *made.update.history]

    pairs = zip(stepped(measuring=True), stepped(measuring=False), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_a_net_that_writes_a_file_is_not_run_for_it(solver, digits, monkeypatch, tmp_path):
    asked = times_of(monkeypatch, 1, 2, 3)
    solver.measured_products()
    assert len(asked) == 1
    net = small_net(digits)
    net.layer.add(name="out", type="HDF5Output", bottom=["ip1", "label"])
    net.layer[-1].hdf5_output_param.file_name = str(tmp_path / "out.h5")
    writing = make_solver(net)
    writing.mask({("ip1", 0): np.zeros(solver.net.params["ip1"][0].shape, np.bool_)})
    assert writing.measured_products() == ()
    assert len(asked) == 1


def test_layers_without_masks_and_with_all_kept_are_not_measured(solver):
    solver.mask({("ip1", 0): np.ones(solver.net.params["ip1"][0].shape, np.bool_)})
    assert solver.measured_products() == ()


NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 6 } shape { dim: 4 } } }
layer { name: "shared" type: "InnerProduct" bottom: "data" top: "a" param { name: "w" }
  inner_product_param { num_output: 6 } }
layer { name: "sharing" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
  inner_product_param { num_output: 6 } }
layer { name: "transposed" type: "InnerProduct" bottom: "b" top: "c"
  inner_product_param { num_output: 6 transpose: true } }
layer { name: "own" type: "InnerProduct" bottom: "c" top: "d"
  inner_product_param { num_output: 3 } }
layer { name: "aside" type: "InnerProduct" bottom: "c" top: "e"
  inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "d" bottom: "label" top: "loss" }
"""


def test_shared_and_transposed_weights_and_those_without_gradient_stay_dense():
    net = text_format.Parse(NET, NetParameter())
    assert set(maskable(make_solver(net).net)) == {("own", 0)}


def test_what_was_written_is_read_and_damage_is_told(tmp_path):
    path = tmp_path / "products.json"
    told = (Product(layer="ip1", way="live", milliseconds={"dense": 0.3, "live": 0.2}),)
    write_products(path, told)
    assert read_products(path) == told
    path.write_text(path.read_text()[:-9])
    with pytest.raises(EngineError, match=r"products\.json: .* damaged"):
        read_products(path)
