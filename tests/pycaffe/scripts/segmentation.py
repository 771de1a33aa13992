"""A fully convolutional net on pictures of different sizes: bilinear upsampling, crops, scores."""

import caffe
import numpy as np
from caffe import layers as L
from caffe import params as P
from caffe.coord_map import crop
from twin import fill, show, written

n = caffe.NetSpec()
n.data, n.label = L.Python(
    module="twin_layers", layer="SegmentationData", ntop=2, param_str=str(dict(seed=31))
)
n.conv1 = L.Convolution(n.data, num_output=5, kernel_size=3, pad=10)
n.relu1 = L.ReLU(n.conv1, in_place=True)
n.pool1 = L.Pooling(n.relu1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
n.conv2 = L.Convolution(n.pool1, num_output=6, kernel_size=3)
n.relu2 = L.ReLU(n.conv2, in_place=True)
n.score_coarse = L.Convolution(n.relu2, num_output=3, kernel_size=1)
n.upscore = L.Deconvolution(
    n.score_coarse,
    convolution_param=dict(num_output=3, kernel_size=4, stride=2, bias_term=False),
    param=[dict(lr_mult=0)],
)
n.score_pool1 = L.Convolution(n.pool1, num_output=3, kernel_size=1)
n.fine = L.Deconvolution(
    n.score_pool1,
    convolution_param=dict(num_output=3, kernel_size=2, stride=2, bias_term=False, group=3),
)
n.fine_crop = crop(n.fine, n.upscore)
n.fuse = L.Eltwise(n.upscore, n.fine_crop, operation=P.Eltwise.SUM)
n.score = crop(n.fuse, n.data)
n.loss = L.SoftmaxWithLoss(n.score, n.label, loss_param=dict(normalize=False, ignore_label=255))
show("net", n.to_proto())


def bilinear(net, name):
    weights = net.params[name][0]
    size = weights.data.shape[-1]
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 == 1 else factor - 0.5
    y, x = np.ogrid[:size, :size]
    filt = (1 - abs(y - centre) / factor) * (1 - abs(x - centre) / factor)
    weights.data[range(weights.num), range(min(weights.channels, weights.num)), :, :] = filt


net = caffe.Net(written("fcn.prototxt", n.to_proto()), caffe.TRAIN)
fill(net, 32)
net.params["upscore"][0].data[...] = 0
bilinear(net, "upscore")
show("up", net.params["upscore"][0].data)
hist = np.zeros((3, 3), int)
for _ in range(4):
    show("loss", net.forward()["loss"])
    net.backward()
    show("gradient", net.params["conv2"][0].diff)
    show("pool", net.params["score_pool1"][1].diff)
    show("size", list(net.blobs["score"].data.shape))
    show("score", net.blobs["score"].data[0, :, ::3, ::3])
    label = net.blobs["label"].data[0, 0].astype(int)
    known = label < 3
    guess = net.blobs["score"].data[0].argmax(0)
    hist += np.bincount(3 * label[known] + guess[known], minlength=9).reshape(3, 3)
show("hist", hist)
show("mean accuracy", np.mean(np.diag(hist) / hist.sum(1).astype(float)))

again = caffe.Net("fcn.prototxt", caffe.TEST)
again.share_with(net)
show("shared", again.forward()["loss"])
