"""A small LeNet from a NetSpec, trained step by step on an LMDB and tested on another."""

import caffe
import numpy as np
from caffe import layers as L
from caffe import params as P
from twin import fill, show, written


def lenet(source, batch):
    n = caffe.NetSpec()
    n.data, n.label = L.Data(
        batch_size=batch,
        backend=P.Data.LMDB,
        source=source,
        transform_param=dict(scale=1.0 / 255),
        ntop=2,
    )
    n.conv1 = L.Convolution(n.data, kernel_size=3, num_output=4)
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.conv2 = L.Convolution(n.pool1, kernel_size=2, num_output=6)
    n.pool2 = L.Pooling(n.conv2, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.fc1 = L.InnerProduct(n.pool2, num_output=10)
    n.relu1 = L.ReLU(n.fc1, in_place=True)
    n.score = L.InnerProduct(n.relu1, num_output=4)
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    return n.to_proto()


settings = caffe.proto.caffe_pb2.SolverParameter(
    train_net=written("train.prototxt", lenet("digits_lmdb", 8)),
    test_interval=100,
    test_iter=[4],
    base_lr=0.05,
    momentum=0.9,
    weight_decay=5e-4,
    lr_policy="inv",
    gamma=1e-2,
    power=0.75,
    solver_mode=caffe.proto.caffe_pb2.SolverParameter.CPU,
)
settings.test_net.append(written("test.prototxt", lenet("digits_test_lmdb", 5)))

caffe.set_mode_cpu()
solver = caffe.SGDSolver(written("solver.prototxt", settings))
fill(solver.net, 4)
solver.test_nets[0].share_with(solver.net)
for name, blob in solver.net.blobs.items():
    show(name, list(blob.data.shape))

show("train", solver.net.forward()["loss"])
show("test", solver.test_nets[0].forward()["loss"])
show("labels", solver.net.blobs["label"].data)
show("images", solver.net.blobs["data"].data[:2, 0])

solver.step(1)
show("update", solver.net.params["conv1"][0].diff)
losses = []
for _ in range(20):
    solver.step(1)
    losses.append(float(solver.net.blobs["loss"].data))
show("losses", losses, iterations=21)
right = 0
for _ in range(4):
    solver.test_nets[0].forward()
    scores, labels = (solver.test_nets[0].blobs[name].data for name in ("score", "label"))
    right += int((scores.argmax(1) == labels).sum())
show("right", right)
show("iter", solver.iter)
show("conv1", solver.net.params["conv1"][0].data, iterations=21)
show("accumulated", float(np.sum(np.abs(solver.net.params["fc1"][0].data))), iterations=21)
