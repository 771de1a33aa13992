"""A training loop: the rate, gradients and updates seen from outside, callbacks, masks."""

import caffe
import numpy as np
from small_nets import diffs, feed, fill, params, solver_file
from twin import show

FIXED = 'base_lr: 0.1 momentum: 0.9 weight_decay: 0.01 lr_policy: "fixed" max_iter: 7 display: 3 '

solver = caffe.SGDSolver(solver_file("loop", FIXED))
fill(solver.net)
feed(solver.net)
show("begin", [solver.iter, len(solver.test_nets), solver.param.max_iter, solver.param.display])
show("rate", [solver.lr, solver.param.base_lr])

fc = solver.net.params["fc"][0].data
solver.step(1)
show("a view follows", fc)
show("the update is what the gradients hold", diffs(solver.net))
show("loss", [float(solver.net.blobs["loss"].data), solver.iter])
solver.step(2)
show("three steps", params(solver.net), 3)
show("last batch", solver.net.blobs["fc"].data, 3)
show("gradients of blobs", solver.net.blobs["conv"].diff, 3)

solver.param.base_lr = 0.01
solver.step(1)
show("another rate", [solver.lr, diffs(solver.net).tolist()], 4)

# by hand: gradients, then an update
for name in solver.net.params:
    for blob in solver.net.params[name]:
        blob.diff[...] = 0.5
solver.apply_update()
show("by hand", [solver.iter, params(solver.net).tolist(), diffs(solver.net).tolist()], 5)

solver.net.clear_param_diffs()
solver.net.forward()
solver.net.backward()
show("gradients", diffs(solver.net), 5)
solver.net.forward()
solver.net.backward()
show("gradients add up", diffs(solver.net), 5)
solver.step(1)
show("and begin at zero", diffs(solver.net), 6)

# callbacks
seen = []
solver.add_callback(
    lambda: seen.append(["start", solver.iter, float(np.abs(diffs(solver.net)).sum())]),
    lambda: seen.append(["ready", solver.iter, float(np.abs(diffs(solver.net)).sum())]),
)
solver.step(2)
show("callbacks", seen, 8)

# what a callback changes is what is applied
clipped = caffe.SGDSolver(solver_file("clipped", FIXED))
fill(clipped.net)
feed(clipped.net)


def clip():
    for name in clipped.net.params:
        for blob in clipped.net.params[name]:
            np.clip(blob.diff, -0.01, 0.01, out=blob.diff)


clipped.add_callback(lambda: None, clip)
clipped.step(3)
show("clipped", params(clipped.net), 3)

# masks
masked = caffe.get_solver(solver_file("masked", FIXED))
fill(masked.net)
masks = {name: np.abs(masked.net.params[name][0].data) > 0.3 for name in masked.net.params}
for iteration in range(6):
    feed(masked.net, iteration)
    for name, mask in masks.items():
        masked.net.params[name][0].data[...] *= mask
    masked.step(1)
for name, mask in masks.items():
    masked.net.params[name][0].data[...] *= mask
show("masked", params(masked.net), 6)
show("zeros", [int((blob[0].data == 0).sum()) for blob in masked.net.params.values()])

# nets outlive their solver, and other nets can have its weights
net = masked.net
other = caffe.Net("masked.net", caffe.TEST)
masked.share_weights(other)
masked.step(1)
show("shared", params(other), 7)
del masked
show("outlived", params(net), 7)

# a solver whose net has another solver's weights
first = caffe.SGDSolver(solver_file("first", FIXED))
second = caffe.SGDSolver(solver_file("second", FIXED))
fill(first.net)
for one in (first, second):
    feed(one.net)
second.net.share_with(first.net)
second.step(2)
show("written through", params(first.net), 2)
first.step(1)
show("both ways", params(second.net), 3)
