"""Pictures changed along the sign of the loss's gradient until the net errs."""

import caffe
import numpy as np
from caffe import layers as L
from caffe import params as P
from twin import fill, show, written

n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[3, 2, 10, 10]))
n.label = L.Input(shape=dict(dim=[3]))
n.conv = L.Convolution(n.data, num_output=4, kernel_size=3, stride=2)
n.prelu = L.PReLU(n.conv)
n.both = L.Concat(n.prelu, L.AbsVal(n.prelu))
n.pool = L.Pooling(n.both, pool=P.Pooling.AVE, kernel_size=2, stride=2)
n.score = L.InnerProduct(n.pool, num_output=4)
n.hinge = L.HingeLoss(n.score, n.label, loss_weight=0.3, norm=P.HingeLoss.L2)
n.loss = L.SoftmaxWithLoss(n.score, n.label, loss_weight=2)
proto = n.to_proto()
proto.force_backward = True
net = caffe.Net(written("adversarial.prototxt", proto), caffe.TEST)
fill(net, 33)
images = np.random.RandomState(34).randn(3, 2, 10, 10).astype(np.float32)
net.blobs["data"].data[...] = images
net.forward()
labels = net.blobs["score"].data.argmax(1)
show("labels", labels)
show("weights", list(net.blob_loss_weights.items()))

for _ in range(5):
    net.blobs["label"].data[...] = labels
    found = net.forward()
    show("losses", [float(found[name]) for name in ("loss", "hinge")])
    gradient = net.backward(["score"])
    show("score gradient", gradient["score"])
    show("gradient", gradient["data"])
    net.blobs["data"].data[...] += 0.05 * np.sign(gradient["data"])

n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[2, 2, 10, 10]))
n.conv = L.Convolution(n.data, num_output=4, kernel_size=3, stride=2)
n.score = L.InnerProduct(n.conv, num_output=4)
proto = n.to_proto()
proto.force_backward = True
net = caffe.Net(written("occlusion.prototxt", proto), caffe.TEST)
fill(net, 33)
patched = []
for row in range(0, 10, 5):
    for column in range(0, 10, 5):
        covered = images.copy()
        covered[:, :, row : row + 5, column : column + 5] = 0
        patched.append(net.forward_all(data=covered)["score"][range(3), labels])
show("occlusion", np.array(patched))
wanted = np.eye(4, dtype=np.float32)[labels]
both = net.forward_backward_all(data=images, score=wanted, blobs=["conv"], diffs=["conv"])
show("forward", sorted((name, list(values.shape)) for name, values in both[0].items()))
show("backward", both[1]["data"])
show("conv", both[1]["conv"])
