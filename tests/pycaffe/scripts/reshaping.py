"""Batches and pictures of other sizes while the net runs."""

import caffe
import numpy as np
from caffe import layers as L
from caffe import params as P
from twin import fill, show, written

n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[4, 2, 8, 8]))
n.conv = L.Convolution(n.data, num_output=3, kernel_size=3, pad=1)
n.pool = L.Pooling(n.conv, pool=P.Pooling.MAX, kernel_size=3, stride=2)
n.spread = L.Deconvolution(
    n.pool, convolution_param=dict(num_output=2, kernel_size=2, stride=2, bias_term=False)
)
n.both = L.Eltwise(n.spread, n.spread, operation=P.Eltwise.PROD)
n.mean = L.Reduction(n.both, axis=1, operation=P.Reduction.MEAN)
proto = n.to_proto()
proto.force_backward = True
net = caffe.Net(written("reshaping.prototxt", proto), caffe.TEST)
fill(net, 25)
rng = np.random.RandomState(26)
for shape in ((4, 2, 8, 8), (1, 2, 8, 8), (3, 2, 11, 6), (5, 2, 9, 9)):
    net.blobs["data"].reshape(*shape)
    if shape[0] != 3:
        net.reshape()
    net.blobs["data"].data[...] = rng.randn(*shape)
    show("mean", net.forward()["mean"])
    show("shapes", [list(blob.data.shape) for blob in net.blobs.values()])
    net.blobs["mean"].diff[...] = 1
    net.backward()
    show("diff", net.blobs["data"].diff)
    data = net.blobs["data"]
    show("sizes", [data.num, data.channels, data.height, data.width, data.count])
images = rng.randn(12, 2, 9, 9).astype(np.float32)
show("all", net.forward_all(data=images, blobs=["pool"])["pool"])
