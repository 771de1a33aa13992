"""Runs with a teacher: what a job carries, resuming, and what does not go together."""

import shutil
from pathlib import Path

import pytest

from pycaffe_prune.engines.distillation import DISTILLED, TeacherWish
from pycaffe_prune.engines.job import Job, TrainRequest
from pycaffe_prune.engines.prepare import prepare
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import EngineError, PruneError
from pycaffe_prune.formats.caffemodel import read_caffemodel
from tests.engines.conftest import NET

TEACHER = NET.format(batch=8, transform="", test_transform="", dropout="")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, digits, torch_engine) -> TeacherWish:
    """The small net with more units, trained for a moment."""
    folder = tmp_path_factory.mktemp("teacher")
    (folder / "net.prototxt").write_text(TEACHER.replace("num_output: 20", "num_output: 40"))
    solver = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 40'
    (folder / "solver.prototxt").write_text(f"{solver} test_iter: 3 test_interval: 100")
    request = TrainRequest(solver=folder / "solver.prototxt", data=digits, seed=2)
    train(request, folder / "run", torch_engine, lambda _: None)
    return TeacherWish(folder / "net.prototxt", folder / "run" / "final.caffemodel", 3.0, 0.7)


def test_a_run_with_a_teacher_goes_on_to_the_same_bits(
    tmp_path, request_for, teacher, torch_engine
):
    asked = {"teacher": teacher, "max_iter": 20, "test_interval": 0, "checkpoints": (10,)}
    asked |= {"keep_snapshots": True, "snapshot": 0}
    seen = []
    whole = train(request_for(**asked), tmp_path / "whole", torch_engine, seen.append)
    losses = [event.loss for event in seen if event.event == "progress"]
    assert losses[-1] > 0

    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    left = RunFolder(tmp_path / "killed")
    for path in (left.result, left.final_weights, left.snapshots / "snapshot_iter_20.solverstate"):
        path.unlink()
    again = train(request_for(**asked), tmp_path / "killed", torch_engine, lambda _: None)
    assert again.weights_sha256 == whole.weights_sha256

    plain = train(
        request_for(**asked | {"teacher": None}), tmp_path / "plain", torch_engine, lambda _: None
    )
    assert plain.weights_sha256 != whole.weights_sha256
    layers = [layer.name for layer in read_caffemodel(left.final_weights).layers]
    plain_layers = read_caffemodel(tmp_path / "plain" / "final.caffemodel").layers
    assert layers == [layer.name for layer in plain_layers]  # a stock model, nothing of a teacher


def test_a_job_carries_the_teacher_wherever_its_weights_lie(tmp_path, request_for, teacher):
    folder = RunFolder(tmp_path / "run")
    job = prepare(request_for(teacher=teacher), folder)
    assert Job.model_validate_json(folder.job.read_bytes()) == job
    assert dict(job.losses) == {"loss": pytest.approx(0.3), DISTILLED: 1.0}
    moved = tmp_path / "moved.caffemodel"
    shutil.copy(teacher.weights, moved)
    prepare(request_for(teacher=TeacherWish(teacher.net, moved, 3.0, 0.7)), folder)
    for other in (None, TeacherWish(teacher.net, moved, 3.0, 0.6)):
        with pytest.raises(PruneError, match=r"holds another run: .*taught by \{'net_sha256'"):
            prepare(request_for(teacher=other), folder)


def test_caffe_refuses_it(tmp_path, request_for, teacher, caffe_engine):
    with pytest.raises(EngineError, match="Caffe has no layer for that; use --engine torch"):
        train(request_for(teacher=teacher), tmp_path / "run", caffe_engine, lambda _: None)


@pytest.mark.parametrize(
    ("part", "other", "sentence"),
    [
        ("num_output: 10", "num_output: 9", r"scores 'ip2' are 64x9, the student's 'ip2' 64x10"),
        ("scale: 0.00390625", "scale: 1", "knows 'data' with scale 1, the student brings it with"),
        ('"data"', '"image"', "reads the blob 'image', which the student's training data do not"),
        ('name: "ip1"', 'name: "fc1"', "teacher .*final.caffemodel: .*fc1"),
        ('"SoftmaxWithLoss"', '"HingeLoss"', None),
        (
            'layer { name: "relu1"',
            'layer { name: "s" type: "Softmax" bottom: "ip1" top: "s" } layer { name: "relu1"',
            "which blob has the teacher's scores is not clear: ip1, ip2; give a net with one",
        ),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    tmp_path, request_for, teacher, part, other, sentence
):
    (tmp_path / "net.prototxt").write_text(teacher.net.read_text().replace(part, other))
    request = request_for(teacher=TeacherWish(tmp_path / "net.prototxt", teacher.weights))
    if sentence is None:
        prepare(request, RunFolder(tmp_path / "run"))
        return
    with pytest.raises(PruneError, match=sentence):
        prepare(request, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("part", "other", "sentence"),
    [
        ('"SoftmaxWithLoss"', '"HingeLoss"', "one SoftmaxWithLoss in its training.*: none"),
        (
            'top: "loss"',
            'top: "loss" loss_param { ignore_label: 3 }',
            "layer 'loss': .* take ignore_label",
        ),
    ],
)
def test_a_student_that_cannot_be_taught_is_refused(
    tmp_path, request_for, make_solver, teacher, part, other, sentence
):
    solver = make_solver()
    net: Path = solver.parent / "net.prototxt"
    net.write_text(net.read_text().replace(part, other))
    with pytest.raises(PruneError, match=sentence):
        prepare(request_for(solver, teacher=teacher), RunFolder(tmp_path / "run"))
