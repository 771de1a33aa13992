"""What a worker is asked for: train, evaluate, forward, times."""

import json
import os
import signal
import sys
import time

import numpy as np

from .gpu_masks import make_masks
from .late import import_late
from .loop import forwards_of_tests, run, stop_asked
from .snapshots import (
    SNAPSHOT,
    STATE,
    durable_move,
    require_whole,
    snapshots_in,
    take_snapshot,
)
from .testing import Tester, make_tester


def main(task, job_path):
    """Run ``task`` (train, evaluate, forward or times) as ``job_path`` says."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop_asked.append(True))
    emit = _emitter()
    with open(job_path) as file:
        job = json.load(file)
    os.chdir(os.path.dirname(os.path.abspath(job_path)))
    caffe = _import_caffe(job)
    emit(
        event="start",
        versions={
            "caffe": getattr(caffe, "__version__", "unknown"),
            "python": sys.version.split()[0],
            "numpy": np.__version__,
        },
    )
    tasks = {"train": train, "evaluate": evaluate, "forward": forward, "times": times}
    tasks[task](caffe, job, emit)


def _emitter():
    """Keep standard output for JSON lines: what C++ code prints goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def emit(**event):
        out.write(json.dumps(event) + "\n")
        out.flush()

    return emit


def _import_caffe(job):
    # It imports skimage, for image files: nothing here needs it, but Python layers may.
    import_late("caffe.io")
    import caffe

    sys.path.extend(job["module_folders"])  # last: they hide no module of Caffe's or Python's
    if job["device"] == "cpu":
        caffe.set_mode_cpu()
    else:
        caffe.set_mode_gpu()
        caffe.set_device(int(job["device"].partition(":")[2] or 0))
    return caffe


def train(caffe, job, emit):
    """Run one solver from its start or its last snapshot to max_iter; leave final.caffemodel."""
    folder = os.getcwd()
    os.makedirs(os.path.join("snapshots", ".partial"), exist_ok=True)
    solver = caffe.get_solver(os.path.join(folder, "solver.prototxt"))
    for path in job["weights"]:
        solver.net.copy_from(path)
    masks = make_masks(caffe, solver.net, job, emit)
    masks.zero_weights()
    masks.follow(solver)
    done = _restore(solver, job)
    if done:
        emit(event="resumed", iteration=done)
    masks.resume(done)
    testers = [tester and _Masked(tester, masks) for tester in _testers(solver, job, done)]
    keep = job["keep_snapshots"]

    def snapshot(at):
        take_snapshot(solver, at, keep, masks)

    iteration = run(solver, testers, job, done, emit, snapshot)
    if iteration < job["max_iter"]:
        emit(event="stopped", iteration=iteration)
        return
    os.chdir(folder)
    with masks.shown():
        _save_final(solver.net)
        emit(event="done", iteration=iteration, revived=masks.revived())


class _Masked:
    """A tester of the weights as passes use them."""

    def __init__(self, tester, masks):
        self._tester, self._masks = tester, masks

    def run(self):
        """Test once."""
        with self._masks.shown():
            return self._tester.run()

    @property
    def right_answers(self):
        """As the tester's own."""
        return self._tester.right_answers


def _restore(solver, job):
    """Go on from the newest snapshot: weights, history, data position and random numbers."""
    os.chdir("snapshots")
    found = [n for n in snapshots_in(os.getcwd()) if n <= job["max_iter"]]
    if not found:
        return 0
    solver.restore(SNAPSHOT % found[-1] + STATE)
    _replay(solver.net, job["replay"], found[-1] * job["iter_size"])
    return found[-1]


def _testers(solver, job, iteration):
    """What tests each test net; the nets are where the tests before ``iteration`` left them."""
    testers = []
    for net, told in zip(solver.test_nets, job["tests"]):
        if told["untested"] is None and told["plan"] is None:
            _replay(net, told["replay"], forwards_of_tests(job, told, iteration))
        testers.append(make_tester(net, told))
    return testers


def _replay(net, plan, forwards):
    """Bring the layers that have a state outside the solverstate to where they were.

    Data layers move their cursor, layers that draw random numbers draw them again, in the order in
    which they did. A Data layer without random transforms comes round after ``period`` batches.
    """
    places = {name: place for place, name in enumerate(net._layer_names)}
    for name, period in plan:
        if period:
            for _ in range(forwards % period):
                net._forward(places[name], places[name])
    drawing = sorted(places[name] for name, period in plan if not period)
    if drawing:
        for _ in range(forwards):
            for place in drawing:
                net._forward(place, place)


def _save_final(net):
    net.save("final.partial.caffemodel")
    require_whole("final.partial.caffemodel")
    durable_move("final.partial.caffemodel", "final.caffemodel")


def evaluate(caffe, job, emit):
    """Test given weights, one file after the other, each over exactly the same N images."""
    net = None
    for path in job["weights"]:
        if net is None or job["rewind"]:
            net = None  # the old net lets go of the LMDB first
            net = caffe.Net("net.prototxt", caffe.TEST)
        net.copy_from(path)
        emit(event="test", iteration=0, **Tester(net, job["test"], job["test_images"]).run())
        if stop_asked:
            emit(event="stopped", iteration=0)
            return
    emit(event="done", iteration=0)


def forward(caffe, job, emit):
    """Run given inputs through given weights; leave the wanted blobs in outputs.npz."""
    net = caffe.Net("net.prototxt", job["weights"], caffe.TEST)
    with np.load("inputs.npz", allow_pickle=False) as inputs:
        for place, name in enumerate(job["inputs"]):
            array = inputs["i%d" % place]
            net.blobs[name].reshape(*array.shape)
            net.blobs[name].data[...] = array
    net.forward()
    np.savez(
        "outputs.npz",
        **{"o%d" % place: net.blobs[name].data for place, name in enumerate(job["outputs"])},
    )
    emit(event="done", iteration=0)


def times(caffe, job, emit):
    """Tell how long a forward pass takes, for each number of images the medians of rounds."""
    net = caffe.Net("net.prototxt", job["weights"], caffe.TEST)
    found = []
    for images in job["batches"]:
        for name in net.inputs:
            blob = net.blobs[name]
            blob.reshape(images, *blob.shape[1:])
            blob.data[...] = np.random.RandomState(1).uniform(size=blob.data.shape)
        net.reshape()
        net.forward()
        passes, rounds, end = max(1, 100 // images), [], time.time() + job["seconds"]
        while len(rounds) < job["rounds"] and (len(rounds) < 3 or time.time() < end):
            start = _of_this_thread()
            for _ in range(passes):
                net.forward()
            rounds.append((_of_this_thread() - start) / passes)
        found.append(1000 * float(np.median(rounds)))
    emit(event="done", iteration=0, milliseconds=found)


def _of_this_thread():
    return time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)  # Python 3.6 has no thread_time
