"""What each pixel means for a class: gradients of one score at the input, whole and guided."""

import caffe
import numpy as np
from caffe import layers as L
from twin import fill, show, written

n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[1, 3, 9, 9]))
n.conv = L.Convolution(n.data, num_output=5, kernel_size=3)
n.relu = L.ReLU(n.conv)
n.fc = L.InnerProduct(n.relu, num_output=4)
proto = n.to_proto()
proto.force_backward = True
net = caffe.Net(written("saliency.prototxt", proto), caffe.TEST)
fill(net, 15)
net.blobs["data"].data[...] = np.random.RandomState(16).randn(1, 3, 9, 9)
net.forward()

for label in range(2):
    chosen = np.zeros((1, 4), np.float32)
    chosen[0, label] = 1
    found = net.backward(fc=chosen)
    show("saliency", np.abs(found["data"]).max(axis=1))
    show("input times gradient", (net.blobs["data"].data * found["data"]).sum(axis=1))

    net.blobs["fc"].diff[...] = chosen
    net.backward(start="fc", end="fc")
    net.blobs["relu"].diff[...] = np.maximum(net.blobs["relu"].diff, 0)
    net.backward(start="relu")
    show("guided", net.blobs["data"].diff)

hidden = net.blobs["conv"].data.copy()
hidden[:, 2] = 0
net.blobs["conv"].data[...] = hidden
show("without one map", net.forward(start="relu")["fc"])
