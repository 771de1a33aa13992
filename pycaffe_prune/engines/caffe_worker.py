"""The one file that imports caffe: trains and tests in a process of its own.

Runs alone under Python 3.6 to 3.9 with NumPy and pycaffe, whatever Python that pycaffe was built
for; the engine (`caffe_engine.py`) starts it as ``caffe_worker.py TASK JOB.json``. What it does
comes back as JSON lines on standard output; Caffe's own messages go to standard error.

A failed CHECK in Caffe ends this process (SIGABRT) and no other.
"""

import ctypes
import json
import os
import signal
import sys
import time
import types

import numpy as np

_PROGRESS_SECONDS = 0.5
_SNAPSHOT_SECONDS = 60
_SNAPSHOT_COST = 20  # a snapshot comes this many times its own duration after the last one
_PR_SET_PDEATHSIG = 1
SNAPSHOT = "snapshot_iter_%d"
STATE = ".solverstate"
stop_asked = []


def main(task, job_path):
    """Run ``task`` (train, evaluate or forward) as ``job_path`` says."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # never outlive the engine
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
    {"train": train, "evaluate": evaluate, "forward": forward}[task](caffe, job, emit)


def _emitter():
    """Keep standard output for JSON lines: what C++ code prints goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def emit(**event):
        out.write(json.dumps(event) + "\n")
        out.flush()

    return emit


def _import_caffe(job):
    # caffe.io imports skimage to load image files, which nothing here does: 1.5 s saved a start.
    for name in ("skimage", "skimage.io", "skimage.transform"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["skimage.transform"].resize = None
    import caffe

    if job["device"] == "cpu":
        caffe.set_mode_cpu()
    else:
        caffe.set_mode_gpu()
        caffe.set_device(int(job["device"].partition(":")[2] or 0))
    return caffe


class Tester:
    """Accuracy and loss over exactly N test images, each counted once.

    Caffe's Data layer never rewinds, but its LMDB is a ring: any N images in a row are all N. So a
    test may begin wherever the last one stopped, and what is left of a batch is not counted.

    Caffe's own figure for a test of ``cycled_images`` from the first image on, round and round the
    ring, follows from the same answers.
    """

    def __init__(self, net, job):
        self.net = net
        self.images = job["test_images"]
        self.cycled_images = job.get("cycled_images", 0)
        self.scores, self.labels = job["scores_blob"], job["label_blob"]
        self._at = 0  # the image that the next test begins with

    def run(self):
        """Return a dict: images, correct, accuracy, loss (None unless finite), finite.

        And cycled (the accuracy) with cycled_images where the job asks for it.
        """
        start, seen, answers, loss, finite = self._at, 0, [], 0.0, True
        while seen < self.images:
            self.net.forward()
            labels = self.net.blobs[self.labels].data.reshape(-1).astype(np.int64)
            scores = self.net.blobs[self.scores].data.reshape(len(labels), -1)
            take = min(len(labels), self.images - seen)
            right, lost, sound = judge(scores[:take], labels[:take])
            answers.append(right)
            seen, loss, finite = seen + take, loss + lost, finite and sound
            self._at = (self._at + len(labels)) % self.images
        right = np.roll(np.concatenate(answers), start)  # by the images' order
        correct, mean = int(right.sum()), loss / seen
        found = {
            "images": seen,
            "correct": correct,
            "accuracy": correct / seen,
            "loss": mean if np.isfinite(mean) else None,
            "finite": bool(finite),
        }
        if self.cycled_images:
            whole, rest = divmod(self.cycled_images, self.images)
            cycled = whole * correct + int(right[:rest].sum())
            found.update(cycled=cycled / self.cycled_images, cycled_images=self.cycled_images)
        return found


def judge(scores, labels):
    """Tell which answers of one batch are right, and add up its losses.

    A row is right when no other score reaches the true one (ties lose, as in Caffe's Accuracy
    layer) and every score is finite: a NaN would count as right in Caffe. The loss is
    SoftmaxWithLoss's: -log of the softmax, at least FLT_MIN.
    """
    sound = np.isfinite(scores).all(axis=1)
    true = scores[np.arange(len(labels)), labels]
    right = ((scores >= true[:, None]).sum(axis=1) == 1) & sound
    if not sound.all():
        return right, float("nan"), False
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    log_p = shifted[np.arange(len(labels)), labels] - np.log(np.exp(shifted).sum(axis=1))
    return right, float(-np.maximum(log_p, np.log(np.finfo(np.float32).tiny)).sum()), True


class Masks:
    """Keeps pruned weights at exactly zero: history, snapshots and tests included.

    A fresh solver's history is zero. With the weight zero and the gradient zeroed before the
    update (`on_gradients_ready`, src/caffe/solver.cpp), decay adds 0, the history stays 0 and so
    does the weight. Bits are ANDed, not floats multiplied: NaN and -0.0 become +0.0 too.
    """

    def __init__(self, net, job):
        with np.load("mask.npz", allow_pickle=False) as file:
            arrays = [file["m%d" % place] for place in range(len(job["masked"]))]
        self._blobs = [net.params[layer][index] for layer, index in job["masked"]]
        for blob, array, (layer, index) in zip(self._blobs, arrays, job["masked"]):
            if blob.data.shape != array.shape:
                raise SystemExit(
                    "layer '%s', blob %d: the mask is %s, the weights are %s; use the mask that "
                    "was made for these weights"
                    % (layer, index, _extents(array), _extents(blob.data))
                )
        self._bits = [np.where(array, np.int32(-1), np.int32(0)) for array in arrays]
        # On the CPU a blob's memory stays where it is; on a GPU each access copies, so ask anew.
        self._diffs = None
        if job["device"] == "cpu":
            self._diffs = [blob.diff.view(np.int32) for blob in self._blobs]

    def zero_weights(self):
        """Zero the masked weights."""
        for blob, bits in zip(self._blobs, self._bits):
            data = blob.data.view(np.int32)
            np.bitwise_and(data, bits, out=data)

    def zero_gradients(self):
        """Zero the masked gradients; called by the solver between backward and update."""
        diffs = self._diffs or [blob.diff.view(np.int32) for blob in self._blobs]
        for diff, bits in zip(diffs, self._bits):
            np.bitwise_and(diff, bits, diff)

    def revived(self):
        """Count the masked weights that are not zero."""
        return sum(
            int(np.count_nonzero(blob.data[bits == 0]))
            for blob, bits in zip(self._blobs, self._bits)
        )


def _extents(array):
    return "x".join(map(str, array.shape))


def train(caffe, job, emit):
    """Run one solver from its start or its last snapshot to max_iter; leave final.caffemodel."""
    folder = os.getcwd()
    os.makedirs(os.path.join("snapshots", ".partial"), exist_ok=True)
    solver = caffe.get_solver(os.path.join(folder, "solver.prototxt"))
    if job["weights"]:
        solver.net.copy_from(job["weights"])
    masks = Masks(solver.net, job) if job["masked"] else None
    if masks:
        masks.zero_weights()
        solver.add_callback(lambda: None, masks.zero_gradients)
    done = _restore(solver, job)
    if done:
        emit(event="resumed", iteration=done)
    if masks and masks.revived():
        raise SystemExit("%d masked weights are not zero after loading" % masks.revived())
    tester = Tester(solver.test_nets[0], job) if job["scores_blob"] else None
    keep = job["keep_snapshots"]
    iteration = run(solver, tester, job, done, emit, lambda at: _snapshot(solver, at, keep))
    if iteration < job["max_iter"]:
        emit(event="stopped", iteration=iteration)
        return
    os.chdir(folder)
    _save_final(solver.net)
    emit(event="done", iteration=iteration, revived=masks.revived() if masks else 0)


def run(solver, tester, job, iteration, emit, snapshot):
    """Step to max_iter, testing and taking snapshots on the way; return the iteration reached.

    ``snapshot`` is called with the iteration. The torch engine leads its solver with this too.
    Besides those that the job asks for, snapshots are taken by the clock, unless all are kept: a
    run that is killed loses a minute, however slow its iterations are.
    """
    end, rate, started = job["max_iter"], _Rate(iteration), time.time()
    clock = _SnapshotClock()
    while True:
        if tester and _due(iteration, job["test_interval"], end):
            solver.test_nets[0].share_with(solver.net)
            emit(event="test", iteration=iteration, **tester.run())
            rate.restart(iteration)
        if iteration == end:
            return iteration
        stop = min(end, iteration + rate.chunk(), _next_event(job, iteration))
        solver.step(stop - iteration)
        iteration = stop
        loss = _loss(solver.net, job["losses"])
        is_number = loss is None or np.isfinite(loss)
        shown = bool(job["display"]) and iteration % job["display"] == 0
        emit(
            event="progress",
            iteration=iteration,
            loss=loss if is_number else None,
            lr=learning_rate(job["solver"], iteration),
            images_per_second=rate.per_second(iteration) * job["batch"],
            display=shown,
        )
        if not is_number:
            raise SystemExit(
                "the loss is no longer a number at iteration %d; lower base_lr" % iteration
            )
        wanted = iteration in job["checkpoints"] or (
            bool(job["snapshot"]) and iteration % job["snapshot"] == 0
        )
        by_clock = not job["keep_snapshots"] and clock.due()
        if wanted or by_clock or stop_asked or iteration == end:
            with clock:
                snapshot(iteration)
            emit(event="snapshot", iteration=iteration, seconds=time.time() - started)
        if stop_asked and iteration < end:
            return iteration


def _next_event(job, iteration):
    """The next iteration at which something but stepping happens."""
    intervals = (job["test_interval"], job["snapshot"], job["display"], job["max_iter"])
    periodic = [iteration - iteration % every + every for every in intervals if every]
    return min(periodic + [at for at in job["checkpoints"] if at > iteration])


def _due(iteration, interval, end):
    return iteration in (0, end) or (bool(interval) and iteration % interval == 0)


class _SnapshotClock:
    """Says when a snapshot is due; entered while one is taken.

    Those that take long come more seldom, so that they never cost more than a twentieth.
    """

    def __init__(self):
        self._last, self._wait = time.time(), _SNAPSHOT_SECONDS

    def due(self):
        return time.time() - self._last > self._wait

    def __enter__(self):
        self._last = time.time()

    def __exit__(self, *_):
        took, self._last = time.time() - self._last, time.time()
        self._wait = max(_SNAPSHOT_SECONDS, _SNAPSHOT_COST * took)


class _Rate:
    """Measured speed, and how many iterations fit between two progress lines."""

    def __init__(self, iteration):
        self.restart(iteration)
        self._speed = 0.0

    def restart(self, iteration):
        self._iteration, self._time = iteration, time.time()

    def per_second(self, iteration):
        elapsed = max(time.time() - self._time, 1e-6)
        self._speed = (iteration - self._iteration) / elapsed
        if elapsed > 5:
            self.restart(iteration)
        return self._speed

    def chunk(self):
        return max(1, int(self._speed * _PROGRESS_SECONDS))


def _loss(net, losses):
    """The last batch's loss as Caffe adds it up (Net::ForwardFromTo); None where nothing is one."""
    if not losses:
        return None
    return sum(weight * float(net.blobs[blob].data.sum()) for blob, weight in losses)


def learning_rate(solver, iteration):
    """The rate of the next update (SGDSolver::GetLearningRate, src/caffe/solvers/sgd_solver.cpp).

    Computed here because asking pycaffe (``solver.lr``) moves the multistep policy along.
    """
    policy, base = solver["lr_policy"], solver["base_lr"]
    gamma, power = solver["gamma"], solver["power"]
    if policy == "step":
        return base * gamma ** (iteration // solver["stepsize"])
    if policy == "multistep":
        return base * gamma ** sum(iteration >= value for value in solver["stepvalue"])
    if policy == "exp":
        return base * gamma**iteration
    if policy == "inv":
        return base * (1 + gamma * iteration) ** -power
    if policy == "poly":
        return base * (1 - iteration / solver["max_iter"]) ** power
    if policy == "sigmoid":
        return base / (1 + np.exp(-gamma * (iteration - solver["stepsize"])))
    return base


def _snapshot(solver, iteration, keep):
    """Write a snapshot whole or not at all: Caffe writes to .partial, then both files move.

    The solverstate names its caffemodel by the path text that Caffe was given, here the bare file
    name; so snapshots are written and restored with their own folder as working directory.
    """
    snapshots = os.getcwd()
    os.chdir(".partial")
    solver.snapshot()
    os.chdir(snapshots)
    name = SNAPSHOT % iteration
    for ending in (".caffemodel", STATE):  # the state last: it is what makes a snapshot complete
        _durable_move(os.path.join(".partial", name + ending), name + ending)
    if not keep:
        drop_snapshots(snapshots, iteration)


def drop_snapshots(folder, kept):
    """Remove the snapshots in ``folder`` but that of the iteration ``kept``."""
    for old in snapshots_in(folder):
        if old != kept:
            for ending in (STATE, ".caffemodel"):
                os.unlink(os.path.join(folder, SNAPSHOT % old + ending))


def _durable_move(source, target):
    with open(source, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(source, target)
    folder = os.open(os.path.dirname(os.path.abspath(target)), os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def snapshots_in(folder):
    """Iterations of the complete snapshots in ``folder``."""
    head, tail = (SNAPSHOT + STATE).split("%d")
    names = set(os.listdir(folder))
    found = [
        int(name[len(head) : -len(tail)])
        for name in names
        if name.startswith(head) and name.endswith(tail)
    ]
    return sorted(n for n in found if SNAPSHOT % n + ".caffemodel" in names)


def _restore(solver, job):
    """Go on from the newest snapshot: weights, history, data position and random numbers."""
    os.chdir("snapshots")
    found = [n for n in snapshots_in(os.getcwd()) if n <= job["max_iter"]]
    if not found:
        return 0
    solver.restore(SNAPSHOT % found[-1] + STATE)
    _replay(solver.net, job["replay"], found[-1] * job["iter_size"])
    return found[-1]


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
    _durable_move("final.partial.caffemodel", "final.caffemodel")


def evaluate(caffe, job, emit):
    """Test given weights, one file after the other, each over exactly the same N images."""
    net = None
    for path in job["weights"]:
        if net is None or job["rewind"]:
            net = None  # the old net lets go of the LMDB first
            net = caffe.Net("net.prototxt", caffe.TEST)
        net.copy_from(path)
        emit(event="test", iteration=0, **Tester(net, job).run())
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


if __name__ == "__main__":
    main(*sys.argv[1:])
