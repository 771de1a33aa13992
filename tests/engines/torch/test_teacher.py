"""A teacher's part of the loss: its formula, its gradient, and whole nets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pycaffe_prune.engines.data_shapes import data_shapes
from pycaffe_prune.engines.distillation import DISTILLED, TeacherWish, plan_distillation
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.pack import pack_key
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.engines.torch.teacher import soft_loss
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN
from pycaffe_prune.net.graph import NetState, layers_in_state
from tests.engines.torch.training_nets import make_solver, small_net

SETTINGS = 'lr_policy: "fixed" momentum: 0.9 iter_size: 2'
scores = arrays(np.float64, (3, 4, 2), elements=st.floats(-6, 6))


@settings(max_examples=20)
@given(scores, scores, st.floats(0.5, 8))
def test_the_gradient_is_that_of_the_formula_by_finite_differences(mine, theirs, temperature):
    student, teacher = torch.from_numpy(mine.copy()), torch.from_numpy(theirs)
    loss, gradient = soft_loss(student, teacher, temperature, 1)

    p, q = ((values / temperature).softmax(1) for values in (teacher, student))
    written = temperature**2 * (p * (p / q).log()).sum() / (3 * 2)
    assert loss.item() == pytest.approx(written.item(), abs=1e-9)
    assert loss.item() >= -1e-12
    step = 1e-5
    for place in ((0, 0, 0), (1, 3, 1), (2, 2, 0)):
        losses = []
        for sign in (1, -1):
            moved = student.clone()
            moved[place] += sign * step
            losses.append(soft_loss(moved, teacher, temperature, 1)[0].item())
        slope = (losses[0] - losses[1]) / (2 * step)
        assert gradient[place].item() == pytest.approx(slope, abs=1e-7)


@pytest.fixture(scope="module")
def teacher(digits: Path, tmp_path_factory) -> tuple[Path, Path]:
    """A net with Dropout and BatchNorm, and its weights after a short training."""
    folder = tmp_path_factory.mktemp("teacher")
    net = small_net(digits, normalized=True, dropout=True)
    (folder / "net.prototxt").write_text(text_format.MessageToString(net))
    solver = make_solver(net, SETTINGS, seed=7)
    solver.step(20)
    solver.net.save(folder / "teacher.caffemodel")
    solver.close()
    return folder / "net.prototxt", folder / "teacher.caffemodel"


def taught(digits: Path, teacher: tuple[Path, Path], mix: float, temperature: float = 3) -> Solver:
    net = small_net(digits)
    solver = make_solver(net, SETTINGS)
    layers = layers_in_state(net, NetState(TRAIN))
    wish = TeacherWish(*teacher, temperature=temperature, mix=mix)
    told, teacher_net = plan_distillation(wish, layers, data_shapes(layers), trust=True)
    solver.learn_from(teacher_net, told)
    return solver


def test_without_a_share_the_run_is_the_plain_one_bit_for_bit(digits, teacher):
    plain, none, half = (
        make_solver(small_net(digits), SETTINGS),
        taught(digits, teacher, 0),
        taught(digits, teacher, 0.5),
    )
    for solver in (plain, none, half):
        solver.step(5)
    data = [solver.net.parameters.data for solver in (plain, none, half)]
    assert torch.equal(data[0].view(torch.int32), data[1].view(torch.int32))
    assert not torch.equal(data[0], data[2])
    assert pack_key(plain)
    assert pack_key(half) is None


def loss_of(net: Net) -> float:
    net.parameters.diff.zero_()
    net.compute()
    return float(0.3 * net.blobs["loss"].data.sum() + net.blobs[DISTILLED].data.sum())


def test_the_gradient_of_the_whole_loss_is_that_of_finite_differences(digits, teacher):
    solver = taught(digits, teacher, 0.7)
    net = solver.net
    net.fetch()
    for key, place in ((("ip2", 0), 17), (("ip2", 1), 3), (("conv", 0), 40)):
        loss_of(net)
        gradient = net.parameters.view(net.parameters.diff, key).view(-1)[place].item()
        weights = net.parameters.view(net.parameters.data, key).view(-1)
        before, losses = weights[place].item(), []
        for sign in (1, -1):
            weights[place] = before + sign * 1e-2
            losses.append(loss_of(net))
        weights[place] = before
        assert gradient == pytest.approx((losses[0] - losses[1]) / 2e-2, rel=2e-2, abs=1e-4)
    solver.close()


def test_the_teacher_is_in_the_phase_test_and_reads_the_students_batch(digits, teacher):
    solver = taught(digits, teacher, 1, temperature=2)
    solver.net.fetch()
    solver.net.compute()
    batch, student = (solver.net.blobs[name].tensor for name in ("data", "ip2"))

    alone = Net(small_net(digits, normalized=True, dropout=True), NetState(TEST))
    alone.copy_from(teacher[1])
    alone.use_value("data", batch)
    alone.compute_forward()
    loss, _ = soft_loss(student, alone.value("ip2"), 2, 1)
    assert solver.net.blobs[DISTILLED].data == pytest.approx(loss.item(), rel=1e-6)
    alone.close()
    solver.close()


def test_a_student_that_is_its_own_teacher_has_nothing_to_learn(digits, tmp_path):
    solver = make_solver(small_net(digits), SETTINGS)
    solver.net.save(tmp_path / "own.caffemodel")
    (tmp_path / "net.prototxt").write_text(text_format.MessageToString(small_net(digits)))
    solver.close()
    alone = taught(digits, (tmp_path / "net.prototxt", tmp_path / "own.caffemodel"), 1)
    alone.net.copy_from(tmp_path / "own.caffemodel")
    alone.net.fetch()
    alone.net.compute()
    assert abs(float(alone.net.blobs[DISTILLED].data)) < 1e-6
    assert float(alone.net.parameters.diff.abs().max()) < 1e-6
    alone.close()
