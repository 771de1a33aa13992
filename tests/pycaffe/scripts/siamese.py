"""Two branches that share their weights, and a contrastive loss."""

import caffe
import numpy as np
from caffe import layers as L
from twin import fill, show, written

n = caffe.NetSpec()
n.pair = L.Input(shape=dict(dim=[6, 2, 8, 8]))
n.sim = L.Input(shape=dict(dim=[6]))
n.left, n.right = L.Slice(n.pair, ntop=2, axis=1, slice_point=1)
for side in ("left", "right"):
    ending = "" if side == "left" else "_p"
    shared = [
        [dict(name=layer + "_w", lr_mult=1), dict(name=layer + "_b", lr_mult=2)]
        for layer in ("conv", "ip")
    ]
    n["conv" + ending] = L.Convolution(n[side], num_output=4, kernel_size=3, param=shared[0])
    n["tanh" + ending] = L.TanH(n["conv" + ending], in_place=True)
    n["feat" + ending] = L.InnerProduct(n["tanh" + ending], num_output=2, param=shared[1])
n.loss = L.ContrastiveLoss(n.feat, n.feat_p, n.sim, margin=1.5)

caffe.set_mode_cpu()
settings = caffe.proto.caffe_pb2.SolverParameter(
    train_net=written("siamese.prototxt", n.to_proto()), base_lr=0.05, lr_policy="fixed"
)
settings.momentum = 0.9
solver = caffe.SGDSolver(written("siamese_solver.prototxt", settings))
net = solver.net
fill(net, 9)
rng = np.random.RandomState(10)
net.blobs["pair"].data[...] = rng.rand(6, 2, 8, 8)
net.blobs["sim"].data[...] = [1, 0, 1, 0, 0, 1]
show("loss", net.forward()["loss"])
net.backward()
show("left", net.blobs["left"].diff)
show("right", net.blobs["right"].diff)
show("conv", net.params["conv"][0].diff)
show("params", sorted(net.params))
show("shared", bool((net.params["conv"][0].data == net.params["conv_p"][0].data).all()))
net.clear_param_diffs()
solver.step(5)
show("trained", net.blobs["loss"].data, iterations=5)
show("ip", net.params["feat"][0].data, iterations=5)
show("still shared", bool((net.params["feat"][1].data == net.params["feat_p"][1].data).all()))
