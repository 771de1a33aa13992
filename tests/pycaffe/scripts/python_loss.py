"""A Euclidean loss written in Python beside Caffe's own, in a net that a solver trains."""

import caffe
import numpy as np
from caffe import layers as L
from twin import fill, show, written


def regression(loss):
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[5, 3]))
    n.goal = L.Input(shape=dict(dim=[5, 2]))
    n.ip = L.InnerProduct(n.data, num_output=2)
    if loss == "python":
        n.loss = L.Python(n.ip, n.goal, module="twin_layers", layer="EuclideanLoss", loss_weight=1)
    else:
        n.loss = L.EuclideanLoss(n.ip, n.goal)
    return n.to_proto()


caffe.set_mode_cpu()
rng = np.random.RandomState(20)
data, goal = rng.randn(5, 3), rng.randn(5, 2)
for loss in ("python", "own"):
    settings = caffe.proto.caffe_pb2.SolverParameter(
        train_net=written("regression.prototxt", regression(loss)),
        base_lr=0.1,
        lr_policy="fixed",
        momentum=0.5,
    )
    solver = caffe.SGDSolver(written("regression_solver.prototxt", settings))
    fill(solver.net, 21)
    solver.net.blobs["data"].data[...] = data
    solver.net.blobs["goal"].data[...] = goal
    show("first", solver.net.forward()["loss"])
    solver.net.backward()
    show("gradient", solver.net.params["ip"][0].diff)
    solver.net.clear_param_diffs()
    solver.step(10)
    show("loss", solver.net.blobs["loss"].data, iterations=10)
    show("weights", solver.net.params["ip"][0].data, iterations=10)
