"""Style and content of pictures: losses of Gram matrices at hidden layers, down to the pixels."""

import caffe
import numpy as np
from caffe import layers as L
from caffe import params as P
from twin import fill, show, written

n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[1, 3, 12, 12]))
n.conv1 = L.Convolution(n.data, num_output=4, kernel_size=3, pad=1)
n.tanh1 = L.TanH(n.conv1, in_place=True)
n.pool1 = L.Pooling(n.tanh1, pool=P.Pooling.AVE, kernel_size=2, stride=2)
n.conv2 = L.Convolution(n.pool1, num_output=5, kernel_size=3, pad=1)
n.tanh2 = L.TanH(n.conv2, in_place=True)
proto = n.to_proto()
proto.force_backward = True
net = caffe.Net(written("style.prototxt", proto), caffe.TEST)
fill(net, 18)
rng = np.random.RandomState(19)
content, style, image = (rng.rand(3, 12, 12).astype(np.float32) for _ in range(3))
STYLE = {"conv1": 0.3, "conv2": 0.7}


def gram(blob):
    flat = blob.data[0].reshape(blob.data.shape[1], -1)
    return flat.dot(flat.T), flat


def passed(pixels):
    net.blobs["data"].data[0] = pixels
    net.forward()


passed(style)
wanted = {name: gram(net.blobs[name])[0] for name in STYLE}
passed(content)
kept = net.blobs["conv2"].data[0].copy()

losses = []
for _ in range(6):
    passed(image)
    loss = 0
    net.blobs["conv2"].diff[...] = 0
    for name, end in (("conv2", "pool1"), ("conv1", None)):
        blob = net.blobs[name]
        products, flat = gram(blob)
        off = products - wanted[name]
        loss += STYLE[name] * float((off**2).sum()) / flat.size**2 / 4
        blob.diff[0] += (STYLE[name] * off.dot(flat) / flat.size**2).reshape(blob.diff[0].shape)
        if name == "conv2":
            away = blob.data[0] - kept
            loss += 0.05 * float((away**2).sum()) / 2
            blob.diff[0] += 0.05 * away
        net.backward(start="tanh" + name[-1], end=end)
    losses.append(loss)
    image = image - 0.5 * net.blobs["data"].diff[0]
show("losses", losses, iterations=6)
show("gram", wanted["conv2"])
show("image", image, iterations=6)
