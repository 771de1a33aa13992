"""Gradient ascent on the input: the mean activation of a hidden layer grows."""

import caffe
import numpy as np
from caffe import layers as L
from caffe import params as P
from twin import fill, show, written

n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[1, 3, 16, 16]))
n.conv1 = L.Convolution(n.data, num_output=5, kernel_size=3, pad=1)
n.sigmoid = L.Sigmoid(n.conv1, in_place=True)
n.pool = L.Pooling(n.sigmoid, pool=P.Pooling.AVE, kernel_size=2, stride=2)
n.conv2 = L.Convolution(n.pool, num_output=4, kernel_size=3)
n.prob = L.Softmax(n.conv2)
proto = n.to_proto()
proto.force_backward = True
net = caffe.Net(written("dream.prototxt", proto), caffe.TEST)
fill(net, 11)


def step(size, jitter, end):
    source, target = net.blobs["data"], net.blobs[end]
    across, down = jitter
    source.data[0] = np.roll(np.roll(source.data[0], across, -1), down, -2)
    net.forward(end=end)
    target.diff[:] = target.data
    net.backward(start=end)
    gradient = source.diff[0]
    source.data[:] += size / np.abs(gradient).mean() * gradient
    source.data[0] = np.roll(np.roll(source.data[0], -across, -1), -down, -2)
    return float((target.data**2).mean())


rng = np.random.RandomState(12)
image = rng.rand(3, 8, 8).astype(np.float32)
for octave, side in enumerate((8, 16)):
    image = caffe.io.resize_image(image.transpose(1, 2, 0), (side, side)).transpose(2, 0, 1)
    net.blobs["data"].reshape(1, 3, side, side)
    net.blobs["data"].data[0] = image
    grown = [step(0.05, rng.randint(-3, 4, 2), "conv2") for _ in range(4)]
    show("grown {}".format(octave), grown, iterations=4)
    image = net.blobs["data"].data[0].copy()
show("image", image, iterations=8)
