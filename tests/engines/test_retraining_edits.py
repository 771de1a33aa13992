"""What `pruning.retraining` writes is what the engines, the real Caffe among them, make of it."""

import numpy as np

from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net, read_solver, write_prototxt
from pycaffe_prune.pruning.retraining import training_only, with_decay, with_rate


def ignore(event):
    """An observer that looks away."""


def test_fixed_layers_keep_their_bits_and_the_others_go_a_tenth_as_far(
    engine, request_for, make_solver, tmp_path
):
    solver = make_solver(settings="base_lr: 0.1")
    first = train_at(engine, request_for(solver, max_iter=0), tmp_path / "first")
    write_caffemodel(tmp_path / "w.caffemodel", first)
    started = {"max_iter": 1, "weights": tmp_path / "w.caffemodel"}
    whole = train_at(engine, request_for(solver, **started), tmp_path / "whole")

    path = solver.parent / "net.prototxt"
    write_prototxt(path, training_only(read_net(path), ["ip1"], first))

    slower = with_decay(with_rate(read_solver(solver), 0.1), "L2", 0.0005)
    write_prototxt(solver, slower)
    part = train_at(engine, request_for(solver, **started), tmp_path / "part")

    for index in (0, 1):
        was, far, near = (model.layer("ip1").blobs[index] for model in (first, whole, part))
        assert (far != was).any()
        np.testing.assert_allclose(near - was, 0.1 * (far - was), rtol=1e-2, atol=1e-6)
        fixed = [model.layer("ip2").blobs[index] for model in (first, part, whole)]
        np.testing.assert_array_equal(fixed[0], fixed[1])
        assert (fixed[0] != fixed[2]).any()


def test_an_l1_penalty_takes_the_same_off_every_weight(engine, request_for, make_solver, tmp_path):
    solver = make_solver(settings="base_lr: 0.1")
    plain, lasso = (with_decay(read_solver(solver), "L1", decay) for decay in (0, 0.01))
    found = []
    for name, changed in [("plain", plain), ("lasso", lasso)]:
        write_prototxt(solver, changed)
        found.append(train_at(engine, request_for(solver, max_iter=1), tmp_path / name))
    first = train_at(engine, request_for(solver, max_iter=0), tmp_path / "first")
    was, without, with_it = (model.layer("ip1").blobs[0] for model in (first, *found))
    np.testing.assert_allclose(with_it - without, -0.1 * 0.01 * np.sign(was), atol=1e-6)


def train_at(engine, request, place):
    train(request, place, engine, ignore)
    return read_caffemodel(RunFolder(place).final_weights)
