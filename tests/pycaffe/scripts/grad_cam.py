"""Grad-CAM: the last feature maps weighed by the mean gradient of one class's score."""

import caffe
import numpy as np
from caffe import layers as L
from twin import fill, show, written

n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[2, 1, 14, 14]))
n.conv1 = L.Convolution(n.data, num_output=4, kernel_size=3, stride=2)
n.elu = L.ELU(n.conv1, in_place=True, alpha=0.7)
n.conv2 = L.Convolution(n.elu, num_output=6, kernel_size=3)
n.pool = L.Pooling(n.conv2, pool=1, global_pooling=True)
n.score = L.InnerProduct(n.pool, num_output=5)
n.prob = L.Softmax(n.score)
proto = n.to_proto()
proto.force_backward = True
net = caffe.Net(written("cam.prototxt", proto), caffe.TEST)
fill(net, 13)
net.blobs["data"].data[...] = np.random.RandomState(14).rand(2, 1, 14, 14)
prob = net.forward(["conv2"])
show("prob", prob["prob"])
classes = prob["prob"].argmax(1)
show("classes", classes)

net.blobs["score"].diff[...] = 0
net.blobs["score"].diff[range(2), classes] = 1
found = net.backward(["conv2"], start="score", end="pool")
show("keys", sorted(found))
maps, gradients = net.blobs["conv2"].data, net.blobs["conv2"].diff
weights = gradients.mean(axis=(2, 3), keepdims=True)
show("weights", weights)
cam = np.maximum((weights * maps).sum(axis=1), 0)
show("cam", cam)
show("resized", caffe.io.resize_image(cam.transpose(1, 2, 0)[:, :, :1], (14, 14)))
