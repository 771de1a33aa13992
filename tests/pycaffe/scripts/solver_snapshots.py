"""Snapshots in both formats, at their times, and what goes on from them."""

import glob
import os

import caffe
import numpy as np
from caffe.proto import caffe_pb2
from small_nets import diffs, feed, fill, params, solver_file
from twin import show

BASE = (
    'base_lr: 0.1 momentum: 0.9 lr_policy: "multistep" gamma: 0.5 stepvalue: 1 stepvalue: 4 '
    "max_iter: 5 "
)
FORMATS = (("BINARYPROTO", ""), ("HDF5", ".h5"))


def new(name, settings, kind=caffe.SGDSolver):
    solver = kind(solver_file(name, BASE + settings))
    fill(solver.net)
    feed(solver.net)
    return solver


os.mkdir("snap")
for form, ending in FORMATS:
    for kind in (caffe.SGDSolver, caffe.AdamSolver):
        name = form + kind.__name__
        settings = 'snapshot_format: {} snapshot_prefix: "snap/{}"'.format(form, name)
        whole = new("whole" + name, settings, kind)
        whole.step(2)
        whole.snapshot()
        whole.step(2)
        files = sorted(glob.glob("snap/" + name + "*"))
        show(name, files)

        rest = new("rest" + name, settings, kind)
        rest.restore("snap/{}_iter_2.solverstate{}".format(name, ending))
        show("restored", [rest.iter, rest.lr])
        show("restored weights", params(rest.net), 2)
        rest.step(2)
        show("the rest", params(rest.net), 4)
        gap = np.abs(params(rest.net) - params(whole.net)).max()
        show("as the whole", bool(gap < 1e-6))

state = caffe_pb2.SolverState()
with open("snap/BINARYPROTOSGDSolver_iter_2.solverstate", "rb") as file:
    state.ParseFromString(file.read())
show("state", [state.iter, state.learned_net, state.current_step, len(state.history)])
show("history", [list(blob.shape.dim) for blob in state.history])
show("values", [list(blob.data) for blob in state.history], 2)

model = caffe_pb2.NetParameter()
with open("snap/BINARYPROTOSGDSolver_iter_2.caffemodel", "rb") as file:
    model.ParseFromString(file.read())
show("model", [[layer.name, layer.type, len(layer.blobs)] for layer in model.layer])

# at their times
solver = new("times", 'snapshot: 2 snapshot_prefix: "snap/times"')
solver.solve()
show("times", [solver.iter, sorted(glob.glob("snap/times*"))])
solver.solve()
show("nothing more to do", [solver.iter, sorted(glob.glob("snap/times*"))])
none = new("none", 'snapshot_after_train: false snapshot_prefix: "snap/none"')
none.solve()
show("none", [none.iter, sorted(glob.glob("snap/none*")), params(none.net).tolist()], 5)
again = new("again", 'snapshot_prefix: "snap/again"')
again.solve("snap/times_iter_2.solverstate")
show("resumed", [again.iter, sorted(glob.glob("snap/again*")), params(again.net).tolist()], 5)
named = new("named.prototxt", "")
named.snapshot()
in_folder = new("in_folder.prototxt", 'snapshot_prefix: "snap"')
in_folder.snapshot()
show("named after its file", sorted(glob.glob("*named*model") + glob.glob("snap/in_*")))

# weights to begin with
names = "snap/times_iter_2.caffemodel, snap/again_iter_5.caffemodel"
tuned = caffe.SGDSolver(solver_file("tuned", BASE + 'weights: "{}"'.format(names)))
show("weights", params(tuned.net), 5)

# gradients beside the weights
for kind in (caffe.SGDSolver, caffe.AdamSolver):
    name = "snap/diffs" + kind.__name__
    told = new(name[5:], 'snapshot_diff: true snapshot: 2 snapshot_prefix: "{}"'.format(name), kind)
    told.step(3)
    told.snapshot()
    for iteration in (2, 3):
        with open("{}_iter_{}.caffemodel".format(name, iteration), "rb") as file:
            model.ParseFromString(file.read())
        blobs = [blob for layer in model.layer for blob in layer.blobs]
        show("gradients", [list(blob.diff) for blob in blobs], iteration)
        with open("{}_iter_{}.solverstate".format(name, iteration), "rb") as file:
            state.ParseFromString(file.read())
        show("history without", [len(blob.diff) for blob in state.history])
    told.step(1)
    show("goes on", params(told.net), 4)
    fresh = new("fresh" + kind.__name__, "", kind)
    fresh.net.copy_from(name + "_iter_3.caffemodel")
    show("gradients read", diffs(fresh.net), 3)
    fresh.apply_update()
    show("and used", params(fresh.net), 4)
