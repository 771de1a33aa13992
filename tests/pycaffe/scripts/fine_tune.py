"""A trained net's layers in another net: by name, a renamed one from scratch, one frozen."""

import caffe
from caffe import layers as L
from caffe import params as P
from twin import fill, show, written

FROZEN = [dict(lr_mult=0), dict(lr_mult=0)]
LEARNT = [dict(lr_mult=1, decay_mult=1), dict(lr_mult=2, decay_mult=0)]


def style_net(last, classes, frozen, train=True):
    n = caffe.NetSpec()
    n.data, n.label = L.Data(batch_size=10, backend=P.Data.LMDB, source="digits_lmdb", ntop=2)
    n.scaled = L.Power(n.data, scale=1.0 / 255, shift=-0.4)
    n.conv = L.Convolution(
        n.scaled, kernel_size=5, stride=3, num_output=5, param=FROZEN if frozen else LEARNT
    )
    n.relu = L.ReLU(n.conv, in_place=True)
    n.fc = L.InnerProduct(n.relu, num_output=8, param=LEARNT)
    n.tanh = L.TanH(n.fc)
    n[last] = L.InnerProduct(n.tanh, num_output=classes, param=[dict(lr_mult=10)] * 2)
    n.loss = L.SoftmaxWithLoss(n[last], n.label)
    n.acc = L.Accuracy(n[last], n.label)
    return n.to_proto()


def solver_for(net, lr):
    settings = caffe.proto.caffe_pb2.SolverParameter(
        train_net=net, base_lr=lr, lr_policy="step", gamma=0.1, stepsize=8, momentum=0.9
    )
    settings.type = "SGD"
    settings.iter_size = 1
    return caffe.get_solver(written("solver.prototxt", settings))


caffe.set_mode_cpu()
old = solver_for(written("old.prototxt", style_net("score", 5, False)), 0.01)
fill(old.net, 5)
old.step(5)
old.net.save("old.caffemodel")

new = solver_for(written("new.prototxt", style_net("score_new", 4, True)), 0.01)
fill(new.net, 6)
scratch = new.net.params["score_new"][0].data.copy()
new.net.copy_from("old.caffemodel")
show("kept", new.net.params["fc"][0].data, iterations=5)
show("scratch", bool((new.net.params["score_new"][0].data == scratch).all()))
frozen = new.net.params["conv"][0].data.copy()
losses = []
for _ in range(10):
    new.step(1)
    losses.append([float(new.net.blobs[name].data) for name in ("loss", "acc")])
show("losses", losses, iterations=15)
show("frozen", bool((new.net.params["conv"][0].data == frozen).all()))
show("fc", new.net.params["fc"][0].data, iterations=15)
show("bias", new.net.params["score_new"][1].data, iterations=15)
