"""The laws of both engines: exact masks, exact resume, errors in words."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from pycaffe_prune.engines.base import read_result
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.prepare import prepare, prepare_evaluation
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import EngineError, InterruptedRunError, PruneError
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.files import sha256_of, write_text
from pycaffe_prune.formats.lmdb_images import stored_images
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.formats.right_answers import unpack_answers
from pycaffe_prune.formats.solverstate import read_solverstate
from pycaffe_prune.pruning.connections import nonzero_where_masked
from pycaffe_prune.reports.outputs.tensorboard import scalars


def ignore(event):
    """An observer that looks away."""


def test_the_final_score_is_the_accuracy_layers_and_the_loss_layers(
    tmp_path, request_for, digits, engine
):
    result = train(request_for(), tmp_path / "run", engine, ignore)
    final = read_caffemodel(tmp_path / "run" / "final.caffemodel")
    assert [test.iteration for test in result.tests] == [0, 100, 200]
    assert result.final_test.images == 297
    assert result.final_test.correct == round(result.final_test.accuracy * 297)
    assert result.final_test.accuracy > 0.7 > result.tests[0].accuracy
    folder = RunFolder(tmp_path / "again")
    job = prepare_evaluation(
        tmp_path / "run" / "net.prototxt", [tmp_path / "run" / "final.caffemodel"], digits, folder
    )
    (again,) = engine.evaluate(folder, job)
    assert (again.correct, again.images) == (result.final_test.correct, 297)
    assert again.loss == pytest.approx(result.final_test.loss, rel=1e-6)
    assert [test.right_answers is None for test in result.tests] == [True, True, False]
    assert again.right_answers is None
    found = unpack_answers(result.final_test.right_answers or "", 297)
    assert found.tolist() == _answers(final, digits / "mnist_test_lmdb").tolist()
    assert [blob.shape for _, blob in final.blobs()] == [(20, 784), (20,), (10, 20), (10,)]


def _answers(model: Caffemodel, lmdb: Path) -> np.ndarray:
    """Which images the small net is right about, by NumPy."""
    images = list(stored_images(lmdb))
    values = np.array([image.pixels.reshape(-1) for image in images], np.float32) / 256
    ((weights, bias), (last, last_bias)) = (model.layer(name).blobs for name in ("ip1", "ip2"))
    scores = np.maximum(values @ weights.T + bias, 0) @ last.T + last_bias
    return scores.argmax(axis=1) == [image.label for image in images]


@pytest.mark.parametrize("random", [False, True])
def test_training_in_two_parts_is_training_in_one(
    tmp_path, request_for, make_solver, engine, random
):
    solver = make_solver(random=random)
    whole = train(request_for(solver), tmp_path / "whole", engine, ignore)
    train(request_for(solver, max_iter=73), tmp_path / "parts", engine, ignore)
    parts = train(request_for(solver), tmp_path / "parts", engine, ignore)
    assert parts.weights_sha256 == whole.weights_sha256
    # After a resume the test images fall into other batches, and BLAS rounds otherwise.
    assert parts.final_test.correct == whole.final_test.correct
    assert parts.final_test.loss == pytest.approx(whole.final_test.loss, rel=1e-6)
    assert parts.iterations == 200


# A long run is killed four times, CI's twice or three times.
_KILLED_ITERATIONS, _EACH_KILL = (1400, 450) if "CI" in os.environ else (4000, 900)
_TRAIN = f"""
import sys
from pathlib import Path
from pycaffe_prune.engines.choice import EngineWish, choose_engine
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.run import train
solver, data, out, weights, mask = (Path(argument) for argument in sys.argv[2:])
request = TrainRequest(solver=solver, data=data, seed=3, max_iter={_KILLED_ITERATIONS},
                       snapshot=130, weights=weights, mask=mask, test_interval=0)
train(request, out, choose_engine(EngineWish(sys.argv[1])).engine, lambda event: None)
"""


def _snapshot(folder: RunFolder) -> int:
    """The iteration of the newest snapshot, 0 before the first."""
    names = (path.stem for path in folder.snapshots.glob("snapshot_iter_*.solverstate"))
    return max((int(name.rpartition("_")[2]) for name in names), default=0)


def _kill_until_done(command: list[str], folder: RunFolder) -> int:
    """Run the command and kill it (no goodbye) at ever later snapshots, until it finishes."""
    kills = 0
    while True:
        with subprocess.Popen(command) as process:
            # By progress, not by the clock, and each time at another moment after the snapshot.
            while process.poll() is None and _snapshot(folder) < _EACH_KILL * (kills + 1):
                time.sleep(0.005)
            time.sleep(0.02 * kills)
            if process.poll() is not None:
                assert process.returncode == 0
                return kills
            process.kill()
        kills += 1
        if folder.result.exists():  # killed between its last act and its end
            return kills


@pytest.mark.parametrize("random", [False, True])
def test_a_run_killed_at_any_moment_ends_with_the_same_bits(
    tmp_path, digits, make_solver, engine, pruned, random
):
    weights, mask, masks = pruned
    solver = make_solver()
    if random:  # the dropout net has the same ip shapes only without the crop
        text = (solver.parent / "net.prototxt").read_text()
        dropout = 'layer { name: "drop1" type: "Dropout" bottom: "ip1" top: "ip1" }\n'
        text = text.replace('layer { name: "ip2"', dropout + 'layer { name: "ip2"', 1)
        text = text.replace("scale: 0.00390625", "scale: 0.00390625 mirror: true", 1)
        (solver.parent / "net.prototxt").write_text(text)

    def command(out: Path) -> list[str]:
        arguments = [engine.name, solver, digits, out, weights, mask]
        return [sys.executable, "-c", _TRAIN, *map(str, arguments)]

    subprocess.run(command(tmp_path / "whole"), check=True)
    kills = _kill_until_done(command(tmp_path / "killed"), RunFolder(tmp_path / "killed"))
    assert kills > 0
    assert sha256_of(tmp_path / "killed" / "final.caffemodel") == sha256_of(
        tmp_path / "whole" / "final.caffemodel"
    )
    final = read_caffemodel(tmp_path / "killed" / "final.caffemodel")
    assert set(nonzero_where_masked(final, masks).values()) == {0}


@pytest.mark.parametrize(
    "settings",
    [
        'type: "SGD" base_lr: 0.01 momentum: 0.9 clip_gradients: 1.0',
        'type: "SGD" base_lr: 0.01 momentum: 0.9 iter_size: 2 regularization_type: "L1"',
        'type: "Nesterov" base_lr: 0.01 momentum: 0.9',
        'type: "AdaGrad" base_lr: 0.01',
        'type: "RMSProp" base_lr: 0.001 rms_decay: 0.98',
        'type: "AdaDelta" base_lr: 1 momentum: 0.95 delta: 1e-6',
        'type: "Adam" base_lr: 0.001 momentum: 0.9 momentum2: 0.999',
    ],
)
def test_pruned_weights_are_exactly_zero_in_weights_history_and_snapshots(
    tmp_path, request_for, make_solver, engine, pruned, settings
):
    weights, mask, masks = pruned
    solver = make_solver(settings=settings)
    request = request_for(solver, weights=weights, mask=mask, keep_snapshots=True)
    result = train(request, tmp_path / "run", engine, ignore)
    assert result.revived == 0
    snapshots = sorted((tmp_path / "run" / "snapshots").glob("*.caffemodel"))
    assert len(snapshots) == 4
    for path in [*snapshots, tmp_path / "run" / "final.caffemodel"]:
        model = read_caffemodel(path)
        assert set(nonzero_where_masked(model, masks).values()) == {0}
        for key, kept in masks.items():
            blob = model.layer(key[0]).blobs[0]
            assert not np.signbit(blob[~kept]).any()
    history = read_solverstate(tmp_path / "run" / "snapshots" / "snapshot_iter_200.solverstate")
    flat = {"ip1": history.history[0], "ip2": history.history[2]}
    for (layer, _), kept in masks.items():
        assert np.count_nonzero(flat[layer].reshape(kept.shape)[~kept]) == 0
    moved = read_caffemodel(tmp_path / "run" / "final.caffemodel").layer("ip1").blobs[0]
    assert not np.array_equal(moved, read_caffemodel(weights).layer("ip1").blobs[0])


def test_a_snapshot_in_which_pruned_weights_live_is_noticed(tmp_path, request_for, engine, pruned):
    weights, mask, masks = pruned
    request = request_for(weights=weights, mask=mask, max_iter=20)
    train(request, tmp_path / "run", engine, ignore)
    path = tmp_path / "run" / "snapshots" / "snapshot_iter_20.caffemodel"
    model = read_caffemodel(path)
    alive = model.layer("ip1").blobs[0] + np.float32(1) * ~masks["ip1", 0]
    write_caffemodel(path, model.with_blobs({("ip1", 0): alive}))
    path.with_suffix(".sha256").unlink()  # as of a version that was at fault
    with pytest.raises(
        EngineError, match=f"{(~masks['ip1', 0]).sum()} masked weights are not zero"
    ):
        train(
            request_for(weights=weights, mask=mask, max_iter=40), tmp_path / "run", engine, ignore
        )


def test_a_mask_for_other_shapes_is_refused_with_both(tmp_path, request_for, engine, pruned):
    weights, _, _ = pruned
    wrong = tmp_path / "wrong.mask.h5"
    write_mask(wrong, MaskFile({("ip1", 0): np.ones((20, 783), bool)}, "0" * 64, "t"))
    with pytest.raises(PruneError, match=r"ip1.*20x783.*20x784"):
        train(request_for(weights=weights, mask=wrong), tmp_path / "run", engine, ignore)
    assert not (tmp_path / "run" / "final.caffemodel").exists()


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, request_for, make_solver, engine):
    solver = make_solver()
    solver.write_text(solver.read_text().replace("base_lr: 0.01", "base_lr: 1e30"))
    with pytest.raises(EngineError, match="no longer a number"):
        train(request_for(solver), tmp_path / "run", engine, ignore)


def test_a_test_that_is_not_finite_is_a_result(tmp_path, request_for, make_solver, engine):
    solver = make_solver(settings="base_lr: 1e30")
    folder = RunFolder(tmp_path / "run")
    result = train(request_for(solver, max_iter=1), folder.path, engine, ignore)
    assert [test.finite for test in result.tests] == [True, False]
    assert (result.final_test.loss, result.final_test.correct) == (None, 0)
    assert read_result(folder) == result

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    for text in (folder.result.read_text(), *folder.log.read_text().splitlines()):
        json.loads(text, parse_constant=refuse)
    tags = [scalar.tag for scalar in scalars(folder) if scalar.step == 1]
    assert "test/accuracy/accuracy" in tags
    assert not any("loss" in tag for tag in tags if tag.startswith("test/"))


# Weights of zeros give the loss of even chances, and of a guess of 0.
GUESS = """
layer {{ name: "guess" type: "InnerProduct" bottom: "ip1" top: "guess"
  inner_product_param {{ num_output: 1 }} }}
layer {{ name: "far" type: "EuclideanLoss" bottom: "guess" bottom: "label" {settings} }}
layer {{ name: "farther" type: "EuclideanLoss" bottom: "guess" bottom: "label" }}
"""


def _edit(solver: Path, *pairs: tuple[str, str], more: str = "") -> Path:
    net = solver.parent / "net.prototxt"
    text = net.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    net.write_text(text + more)
    return solver


@pytest.mark.parametrize("top", [' top: "loss"', ""])
def test_the_loss_is_the_weighted_sum_of_all_losses(
    tmp_path, request_for, make_solver, digits, engine, top
):
    solver = _edit(
        make_solver(),
        ('weight_filler { type: "xavier" }', ""),
        (' top: "loss"', top),
        more=GUESS.format(settings=f"loss_weight: 0.25 {top.replace('loss', 'far')}"),
    )
    events = []
    train(request_for(solver, max_iter=1), tmp_path / "run", engine, events.append)
    (found,) = [event.loss for event in events if event.event == "progress"]
    labels = [image.label for image in islice(stored_images(digits / "mnist_train_lmdb"), 64)]
    apart = np.mean(np.square(labels)) / 2
    assert found == pytest.approx(np.log(10) + 1.25 * apart, rel=1e-5)


def test_any_loss_that_is_no_number_stops_the_run(tmp_path, request_for, make_solver, engine):
    judged = 'type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss"'
    only = _edit(make_solver(), (judged, 'type: "Silence" bottom: "ip2"'))
    _edit(only, more=GUESS.format(settings=""))
    only.write_text(only.read_text().replace("base_lr: 0.01", "base_lr: 1e30"))
    with pytest.raises(EngineError, match="no longer a number"):
        train(request_for(only), tmp_path / "run", engine, ignore)


def test_a_net_without_a_loss_has_none(tmp_path, request_for, make_solver, engine):
    judged = 'type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss"'
    solver = _edit(make_solver(), (judged, 'type: "Silence" bottom: "ip2"'))
    events = []
    train(request_for(solver, max_iter=2), tmp_path / "run", engine, events.append)
    assert {event.loss for event in events if event.event == "progress"} == {None}


def _image_files(folder: Path) -> str:
    """Write images and their list; return what reads them."""
    lines = []
    for number in range(20):
        image = np.random.default_rng(number).integers(0, 255, (28, 28), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), image)
        lines.append(f"{number}.png {number % 10}\n")
    (folder / "list").write_text("".join(lines))
    return '"ImageData" image_data_param { source: "list" batch_size: 8 is_color: false }'


def _hdf5_files(folder: Path) -> str:
    with h5py.File(folder / "a.h5", "w") as file:
        file["data"] = np.random.default_rng(0).random((20, 1, 28, 28), np.float32)
        file["label"] = np.arange(20, dtype=np.float32) % 10
    (folder / "list").write_text(f"{folder}/a.h5\n")
    return '"HDF5Data" hdf5_data_param { source: "list" batch_size: 8 }'


@pytest.mark.parametrize("write", [_image_files, _hdf5_files])
def test_lists_are_looked_up_in_the_data_folder_and_runs_on_them_are_tested(
    tmp_path, make_solver, engine, write
):
    (tmp_path / "files").mkdir()
    data = f'layer {{ name: "data" top: "data" top: "label" type: {write(tmp_path / "files")} }}'
    solver = make_solver()
    net = solver.parent / "net.prototxt"
    layers = net.read_text().partition('layer { name: "ip1"')
    net.write_text(data + layers[1] + layers[2])
    request = TrainRequest(solver=solver, data=tmp_path / "files", max_iter=20)
    tests = train(request, tmp_path / "run", engine, ignore).tests
    assert [(test.iteration, test.images) for test in tests] == [(0, 20), (20, 20)]


def test_a_solver_that_never_tests_needs_no_test_phase(tmp_path, request_for, make_solver, engine):
    solver = make_solver()
    net = solver.parent / "net.prototxt"
    train_only = read_net(net)
    del train_only.layer[1]
    write_prototxt(net, train_only)
    text = solver.read_text()
    solver.write_text(text.replace("test_iter: 3 test_interval: 100", ""))
    result = train(request_for(solver, max_iter=4), tmp_path / "run", engine, ignore)
    assert result.tests == ()


def test_a_solver_that_never_tests_is_tested_where_that_is_asked_for(
    tmp_path, request_for, make_solver, engine
):
    solver = make_solver()
    solver.write_text(solver.read_text().replace("test_iter: 3 test_interval: 100", ""))
    request = request_for(solver, max_iter=4, test_interval=0)
    result = train(request, tmp_path / "run", engine, ignore)
    assert [(test.iteration, test.images) for test in result.tests] == [(0, 297), (4, 297)]


def _with_first_weight(model: Caffemodel, value: float) -> Caffemodel:
    weights = model.layer("ip2").blobs[0].copy()
    weights[0, :] = value
    return model.with_blobs({("ip2", 0): weights})


def test_nan_scores_count_as_wrong(tmp_path, digits, make_solver, engine, pruned):
    weights, _, _ = pruned
    bad = tmp_path / "nan.caffemodel"
    write_caffemodel(bad, _with_first_weight(read_caffemodel(weights), np.nan))
    folder = RunFolder(tmp_path / "test")
    job = prepare_evaluation(make_solver().parent / "net.prototxt", [bad], digits, folder)
    (score,) = engine.evaluate(folder, job)
    assert (score.correct, score.loss, score.finite) == (0, None, False)


@pytest.mark.parametrize(("images", "batch"), [(None, 99), (None, 100), (150, 100), (20, 100)])
def test_many_weights_in_one_process_score_as_each_alone(
    tmp_path, digits, make_solver, engine, three, images, batch
):
    net = make_solver().parent / "net.prototxt"
    net.write_text(net.read_text().replace("batch_size: 100", f"batch_size: {batch}"))
    folder = RunFolder(tmp_path / "test")
    together = list(engine.evaluate(folder, prepare_evaluation(net, three, digits, folder, images)))
    alone = [
        score
        for path in three
        for score in engine.evaluate(
            folder, prepare_evaluation(net, [path], digits, folder, images)
        )
    ]
    assert together == alone
    assert together[0] == together[3]
    assert len({score.loss for score in together}) == 3
    assert {score.images for score in together} == {images or 297}


def test_an_evaluation_that_is_asked_to_stop_keeps_its_scores(
    tmp_path, digits, make_solver, stoppable, three
):
    folder = RunFolder(tmp_path / "test")
    job = prepare_evaluation(make_solver().parent / "net.prototxt", three * 50, digits, folder)
    scores = stoppable.evaluate(folder, job)
    assert next(scores).images == 297
    stoppable.stop()
    with pytest.raises(InterruptedRunError, match="of 200 tests done"):
        list(scores)


def test_weights_that_are_gone_are_an_error_after_the_scores_before_them(
    tmp_path, digits, make_solver, engine, three
):
    folder = RunFolder(tmp_path / "test")
    job = prepare_evaluation(make_solver().parent / "net.prototxt", three[:1], digits, folder)
    gone = job.model_copy(update={"weights": (*job.weights, str(tmp_path / "gone.caffemodel"))})
    write_text(folder.job, gone.model_dump_json())
    scores = engine.evaluate(folder, gone)
    assert next(scores).images == 297
    with pytest.raises(EngineError, match=r"gone\.caffemodel"):
        next(scores)


def test_a_run_that_is_asked_to_stop_leaves_a_snapshot_and_goes_on(
    tmp_path, request_for, engine, stoppable
):
    whole = train(request_for(max_iter=4000, snapshot=0), tmp_path / "whole", engine, ignore)
    asked = threading.Event()

    def stop_once(event):
        if event.event == "progress" and not asked.is_set():
            asked.set()
            stoppable.stop()

    request = request_for(max_iter=4000, snapshot=0)
    with pytest.raises(InterruptedRunError, match="of 4000"):
        train(request, tmp_path / "run", stoppable, stop_once)
    assert list((tmp_path / "run" / "snapshots").glob("*.solverstate"))
    again = train(request, tmp_path / "run", engine, ignore)
    assert again.weights_sha256 == whole.weights_sha256


def test_an_engine_that_was_stopped_while_nothing_ran_begins_nothing(
    tmp_path, request_for, make_solver, digits, engine, stoppable, pruned
):
    weights, _, _ = pruned
    stoppable.stop()
    with pytest.raises(InterruptedRunError, match="stopped before it began"):
        train(request_for(), tmp_path / "run", stoppable, ignore)
    folder, net = RunFolder(tmp_path / "test"), make_solver().parent / "net.prototxt"
    job = prepare_evaluation(net, [weights], digits, folder)
    deploy = tmp_path / "deploy.prototxt"
    deploy.write_text('layer { name: "x" type: "Input" top: "x" }')
    with pytest.raises(InterruptedRunError, match="stopped before it began"):
        next(stoppable.evaluate(folder, job))
    with pytest.raises(InterruptedRunError, match="stopped before it began"):
        stoppable.forward(deploy, weights, {}, ["x"])
    assert not stoppable._running
    assert train(request_for(max_iter=2), tmp_path / "run", engine, ignore).iterations == 2


def test_a_worker_that_is_killed_is_an_error_that_names_the_signal(tmp_path, request_for, engine):
    def kill(event):
        if event.event == "progress":
            for process in list(engine._running):
                process.send_signal(signal.SIGKILL)

    with pytest.raises(EngineError, match="SIGKILL"):
        train(request_for(max_iter=5000), tmp_path / "run", engine, kill)


def test_a_finished_run_is_not_run_again_and_a_half_written_log_is_no_obstacle(
    tmp_path, request_for, engine
):
    first = train(request_for(max_iter=40), tmp_path / "run", engine, ignore)
    events = []
    assert train(request_for(max_iter=40), tmp_path / "run", engine, events.append) == first
    assert events == []
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write('{"event": "test", "iterat')
    second = train(request_for(max_iter=80), tmp_path / "run", engine, ignore)
    assert second.iterations == 80


def test_a_finished_run_is_left_alone_when_fewer_iterations_are_asked_for(
    tmp_path, request_for, engine
):
    folder = RunFolder(tmp_path / "run")
    whole = train(request_for(max_iter=40), folder.path, engine, ignore)
    job = folder.job.read_bytes()
    assert train(request_for(max_iter=20), folder.path, engine, ignore) == whole
    assert folder.job.read_bytes() == job


def test_a_run_that_begins_again_because_it_is_shorter_has_its_own_tests_only(
    tmp_path, request_for, engine, stoppable
):
    def stop_late(event):
        if event.event == "progress" and event.iteration >= 60:
            stoppable.stop()

    long = request_for(max_iter=100_000, snapshot=0, test_interval=10)
    with pytest.raises(InterruptedRunError):
        train(long, tmp_path / "run", stoppable, stop_late)
    short = train(request_for(max_iter=40, test_interval=20), tmp_path / "run", engine, ignore)
    assert [test.iteration for test in short.tests] == [0, 20, 40]
    alone = train(request_for(max_iter=40, test_interval=20), tmp_path / "alone", engine, ignore)
    assert short.tests == alone.tests


def test_only_the_last_test_tells_which_images_were_right(tmp_path, request_for, torch_engine):
    """Also where it was not the last one when it was made."""
    (tmp_path / "once").mkdir()
    asked = [request_for(max_iter=end, test_interval=20) for end in (20, 40)]
    first, longer = (train(one, tmp_path / "run", torch_engine, ignore) for one in asked)
    once = train(asked[1], tmp_path / "once", torch_engine, ignore)
    assert first.final_test.right_answers is not None
    answers = [test.right_answers for test in once.tests]
    assert [test.right_answers for test in longer.tests] == answers
    assert [one is None for one in answers] == [True, True, False]
    told = RunFolder(tmp_path / "once").result.read_text()
    damaged = told.replace(answers[-1], answers[-1][:-8] + "AAAAAAA=")
    RunFolder(tmp_path / "once").result.write_text(damaged)
    with pytest.raises(PruneError, match="the right answers are"):
        train(asked[1], tmp_path / "once", torch_engine, ignore)


def test_forward_gives_the_blobs_that_numpy_computes(tmp_path, engine, pruned):
    weights, _, _ = pruned
    model = read_caffemodel(weights)
    net = tmp_path / "deploy.prototxt"
    net.write_text("""
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 784 } } }
        layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "y"
          inner_product_param { num_output: 20 } }
    """)
    images = np.random.default_rng(1).random((5, 784), np.float32)
    (found,) = engine.forward(net, weights, {"x": images}, ["y"])
    weight, bias = model.layer("ip1").blobs
    np.testing.assert_allclose(found, images @ weight.T + bias, rtol=1e-5, atol=1e-6)


def test_a_job_is_prepared_once_for_both_directions(tmp_path, request_for, engine):
    folder = RunFolder(tmp_path / "run")
    job = prepare(request_for(), folder)
    assert job.tests[0].images == 297
    assert engine.train(folder, job, ignore).iterations == 200


def test_a_run_of_no_iterations_writes_the_weights_that_a_run_begins_with(
    tmp_path, request_for, engine
):
    first, alone = RunFolder(tmp_path / "first"), RunFolder(tmp_path / "alone")
    result = train(request_for(max_iter=0), first.path, engine, ignore)
    assert (result.iterations, [test.iteration for test in result.tests]) == (0, [0])
    train(request_for(max_iter=5), alone.path, engine, ignore)
    beginning = request_for(max_iter=5, weights=first.final_weights)
    train(beginning, tmp_path / "on", engine, ignore)
    whole = alone.final_weights.read_bytes()
    assert RunFolder(tmp_path / "on").final_weights.read_bytes() == whole
    assert first.final_weights.read_bytes() != whole
    assert train(request_for(max_iter=5), first.path, engine, ignore).iterations == 5
    assert first.final_weights.read_bytes() == whole
