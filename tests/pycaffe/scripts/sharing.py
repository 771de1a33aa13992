"""Nets that use one another's weights: who trains, who sees it, and who does not."""

import caffe
import numpy as np
from small_nets import NET, diffs, feed, fill, params, solver_file, write
from twin import show

BASE = 'base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" max_iter: 4 '


def net(seed, phase=caffe.TRAIN):
    made = caffe.Net(write("net.prototxt", NET), phase)
    fill(made, seed)
    feed(made)
    return made


def solver(name):
    made = caffe.SGDSolver(solver_file(name, BASE + 'snapshot_prefix: "{}"'.format(name)))
    fill(made.net)
    feed(made.net)
    return made


# Another net follows a solver.
leader = solver("leader")
follower = net(3, caffe.TEST)
leader.share_weights(follower)
leader.step(2)
show("the follower", params(follower), 2)
show("its scores", follower.forward(blobs=["fc"])["fc"], 2)
follower.params["fc"][1].data[...] = [1, 0, -1, 2]
leader.step(1)
show("written by the follower", params(leader.net), 3)

# A solver trains the weights of another net.
owner, trainer = net(5), solver("trainer")
before = params(owner)
trainer.net.share_with(owner)
show("the owner's", params(trainer.net))
trainer.step(2)
show("trained by another", params(owner), 2)
show("as the trainer", bool((params(owner) == params(trainer.net)).all()))
show("has moved", bool((params(owner) != before).any()))
owner.params["conv"][0].data[...] *= 0.5
trainer.step(1)
show("from what the owner wrote", params(trainer.net), 3)
trainer.snapshot()
trainer.step(1)
trainer.restore("trainer_iter_3.solverstate")
show("restored", params(owner), 3)
trainer.net.params["fc"][0].diff[...] = 1
trainer.apply_update()
show("an update alone", params(owner), 3)
copy = net(6)
copy.copy_from("trainer_iter_3.caffemodel")
show("the snapshot", params(copy), 3)

# Of three in a row the first keeps what the second had.
first, second, third = net(7), net(8), net(9)
first.share_with(second)
second.share_with(third)
third.params["fc"][0].data[...] = 4
second.params["conv"][0].data[...] = 3
show("three", [params(each).tolist() for each in (first, second, third)])

# Weights that change hands between the passes count in the gradient.
for looked_at in (False, True):
    changed, other = net(10), net(11)
    views = [blob.data for blob in changed.blobs.values()] if looked_at else []
    changed.forward()
    changed.share_with(other)
    changed.backward()
    show("between the passes", diffs(changed))
    show("hidden", changed.blobs["conv"].diff)

# A blob that two layers share by its name, shared once more.
TIED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 } } }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" param { name: "w" } param {}
  inner_product_param { num_output: 4 } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" } param {}
  inner_product_param { num_output: 4 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "b" bottom: "data" top: "loss" }
"""
tied = caffe.SGDSolver(solver_file("tied", BASE, TIED))
plain = caffe.Net(write("plain.prototxt", TIED), caffe.TRAIN)
fill(tied.net)
fill(plain, 2)
tied.net.share_with(plain)
tied.net.blobs["data"].data[...] = np.arange(8).reshape(2, 4) / 8.0
tied.step(2)
show("tied", [params(plain).tolist(), params(tied.net).tolist()], 2)
half = TIED.replace('name: "b"', 'name: "c"')
apart = caffe.Net(write("half.prototxt", half), caffe.TRAIN)
fill(apart, 4)
apart.share_with(tied.net)
tied.step(1)
show("the first layer alone", [params(apart).tolist(), params(tied.net).tolist()], 3)
