"""Pictures of several kinds at once: a data layer in Python, sigmoids and their cross entropy."""

import caffe
import numpy as np
from caffe import layers as L
from twin import fill, show, written


def multilabel(batch, seed):
    n = caffe.NetSpec()
    settings = dict(batch=batch, seed=seed)
    n.data, n.label = L.Python(
        module="twin_layers", layer="MultilabelData", param_str=str(settings), ntop=2
    )
    n.conv = L.Convolution(n.data, num_output=4, kernel_size=3, stride=2)
    n.relu = L.ReLU(n.conv, in_place=True)
    n.drop = L.Dropout(n.relu, in_place=True, dropout_ratio=0.0)
    n.score = L.InnerProduct(n.drop, num_output=6)
    n.loss = L.SigmoidCrossEntropyLoss(n.score, n.label)
    return n.to_proto()


def hamming(labels, guesses):
    return float(np.mean([np.mean(a == b) for a, b in zip(labels, guesses)]))


caffe.set_mode_cpu()
settings = caffe.proto.caffe_pb2.SolverParameter(
    train_net=written("multilabel.prototxt", multilabel(6, 22)),
    test_net=[written("multilabel_test.prototxt", multilabel(4, 23))],
    test_iter=[2],
    test_interval=1000,
    base_lr=0.02,
    lr_policy="fixed",
    momentum=0.9,
    weight_decay=0.001,
)
solver = caffe.SGDSolver(written("multilabel_solver.prototxt", settings))
fill(solver.net, 24)
solver.test_nets[0].share_with(solver.net)
losses = []
for _ in range(10):
    solver.step(1)
    losses.append(float(solver.net.blobs["loss"].data))
show("losses", losses, iterations=10)
test = solver.test_nets[0]
for _ in range(2):
    test.forward()
    show("scores", test.blobs["score"].data, iterations=10)
    show("hamming", hamming(test.blobs["label"].data, test.blobs["score"].data > 0))
    show("nobody", hamming(test.blobs["label"].data, np.zeros((4, 6))))
