"""Published nets at small pictures: every blob's mean, and the gradient of one score."""

import caffe
import numpy as np
from twin import show

for name, side in (("lenet", 28), ("cifar10_quick", 32), ("squeezenet_v1.0", 39)):
    net = caffe.Net("prototxt/{}/deploy.prototxt".format(name), caffe.TEST)
    rng = np.random.RandomState(35)
    for blobs in net.params.values():
        weights = blobs[0].data
        fan_in = weights[0].size
        weights[...] = rng.randn(*weights.shape) * np.sqrt(2.0 / fan_in)
        blobs[1].data[...] = rng.rand(*blobs[1].data.shape) * 0.1
    data = net.blobs[net.inputs[0]]
    data.reshape(1, data.channels, side, side)
    data.data[...] = rng.rand(*data.data.shape)
    show(name, net.forward()[net.outputs[0]])
    show("blobs", [[blob, list(net.blobs[blob].data.shape)] for blob in net.blobs])
    for blob in net.blobs:
        show(blob, [float(np.abs(net.blobs[blob].data).mean())])
    net.blobs[net.outputs[0]].diff[...] = 0
    net.blobs[net.outputs[0]].diff[:, 0] = 1
    net.backward()
    for layer in list(net.params)[:3]:
        show(layer, [float(np.abs(net.params[layer][0].diff).mean())])
