"""The iterations of a run: when to test, to say how far it is, and to take a snapshot."""

import time

import numpy as np

from .testing import net_loss

_PROGRESS_SECONDS = 0.5
_SNAPSHOT_SECONDS = 60
_SNAPSHOT_COST = 20  # a snapshot comes this many times its own duration after the last one
stop_asked = []


def run(solver, testers, job, iteration, emit, snapshot):
    """Step to max_iter, testing and taking snapshots on the way; return the iteration reached.

    ``testers`` test each test net; one that is not tested has None. ``snapshot`` is called with the
    iteration. The torch engine leads its solver with this too. Besides those that the job asks for,
    snapshots are taken by the clock, unless all are kept: a
    run that is killed loses a minute, however slow its iterations are.
    """
    end, rate, started = job["max_iter"], _Rate(iteration), time.monotonic()
    clock = _SnapshotClock()
    while True:
        if any(testers) and _due(iteration, job, end):
            _test_all(solver, testers, job, iteration, emit)
            rate.restart(iteration)
        if iteration == end:
            return iteration
        stop = min(end, iteration + rate.chunk(), _next_event(job, iteration))
        solver.step(stop - iteration)
        iteration = stop
        loss = net_loss(solver.net, job["losses"])
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
            emit(event="snapshot", iteration=iteration, seconds=time.monotonic() - started)
        if stop_asked and iteration < end:
            return iteration


def _test_all(solver, testers, job, iteration, emit):
    """Test each net, in Caffe's order (Solver::TestAll)."""
    for number, tester in enumerate(testers):
        if tester:
            solver.test_nets[number].share_with(solver.net)
            name = job["tests"][number]["name"]
            found = tester.run()
            if iteration == job["max_iter"] and tester.right_answers:
                found["right_answers"] = tester.right_answers
            emit(event="test", iteration=iteration, test_net=number, test_net_name=name, **found)


def forwards_of_tests(job, told, iteration):
    """How many forward passes of a test net come before ``iteration``, in a run from its start."""
    first = iteration > 0 and job.get("test_initialization", True)
    later = (iteration - 1) // job["test_interval"] if iteration and job["test_interval"] else 0
    return (first + later) * told["batches"]


def _next_event(job, iteration):
    """The next iteration at which something but stepping happens."""
    intervals = (job["test_interval"], job["snapshot"], job["display"], job["max_iter"])
    periodic = [iteration - iteration % every + every for every in intervals if every]
    return min(periodic + [at for at in job["checkpoints"] if at > iteration])


def _due(iteration, job, end):
    if iteration == 0 < end:
        return job.get("test_initialization", True)
    interval = job["test_interval"]
    return iteration == end or (bool(interval) and iteration % interval == 0)


class _SnapshotClock:
    """Says when a snapshot is due; entered while one is taken.

    Those that take long come more seldom, so that they never cost more than a twentieth.
    """

    def __init__(self):
        self._last, self._wait = time.monotonic(), _SNAPSHOT_SECONDS

    def due(self):
        return time.monotonic() - self._last > self._wait

    def __enter__(self):
        self._last = time.monotonic()

    def __exit__(self, *_):
        took, self._last = time.monotonic() - self._last, time.monotonic()
        self._wait = max(_SNAPSHOT_SECONDS, _SNAPSHOT_COST * took)


class _Rate:
    """Measured speed, and how many iterations fit between two progress lines."""

    def __init__(self, iteration):
        self.restart(iteration)
        self._speed = 0.0

    def restart(self, iteration):
        self._iteration, self._time = iteration, time.monotonic()

    def per_second(self, iteration):
        elapsed = max(time.monotonic() - self._time, 1e-6)
        self._speed = (iteration - self._iteration) / elapsed
        if elapsed > 5:
            self.restart(iteration)
        return self._speed

    def chunk(self):
        return max(1, int(self._speed * _PROGRESS_SECONDS))


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
