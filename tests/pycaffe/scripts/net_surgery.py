"""Weights edited in place; a classifier cast into a fully convolutional net for larger images."""

import caffe
import numpy as np
from caffe import layers as L
from caffe import params as P
from twin import fill, show, written


def classifier(convolutional, size):
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 1, size, size]))
    n.conv = L.Convolution(n.data, num_output=3, kernel_size=3)
    n.relu = L.ReLU(n.conv, in_place=True)
    n.pool = L.Pooling(n.relu, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    if convolutional:
        n["fc1-conv"] = L.Convolution(n.pool, num_output=6, kernel_size=5)
        n.relu1 = L.ReLU(n["fc1-conv"], in_place=True)
        n["fc2-conv"] = L.Convolution(n.relu1, num_output=4, kernel_size=1)
        n.prob = L.Softmax(n["fc2-conv"])
    else:
        n.fc1 = L.InnerProduct(n.pool, num_output=6)
        n.relu1 = L.ReLU(n.fc1, in_place=True)
        n.fc2 = L.InnerProduct(n.relu1, num_output=4)
        n.prob = L.Softmax(n.fc2)
    return n.to_proto()


rng = np.random.RandomState(7)
image = rng.rand(20, 20).astype(np.float32)

net = caffe.Net(written("fc.prototxt", classifier(False, 12)), caffe.TEST)
fill(net, 8)
net.blobs["data"].data[...] = image[np.newaxis, np.newaxis, :12, :12]
show("before", net.forward()["prob"])
before = net.blobs["conv"].data.copy()
net.params["conv"][1].data[0] += 1.0
net.forward()
show("brighter", net.blobs["conv"].data - before)
sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
net.params["conv"][0].data[1] = sobel
net.params["conv"][0].data[2, 0] = sobel.T
show("edges", net.forward()["prob"])
net.save("surgery.caffemodel")

full = caffe.Net(written("conv.prototxt", classifier(True, 20)), "surgery.caffemodel", caffe.TEST)
for fc in ("fc1", "fc2"):
    weights, bias = (net.params[fc][i].data for i in range(2))
    show(fc, [list(weights.shape), list(full.params[fc + "-conv"][0].data.shape)])
    full.params[fc + "-conv"][0].data.flat = weights.flat
    full.params[fc + "-conv"][1].data[...] = bias
full.save("full_conv.caffemodel")
found = full.forward_all(data=np.asarray([image[np.newaxis]]))["prob"]
show("map", found[0])
show("classes", found[0].argmax(axis=0))
show("same", float(np.abs(found[0, :, 0, 0] - net.forward()["prob"][0]).max()) < 1e-5)
full.blobs["data"].reshape(1, 1, 16, 18)
full.reshape()
show("smaller", list(full.blobs["prob"].data.shape))
