"""Run solvers in the real Caffe, one after another, in one process; for Caffe's own Python.

Each line of standard input is a JSON object: task and out (an .npz file to write), and

rates    solver (a prototxt), states (solverstates): ``rates``, the learning rate at each of them.
train    solver, state (to restore, or null), steps: ``start:<blob>``, and per step, from 1,
         ``gradient:<step>:<blob>`` before the update and ``data:<step>:<blob>`` after it, blobs
         being numbered in the net's order. Leaves a snapshot where the solver says.
outcome  solver, steps, and weights to begin with besides its own: after the steps of each test
         net the loss, ``test:<place>``, and ``data:<blob>`` after these tests.
schedule solver: solved whole, ``tests`` and ``snapshots``, the iterations at which it does these.

Each is answered by a line.
"""

import glob
import json
import os
import sys
import types

import numpy as np

# caffe.io imports skimage to load image files, which nothing here does: 1.5 s saved a start.
for name in ("skimage", "skimage.io", "skimage.transform"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["skimage.transform"].resize = None

import caffe  # noqa: E402 -- after the stand-ins


def rates(job):
    solver = caffe.get_solver(job["solver"])
    found = []
    for state in job["states"]:
        solver.restore(state)
        found.append(solver.lr)
    return {"rates": np.array(found)}


def train(job):
    solver = caffe.get_solver(job["solver"])
    if job["state"]:
        solver.restore(job["state"])
    blobs = [blob for blobs in solver.net.params.values() for blob in blobs]
    found = {f"start:{index}": blob.data.copy() for index, blob in enumerate(blobs)}
    step = [0]

    def keep_gradients():
        for index, blob in enumerate(blobs):
            found[f"gradient:{step[0]}:{index}"] = blob.diff.copy()

    solver.add_callback(lambda: None, keep_gradients)
    for step[0] in range(1, job["steps"] + 1):
        solver.step(1)
        for index, blob in enumerate(blobs):
            found[f"data:{step[0]}:{index}"] = blob.data.copy()
    solver.snapshot()
    return found


def outcome(job):
    solver = caffe.get_solver(job["solver"])
    for path in job.get("weights", ()):
        solver.net.copy_from(path)
    solver.step(job["steps"])
    found = {}
    for place, net in enumerate(solver.test_nets):
        net.share_with(solver.net)
        net.forward()
        found[f"test:{place}"] = net.blobs["loss"].data.copy()
    blobs = [blob for blobs in solver.net.params.values() for blob in blobs]
    found.update((f"data:{index}", blob.data.copy()) for index, blob in enumerate(blobs))
    return found


def schedule(job):
    solver = caffe.get_solver(job["solver"])
    tests = []

    def look():
        """Note a test of the first test net since the last look."""
        for net in list(solver.test_nets)[:1]:
            loss = net.blobs["loss"].data
            if not np.isnan(loss).any():
                tests.append(solver.iter)
            loss[...] = np.nan

    look()
    del tests[:]  # a new net's loss is 0
    solver.add_callback(look, lambda: None)
    solver.solve()
    look()
    states = glob.glob("*_iter_*.solverstate")  # noqa: PTH207
    taken = sorted(int(name.split("_iter_")[1].split(".")[0]) for name in states)
    return {"tests": np.array(tests), "snapshots": np.array(taken)}


TASKS = {"rates": rates, "train": train, "outcome": outcome, "schedule": schedule}

for line in sys.stdin:
    job = json.loads(line)
    os.chdir(os.path.dirname(job["solver"]))  # noqa: PTH120 -- as plain as Python 3.6 needs it
    np.savez(job["out"], **TASKS[job["task"]](job))
    sys.stdout.write("done\n")
    sys.stdout.flush()
