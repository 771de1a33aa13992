"""Run solvers in the real Caffe, one after another, in one process; for Caffe's own Python.

Each line of standard input is a JSON object: task and out (an .npz file to write), and

rates    solver (a prototxt), states (solverstates): ``rates``, the learning rate at each of them.
train    solver, state (to restore, or null), steps: ``start:<blob>``, and per step, from 1,
         ``gradient:<step>:<blob>`` before the update and ``data:<step>:<blob>`` after it, blobs
         being numbered in the net's order. Leaves a snapshot where the solver says.
outcome  solver: trained to its max_iter, ``data:<blob>``, and of each test net the
         loss, ``test:<place>``.

Each is answered by a line.
"""

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
    solver.step(job["steps"])
    blobs = [blob for blobs in solver.net.params.values() for blob in blobs]
    found = {f"data:{index}": blob.data.copy() for index, blob in enumerate(blobs)}
    for place, net in enumerate(solver.test_nets):
        net.share_with(solver.net)
        net.forward()
        found[f"test:{place}"] = net.blobs["loss"].data.copy()
    return found


for line in sys.stdin:
    job = json.loads(line)
    os.chdir(os.path.dirname(job["solver"]))  # noqa: PTH120 -- as plain as Python 3.6 needs it
    np.savez(job["out"], **{"rates": rates, "train": train, "outcome": outcome}[job["task"]](job))
    sys.stdout.write("done\n")
    sys.stdout.flush()
