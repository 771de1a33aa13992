"""Fine-tuning: weights by the names of layers, a new last layer, the rest slow or frozen."""

import caffe
import numpy as np
from small_nets import NET, feed, fill, params, solver_file
from twin import show

BASE = 'base_lr: 0.05 momentum: 0.9 weight_decay: 0.001 lr_policy: "step" gamma: 0.1 stepsize: 3 '

source = caffe.SGDSolver(solver_file("source", BASE))
fill(source.net)
feed(source.net)
source.step(3)
source.net.save("source.caffemodel")
source.net.save_hdf5("source.caffemodel.h5")

NEW = (
    NET.replace('"fc"', '"fc_new"')
    .replace("num_output: 4", "num_output: 7")
    .replace("lr_mult: 1 }", "lr_mult: 0 }")
    .replace("lr_mult: 2", "lr_mult: 0")
)
for weights in ("source.caffemodel", "source.caffemodel.h5"):
    tuned = caffe.SGDSolver(solver_file("tuned", BASE, NEW))
    fill(tuned.net, seed=5)
    tuned.net.copy_from(weights)
    feed(tuned.net)
    show("the same", bool(np.array_equal(params(tuned.net)[:24], params(source.net)[:24])))
    losses = []
    for _ in range(5):
        tuned.step(1)
        losses.append(float(tuned.net.blobs["loss"].data))
    show("losses", losses, 5)
    show("tuned", params(tuned.net), 5)
    show("frozen", bool(np.array_equal(params(tuned.net)[:27], params(source.net)[:27])))
    show("nothing goes below", float(np.abs(tuned.net.params["conv"][0].diff).sum()))
